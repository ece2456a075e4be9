"""Signed requests: what proves a caller, and that a signature is good for one request alone."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.contracts.registry import RegistryWritten
from skycore.discovery.callers import NONCE_MISMATCH, Callers, CallerSettings, check
from skycore.errors import ConfigError, RequestRefusedError
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.model.requests import NONCE_MAX, signed, signed_old
from skycore.testing.fakes import TEST_NETWORK, identity

SERVER, ALICE, MALLORY = identity("server"), identity("alice"), identity("mallory")
HOST, TARGET, BODY, NONCE = "tpd.example:9080", b"/tpd/v3/transports/", b"[]", 7
KEY = ALICE.public.hex().encode()


def scope(headers, method="POST", target=TARGET):
    path, _, query = target.partition(b"?")
    return {
        "type": "http",
        "method": method,
        "path": path.decode("latin-1"),
        "raw_path": path,
        "query_string": query,
        "headers": headers,
    }


def headers(
    who=ALICE, method="POST", host=HOST, target=TARGET, nonce=NONCE, body=BODY, network=TEST_NETWORK
):
    said = signed(network.id, method, host, target, nonce, body)
    return [
        (b"host", host.encode()),
        (b"sw-public", who.public.hex().encode()),
        (b"sw-nonce", str(nonce).encode()),
        (b"sw-sig", who.sign(said).hex().encode()),
    ]


def with_header(name, value, of=None):
    return [(k, value if k == name else v) for k, v in of or headers() if k != name or value != b""]


def callers(**settings):
    return Callers(SERVER, CallerSettings(**settings))


def refused(attempt, code=401):
    with pytest.raises(RequestRefusedError) as said:
        attempt()
    assert said.value.code == code
    return str(said.value)


def test_a_signed_request_proves_its_caller():
    assert callers().prove(scope(headers()), BODY) == (ALICE.public, NONCE, "")


def test_where_a_caller_is_counts_but_for_monitors():
    """Their keys stand in the settings: a quota of their address must not keep them out."""
    seen = {"client": ("198.51.100.7", 40_000)}
    assert callers().prove(scope(headers()) | seen, BODY).host == "198.51.100.7"
    trusting = callers(monitors=(ALICE.public.hex(),))
    assert trusting.prove_monitor(scope(headers()) | seen, BODY).host == ""


def test_the_query_is_signed_and_the_case_of_the_host_is_not():
    target = TARGET + b"?sync=true"
    asked = scope(with_header(b"host", HOST.upper().encode(), headers(target=target)), "POST")
    refused(lambda: callers().prove(asked, BODY))
    asked["query_string"] = b"sync=true"
    assert callers().prove(asked, BODY).public == ALICE.public


OTHERS = {
    "method": lambda: (scope(headers(), method="DELETE"), BODY),
    "path": lambda: (scope(headers(), target=b"/tpd/transports/delete-batch"), BODY),
    "query": lambda: (scope(headers(), target=TARGET + b"?sync=true"), BODY),
    "encoding of the path": lambda: (scope(headers(), target=b"/tpd/v3/%74ransports/"), BODY),
    "host": lambda: (scope(with_header(b"host", b"sd.example:9080")), BODY),
    "body": lambda: (scope(headers()), b'["x"]'),
    "nonce": lambda: (scope(with_header(b"sw-nonce", b"8")), BODY),
    "network": lambda: (scope(headers(network=NetworkConstants(ED25519, "other"))), BODY),
    "key": lambda: (scope(with_header(b"sw-public", MALLORY.public.hex().encode())), BODY),
}


@pytest.mark.parametrize("what", OTHERS)
def test_l21_a_signature_for_another_is_refused(what):
    asked, body = OTHERS[what]()
    assert "SW-Sig does not fit" in refused(lambda: callers().prove(asked, body))


def test_l21_a_replay_is_told_in_the_words_that_clients_know():
    assert check(RegistryWritten(next_nonce=3)).next_nonce == 3
    assert refused(lambda: check(RegistryWritten(error="nonce", next_nonce=8))) == NONCE_MISMATCH
    assert "9" in refused(lambda: check(RegistryWritten(error="stamp", stamp=9)), 422)


MALFORMED = {
    "SW-Public missing": (b"sw-public", b""),
    "SW-Sig missing": (b"sw-sig", b""),
    "SW-Nonce missing": (b"sw-nonce", b""),
    "error parsing SW-Public": (b"sw-public", b"zz"),
    "error parsing SW-Public: 'AB": (b"sw-public", b"AB" * 32),
    "error parsing SW-Public: 00000000": (b"sw-public", b"00" * 32),
    "error parsing SW-Public: '\xe9": (b"sw-public", b"\xe9" * 64),
    "error parsing SW-Sig": (b"sw-sig", b"12"),
    "error parsing SW-Sig: a": (b"sw-sig", b"xy" * 64),
    "error parsing SW-Nonce: invalid": (b"sw-nonce", b"-1"),
    "error parsing SW-Nonce: inv": (b"sw-nonce", b"0x7"),
    "error parsing SW-Nonce: invalid syntax": (b"sw-nonce", b"9" * 17),
    "error parsing SW-Nonce: value out of range": (b"sw-nonce", str(NONCE_MAX + 1).encode()),
    "error parsing Host: twice or too long": (b"host", b"h" * 1_025),
    "too long to be signed": (b"host", b"\xe9" * 1_024),
}


@pytest.mark.parametrize("message", MALFORMED)
def test_a_malformed_header_is_refused_in_the_words_that_clients_know(message):
    name, value = MALFORMED[message]
    assert message in refused(lambda: callers().prove(scope(with_header(name, value)), BODY))


def test_headers_that_come_twice_are_refused():
    doubled = [*headers(), (b"sw-public", KEY)]
    assert "twice" in refused(lambda: callers().prove(scope(doubled), BODY))


def test_a_server_with_names_refuses_others():
    assert callers(hosts=(HOST.upper(),)).prove(scope(headers()), BODY).public == ALICE.public
    assert "is not" in refused(lambda: callers(hosts=("b",)).prove(scope(headers()), BODY))


def test_old_signatures_are_believed_only_where_the_operator_says_so():
    old = with_header(b"sw-sig", ALICE.sign(signed_old(BODY, NONCE)).hex().encode())
    refused(lambda: callers().prove(scope(old), BODY))
    trusting = callers(unbound_signatures=True)
    assert trusting.prove(scope(old), BODY) == (ALICE.public, NONCE, "")
    refused(lambda: trusting.prove(scope(old), BODY + b" "))


def test_monitors_sign_like_everybody_and_others_are_refused():
    watched = callers(monitors=(ALICE.public.hex(),))
    assert watched.prove_monitor(scope(headers()), BODY).nonce == NONCE
    assert "may not" in refused(
        lambda: watched.prove_monitor(scope(headers(MALLORY)), BODY), code=403
    )
    assert "SW-Public missing" in refused(lambda: watched.prove_monitor(scope([]), BODY))
    with pytest.raises(ConfigError, match="monitors"):
        callers(monitors=("nobody",))


def test_l21_a_static_signature_of_a_monitor_is_believed_only_where_the_operator_says_so():
    static = [(b"nm-pk", KEY), (b"nm-sign", ALICE.sign(KEY).hex().encode())]
    monitors = (ALICE.public.hex(),)
    asked = scope(static)
    refused(lambda: callers(monitors=monitors).prove_monitor(asked, BODY), 403)
    trusting = callers(monitors=monitors, unbound_signatures=True)
    assert trusting.prove_monitor(asked, BODY) == (ALICE.public, None, "")
    forged = scope([(b"nm-pk", KEY), (b"nm-sign", MALLORY.sign(KEY).hex().encode())])
    refused(lambda: trusting.prove_monitor(forged, BODY), 403)
    refused(lambda: trusting.prove_monitor(scope([(b"nm-pk", b"x")]), BODY), 400)
    refused(lambda: trusting.prove_monitor(scope(static[:1]), BODY), 400)


def test_a_key_of_a_path_is_read_or_refused():
    assert callers().key(ALICE.public.hex()) == ALICE.public
    refused(lambda: callers().key("x"), 400)


def test_whether_a_request_claims_to_be_signed():
    assert callers().signs(scope(headers()))
    assert not callers().signs(scope([]))


NAMES = st.sampled_from([b"sw-public", b"sw-nonce", b"sw-sig", b"host", b"nm-pk", b"nm-sign", b"x"])
VALUES = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([v for _, v in headers()]),
    st.integers(-1, 2**64).map(lambda n: str(n).encode()),
)


@given(
    st.lists(st.tuples(NAMES, VALUES), max_size=8),
    st.binary(max_size=40),
    st.text(max_size=300),
    st.binary(max_size=20),
)
def test_whatever_comes_is_refused_with_a_status(some, target, method, body):
    asked = scope(some, method=method, target=b"/" + target)
    watched = callers(unbound_signatures=True, monitors=(MALLORY.public.hex(),))
    for prove in (watched.prove, watched.prove_monitor):
        with pytest.raises(RequestRefusedError) as said:
            prove(asked, body)
        assert said.value.code in (400, 401, 403)


def test_strangers_cost_no_memory():
    proving = callers()
    keys = [identity(f"s{i}") for i in range(40)]
    requests = [scope(with_header(b"sw-nonce", b"9", headers(k))) for k in keys]

    def flood():
        for _ in range(10):
            for asked in requests:
                with pytest.raises(RequestRefusedError):
                    proving.prove(asked, BODY)
        gc.collect()

    flood()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        flood()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()

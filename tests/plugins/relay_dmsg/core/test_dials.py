"""Signed dials: what a relay could do to them, and that it shows."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from relay_dmsg.core.dials import SeenDials, is_signed, judge, make_answer, make_dial
from relay_dmsg.core.messages import Answer, Code, Dial, Request, decode_request
from skycore.errors import DecodeError, RemoteProtocolError
from skycore.model.keys import ED25519
from skycore.model.limits import DMSG_AGE_MAX_S
from skycore.model.network import NetworkConstants
from skycore.testing.fakes import identity

ALICE, BOB, CAROL = identity("alice"), identity("bob"), identity("carol")
NETWORK = ALICE.network
NOW = 1_800_000_000 * 10**9


def dial(src=ALICE, dst=BOB, **changes):
    fields = {"port": 45, "time_ns": NOW, "id": bytes(16), "purpose": "test"}
    return make_dial(src, Request(src.public, dst.public, **{**fields, **changes}))


def test_an_honest_dial_is_accepted():
    judged = judge(NETWORK, dial(), NOW, src=ALICE.public)
    assert judged.code is Code.ACCEPTED and judged.request.purpose == "test"


def test_who_speaks_is_not_what_the_payload_says():
    assert judge(NETWORK, dial(), NOW, src=CAROL.public).code is Code.BAD_REQUEST


@given(st.data())
def test_r7_a_changed_bit_anywhere_is_seen(data):
    whole = dial()
    request, signature = bytearray(whole.request), bytearray(whole.signature)
    part = data.draw(st.sampled_from([request, signature]))
    part[data.draw(st.integers(0, len(part) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        judged = judge(NETWORK, Dial(bytes(request), bytes(signature)), NOW)
    except DecodeError:
        return
    assert judged.code is not Code.ACCEPTED


@pytest.mark.parametrize("off_s", [-DMSG_AGE_MAX_S - 1, DMSG_AGE_MAX_S + 1, 3_600])
def test_r7_an_old_dial_is_stale(off_s):
    assert judge(NETWORK, dial(), NOW + off_s * 10**9).code is Code.STALE


@pytest.mark.parametrize("off_s", [-DMSG_AGE_MAX_S, 0, DMSG_AGE_MAX_S])
def test_clocks_may_differ_by_a_minute(off_s):
    assert judge(NETWORK, dial(), NOW + off_s * 10**9).code is Code.ACCEPTED


def test_a_dial_of_another_network_means_nothing_here():
    other = NetworkConstants(ED25519, "elsewhere")
    assert judge(other, dial(), NOW).code is Code.BAD_REQUEST


def test_a_dial_to_oneself_or_to_no_key_is_none():
    assert judge(NETWORK, dial(ALICE, ALICE), NOW).code is Code.BAD_REQUEST
    short = make_dial(ALICE, Request(ALICE.public, b"short", 45, NOW, bytes(16)))
    assert judge(NETWORK, short, NOW).code is Code.BAD_REQUEST


@pytest.mark.parametrize("code", [Code.ACCEPTED, Code.BUSY, Code.NO_LISTENER])
def test_an_answer_is_its_destinations_own(code):
    wish = dial()
    answer = make_answer(BOB, wish, code, "why")
    assert is_signed(NETWORK, BOB.public, wish, answer)
    for lie in (
        make_answer(CAROL, wish, code),
        make_answer(BOB, dial(id=bytes([1]) * 16), code),
        Answer(answer.code + 1, answer.reason, answer.signature),
        Answer(answer.code, answer.reason, bytes(64)),
    ):
        with pytest.raises(RemoteProtocolError):
            is_signed(NETWORK, BOB.public, wish, lie)
    assert not is_signed(NETWORK, BOB.public, wish, Answer(code, "the server says so"))


def test_a_dial_counts_once():
    seen = SeenDials()
    request = decode_request(dial().request)
    assert seen.take(request, 0.0) is Code.ACCEPTED
    assert seen.take(request, 119.0) is Code.REPLAYED
    assert seen.take(decode_request(dial(CAROL).request), 119.0) is Code.ACCEPTED


def test_the_memory_of_dials_is_bounded_and_ends():
    seen = SeenDials(dials_max=3)
    wishes = [decode_request(dial(id=bytes([n]) * 16).request) for n in range(4)]
    assert [seen.take(w, 0.0) for w in wishes] == [Code.ACCEPTED] * 3 + [Code.BUSY]
    assert seen.take(wishes[3], 121.0) is Code.ACCEPTED and len(seen) == 1


def test_t2299_a_hundred_thousand_dials_leave_as_many_ids_as_two_minutes_have():
    """16,384 ports ran out upstream (#2299, #2284); here the id is 16 random bytes."""
    seen = SeenDials()
    for n in range(100_000):
        wish = Request(bytes([n % 7]) * 32, BOB.public, 45, 0, n.to_bytes(16, "big"), "")
        assert seen.take(wish, n * 0.05, b"server") is Code.ACCEPTED
        assert len(seen) <= 2_401
    assert seen.take(wish, 1e6) is Code.ACCEPTED
    assert len(seen) == 1 and len(seen._of_server) == 1


def test_r7_a_server_fills_its_own_share_of_the_memory():
    seen = SeenDials(dials_max=100, per_server_max=40)

    def take(n, now, server):
        return seen.take(Request(b"s" * 32, b"d" * 32, 45, 0, n.to_bytes(16, "big")), now, server)

    codes = [take(n, 0.0, b"evil") for n in range(60)]
    assert codes == [Code.ACCEPTED] * 40 + [Code.BUSY] * 20
    assert take(100, 1.0, b"honest") is Code.ACCEPTED
    assert take(0, 1.0, b"honest") is Code.REPLAYED  # whoever hands it on
    assert take(101, 200.0, b"evil") is Code.ACCEPTED
    assert len(seen) == 1

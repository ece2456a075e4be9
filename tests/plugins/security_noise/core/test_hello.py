"""The Hellos: bounded when read, and signed down to the last field."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from security_noise.core.hello import (
    INITIATOR,
    PROTOCOL_VERSION,
    RESPONDER,
    _signed_bytes,
    check_hello,
    exchange_key,
    make_hello,
    read_hello,
)
from skycore.errors import (
    HandshakeAuthError,
    HandshakeError,
    HandshakeKeyError,
    HandshakeMalformedError,
    SelfConnectError,
)
from skycore.model.addresses import Address
from skycore.model.keys import ED25519
from skycore.model.limits import HELLO_MAX
from skycore.testing.fakes import identity

ALICE, BOB = identity("alice"), identity("bob")
HASH = bytes(range(32))
HERE = (Address("stcpr", ":7777"), Address("sudph", "[::1]:7778"))


def made(**changes: Any) -> bytes:
    given: dict[str, Any] = {"wall_ns": 17, "features": ("one", "two"), "listening": HERE}
    return make_hello(ALICE, INITIATOR, HASH, **(given | changes))


def fields(data: bytes) -> list[Any]:
    return msgspec.msgpack.decode(data)


def test_what_is_made_is_read_and_verifies() -> None:
    data = made()
    hello = read_hello(data, ED25519)
    check_hello(data, hello, BOB, INITIATOR, HASH)
    assert hello.version == PROTOCOL_VERSION
    assert hello.features == ("one", "two")
    assert hello.identity == ALICE.public
    assert hello.wall_ns == 17
    assert hello.instance_id == ALICE.instance_id
    assert hello.listening == HERE


def test_layout_is_an_array_of_seven() -> None:
    raw = fields(made())
    assert raw[:6] == [
        1,
        ["one", "two"],
        ALICE.public,
        17,
        ALICE.instance_id,
        [["stcpr", ":7777"], ["sudph", "[::1]:7778"]],
    ]
    assert len(raw) == 7
    assert len(raw[6]) == ED25519.signature_bytes


@pytest.mark.parametrize("field", range(6))
def test_n14_no_field_can_be_changed(field: int) -> None:
    other: list[Any] = [2, ["one"], None, 18, bytes(16), []]
    raw = fields(made())
    raw[field] = other[field] if field != 2 else identity("carol").public
    data = msgspec.msgpack.encode(raw)
    with pytest.raises(HandshakeAuthError):
        check_hello(data, read_hello(data, ED25519), BOB, INITIATOR, HASH)


def test_n14_no_field_can_be_added() -> None:
    data = msgspec.msgpack.encode([*fields(made()), "new"])
    with pytest.raises(HandshakeAuthError):
        check_hello(data, read_hello(data, ED25519), BOB, INITIATOR, HASH)


def test_a_hello_that_has_grown_still_verifies() -> None:
    """A later version adds a field at the end, and signs it; this one does not know it."""

    raw = [msgspec.Raw(msgspec.msgpack.encode(part)) for part in [*fields(made()), {"pq": True}]]
    raw[6] = msgspec.Raw(msgspec.msgpack.encode(ALICE.sign(_signed_bytes(INITIATOR, HASH, raw))))
    data = msgspec.msgpack.encode(raw)
    check_hello(data, read_hello(data, ED25519), BOB, INITIATOR, HASH)


@pytest.mark.parametrize(
    ("role", "handshake_hash"), [(RESPONDER, HASH), (INITIATOR, bytes(32))], ids=["role", "hash"]
)
def test_n11_a_hello_means_nothing_in_another_role_or_handshake(
    role: bytes, handshake_hash: bytes
) -> None:
    data = made()
    with pytest.raises(HandshakeAuthError):
        check_hello(data, read_hello(data, ED25519), BOB, role, handshake_hash)


def test_n11_our_own_hello_is_refused() -> None:
    data = made()
    with pytest.raises(SelfConnectError) as refused:
        check_hello(data, read_hello(data, ED25519), ALICE, INITIATOR, HASH)
    assert refused.value.hint


BAD: dict[str, tuple[int, Any]] = {
    "version": (0, 0),
    "version of another type": (0, "1"),
    "too many features": (1, ["f"] * 33),
    "feature too long": (1, ["f" * 33]),
    "identity too short": (2, bytes(31)),
    "time before 1970": (3, -1),
    "time past 2262": (3, 2**63),
    "instance id": (4, bytes(15)),
    "too many addresses": (5, [["stcpr", ":1"]] * 9),
    "kind too long": (5, [["k" * 33, ":1"]]),
    "endpoint too long": (5, [["stcpr", "h" * 261]]),
    "address of one": (5, [["stcpr"]]),
    "no signature": (6, b""),
    "signature too long": (6, bytes(65)),
}


@pytest.mark.parametrize(("field", "value"), BAD.values(), ids=BAD.keys())
def test_bounds(field: int, value: Any) -> None:
    raw = fields(made())
    raw[field] = value
    with pytest.raises(HandshakeMalformedError):
        read_hello(msgspec.msgpack.encode(raw), ED25519)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc0", b"\x90", b"{}", b"\xdd\xff\xff\xff\xff", b"\x97" + b"\x91" * 1500, bytes(2049)],
    ids=repr,
)
def test_f26_bombs_and_rubbish(data: bytes) -> None:
    with pytest.raises(HandshakeMalformedError):
        read_hello(data, ED25519)


def test_what_does_not_fit_is_not_told() -> None:
    long = [Address("stcpr", "h" * 260)] * 20 + [Address("stcpr", "x" * 261)]
    data = made(listening=long, features=("f" * 32,) * 20)
    assert len(data) <= HELLO_MAX
    hello = read_hello(data, ED25519)
    assert 1 <= len(hello.listening) < 8
    check_hello(data, hello, BOB, INITIATOR, HASH)
    eight = read_hello(made(listening=[Address("stcpr", ":1")] * 20), ED25519)
    assert len(eight.listening) == 8


def test_exchange_key_of_a_bad_identity() -> None:
    assert exchange_key(ED25519, ALICE.public) == ED25519.dh_public(ALICE.public)
    for key in (bytes(32), b"\x02" + bytes(31), bytes(5)):
        with pytest.raises(HandshakeKeyError):
            exchange_key(ED25519, key)


@given(st.binary(max_size=300))
def test_any_bytes_are_only_ever_refused(data: bytes) -> None:
    with pytest.raises(HandshakeMalformedError):
        read_hello(data, ED25519)


def test_mutated_hellos_are_refused_by_name() -> None:
    dice, good = random.Random(11), made()
    for _ in range(3_000):
        bent = bytearray(good)
        for _ in range(dice.randint(1, 4)):
            bent[dice.randrange(len(bent))] = dice.randrange(256)
        if bytes(bent) == good:
            continue
        data = bytes(bent[: dice.choice((len(bent), len(bent) - 1))])
        with pytest.raises(HandshakeError):
            check_hello(data, read_hello(data, ED25519), BOB, INITIATOR, HASH)

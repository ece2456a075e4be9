"""The state machine against the official vectors, and against whoever bends a message."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from security_noise.core.handshake import HandshakeState, Pair
from security_noise.core.pattern import IK, KK, XK, XX, Pattern, protocol_name
from skycore.errors import (
    HandshakeAuthError,
    HandshakeError,
    HandshakeKeyError,
    HandshakeMalformedError,
    LocalProtocolError,
)
from skycore.model.keys import ED25519

VECTORS = Path(__file__).parents[3] / "vectors"
NOBODY = Pair(b"", b"")

# Patterns that nobody speaks here; their vectors check the same machine from more sides.
OTHERS = [
    Pattern("NN", False, False, (("e",), ("e", "ee"))),
    Pattern("KN", True, False, (("e",), ("e", "ee", "se"))),
    Pattern("NK", False, True, (("e", "es"), ("e", "ee"))),
    Pattern("NX", False, False, (("e",), ("e", "ee", "s", "es"))),
    Pattern("KX", True, False, (("e",), ("e", "ee", "se", "s", "es"))),
    Pattern("XN", False, False, (("e",), ("e", "ee"), ("s", "se"))),
    Pattern("IN", False, False, (("e", "s"), ("e", "ee", "se"))),
    Pattern("IX", False, False, (("e", "s"), ("e", "ee", "se", "s", "es"))),
    Pattern("N", False, True, (("e", "es"),)),
    Pattern("K", True, True, (("e", "es", "ss"),)),
    Pattern("X", False, True, (("e", "es", "s", "ss"),)),
    Pattern("XK1", False, True, (("e",), ("e", "ee", "es"), ("s", "se"))),
    Pattern("XX1", False, False, (("e",), ("e", "ee", "s"), ("es", "s", "se"))),
    Pattern("X1X1", False, False, (("e",), ("e", "ee", "s"), ("es", "s"), ("se",))),
    Pattern("KK1", True, True, (("e",), ("e", "ee", "se", "es"))),
    Pattern("IK1", False, True, (("e", "s"), ("e", "ee", "se", "es"))),
]
PATTERNS = {protocol_name(p, "ed25519").decode(): p for p in (XK, XX, KK, IK, *OTHERS)}


def pair(secret: bytes) -> Pair:
    return Pair(*ED25519.dh_pair(secret))


def vectors() -> list[Any]:
    found = []
    for name in ("noise_cacophony_core", "noise_cacophony_more", "noise_snow_core"):
        for vector in json.loads((VECTORS / f"{name}.json").read_text())["vectors"]:
            if vector["protocol_name"] in PATTERNS:
                label = f"{name.split('_')[1]}-{vector['protocol_name'].split('_')[1]}"
                found.append(pytest.param(vector, id=label))
    return found


def states(vector: dict[str, Any]) -> tuple[HandshakeState, HandshakeState]:
    ends = []
    for side in ("init", "resp"):
        raw = {
            name: bytes.fromhex(vector.get(f"{side}_{name}", ""))
            for name in ("prologue", "static", "ephemeral", "remote_static")
        }
        ends.append(
            HandshakeState(
                PATTERNS[vector["protocol_name"]],
                ED25519,
                initiator=side == "init",
                prologue=raw["prologue"],
                static=pair(raw["static"]) if raw["static"] else NOBODY,
                ephemeral=pair(raw["ephemeral"]) if raw["ephemeral"] else NOBODY,
                remote_static=raw["remote_static"],
            )
        )
    return ends[0], ends[1]


def test_every_pattern_has_its_vectors() -> None:
    names = [p.values[0]["protocol_name"] for p in vectors()]
    assert set(names) == set(PATTERNS)
    assert len(names) == 24
    for pattern in (XK, XX, KK, IK):
        assert names.count(protocol_name(pattern, "ed25519").decode()) == 2


@pytest.mark.parametrize("vector", vectors())
def test_n1_official_vectors(vector: dict[str, Any]) -> None:
    """Byte for byte, both roles, handshake hash and transport messages included."""
    one, other = states(vector)
    messages = [(bytes.fromhex(m["payload"]), m["ciphertext"]) for m in vector["messages"]]
    steps = len(PATTERNS[vector["protocol_name"]].messages)
    for turn, (payload, expected) in enumerate(messages[:steps]):
        writer, reader = (one, other) if turn % 2 == 0 else (other, one)
        message = writer.write_message(payload)
        assert message.hex() == expected
        assert reader.read_message(message) == payload
    assert one.is_finished
    assert other.is_finished
    assert one.hash == other.hash
    if "handshake_hash" in vector:
        assert one.hash.hex() == vector["handshake_hash"]
    (one_sends, one_receives), (other_sends, other_receives) = one.split(), other.split()
    for turn, (payload, expected) in enumerate(messages[steps:], steps):
        from_one = turn % 2 == 0 or steps == 1
        sends, receives = (one_sends, other_receives) if from_one else (other_sends, one_receives)
        sealed = sends.encrypt(payload)
        assert sealed.hex() == expected
        assert receives.decrypt(sealed) == payload


ALICE, BOB = pair(b"\x01" * 32), pair(b"\x02" * 32)
ALICE_E, BOB_E = pair(b"\x03" * 32), pair(b"\x04" * 32)
PROLOGUE = b"prologue"


def alice(**changes: Any) -> HandshakeState:
    given: dict[str, Any] = {
        "initiator": True,
        "prologue": PROLOGUE,
        "static": ALICE,
        "ephemeral": ALICE_E,
        "remote_static": BOB.public,
    }
    return HandshakeState(changes.pop("pattern", XK), ED25519, **(given | changes))


def bob(**changes: Any) -> HandshakeState:
    given: dict[str, Any] = {
        "initiator": False,
        "prologue": PROLOGUE,
        "static": BOB,
        "ephemeral": BOB_E,
    }
    return HandshakeState(changes.pop("pattern", XK), ED25519, **(given | changes))


def run_until(turn: int) -> tuple[HandshakeState, HandshakeState, bytes]:
    """Return the writer and the reader of a message, and the message."""
    one, other = alice(), bob()
    for _ in range(turn):
        other.read_message(one.write_message(b"payload"))
        one, other = other, one
    return one, other, one.write_message(b"payload")


@pytest.mark.parametrize("turn", range(3))
def test_n2_every_flipped_bit_is_refused(turn: int) -> None:
    size = len(run_until(turn)[2])
    for bit in range(size * 8):
        _, reader, message = run_until(turn)
        bent = bytearray(message)
        bent[bit // 8] ^= 1 << bit % 8
        with pytest.raises((HandshakeAuthError, HandshakeKeyError)):
            reader.read_message(bytes(bent))


@pytest.mark.parametrize("turn", range(3))
def test_n3_truncated_extended_empty_and_huge_messages(turn: int) -> None:
    size = len(run_until(turn)[2])
    for keep in range(size):
        _, reader, message = run_until(turn)
        with pytest.raises((HandshakeMalformedError, HandshakeAuthError)):
            reader.read_message(message[:keep])
    for more in (1, 16, 65_536 - size):
        _, reader, message = run_until(turn)
        with pytest.raises(HandshakeAuthError):
            reader.read_message(message + bytes(more))


def test_n3_short_of_a_key_is_malformed() -> None:
    for keep in (0, 31, 32, 47):
        with pytest.raises(HandshakeMalformedError):
            bob().read_message(alice().write_message()[:keep])


def zero_secret_keys() -> list[bytes]:
    groups = json.loads((VECTORS / "wycheproof_x25519.json").read_text())["testGroups"]
    tests = [test for group in groups for test in group["tests"]]
    return [bytes.fromhex(t["public"]) for t in tests if not int(t["shared"], 16)]


def test_n4_low_order_ephemerals_are_refused() -> None:
    keys = zero_secret_keys()
    assert len(keys) == 31
    for key in keys:
        with pytest.raises(HandshakeKeyError):
            bob().read_message(key + bytes(16))
        dialler = alice()
        dialler.write_message()
        with pytest.raises(HandshakeKeyError):
            dialler.read_message(key + bytes(16))


def test_n4_a_low_order_static_is_refused() -> None:
    """The initiator seals what it likes as its static key; the exchange refuses it."""
    for key in zero_secret_keys():
        one, other = alice(static=Pair(ALICE.secret, key)), bob()
        other.read_message(one.write_message())
        one.read_message(other.write_message())
        message = one.write_message()
        with pytest.raises(HandshakeKeyError):
            other.read_message(message)


def test_n11_a_reflected_message_is_refused() -> None:
    """Alice's own message answered by itself, and handed to Alice as a listener."""
    one = alice()
    first = one.write_message()
    with pytest.raises(HandshakeError):
        one.read_message(first)
    with pytest.raises(HandshakeAuthError):
        bob(static=ALICE).read_message(first)


def test_n12_a_parallel_session_is_refused() -> None:
    """Answering Alice's dial to Bob with Alice's own listener."""
    dialling, listening = alice(), bob(static=ALICE, ephemeral=BOB_E)
    to_alice = alice(static=BOB, remote_static=ALICE.public)
    dialling.write_message()
    listening.read_message(to_alice.write_message())
    with pytest.raises(HandshakeAuthError):
        dialling.read_message(listening.write_message())


@pytest.mark.parametrize("pattern", [XX, KK, IK], ids=lambda p: p.name)
def test_n14_another_pattern_is_refused(pattern: Pattern) -> None:
    """The name of the protocol is hashed first: no stripping down to a weaker one."""
    one, other = alice(pattern=pattern), bob()
    with pytest.raises((HandshakeAuthError, HandshakeMalformedError)):
        other.read_message(one.write_message())


def test_n15_another_suite_is_another_protocol() -> None:
    class Renamed:
        name = "other"
        dh_bytes = ED25519.dh_bytes
        dh = staticmethod(ED25519.dh)

    one = HandshakeState(
        XK,
        Renamed(),  # type: ignore[arg-type]
        initiator=True,
        prologue=PROLOGUE,
        static=ALICE,
        ephemeral=ALICE_E,
        remote_static=BOB.public,
    )
    with pytest.raises(HandshakeAuthError):
        bob().read_message(one.write_message())


@pytest.mark.parametrize(
    "changes",
    [{"prologue": b"other"}, {"remote_static": ALICE.public}],
    ids=["other network", "other key"],
)
def test_another_network_or_key_fails_at_the_first_message(changes: dict[str, bytes]) -> None:
    with pytest.raises(HandshakeAuthError):
        bob().read_message(alice(**changes).write_message())


def test_n16_nothing_out_of_turn() -> None:
    one, other = alice(), bob()
    with pytest.raises(LocalProtocolError):
        other.write_message()
    with pytest.raises(LocalProtocolError):
        one.read_message(bytes(48))
    with pytest.raises(LocalProtocolError):
        one.split()
    other.read_message(one.write_message())
    one.read_message(other.write_message())
    other.read_message(one.write_message())
    for end in (one, other):
        end.split()
        for call in (end.split, end.write_message, lambda end=end: end.read_message(bytes(48))):
            with pytest.raises(LocalProtocolError):
                call()


def test_a_failed_handshake_is_dead() -> None:
    other = bob()
    with pytest.raises(HandshakeAuthError):
        other.read_message(ALICE_E.public + bytes(16))
    for call in (other.write_message, lambda: other.read_message(alice().write_message())):
        with pytest.raises(LocalProtocolError):
            call()
    assert "over" in repr(other)


def test_n20_no_secret_in_repr_and_none_kept() -> None:
    one, other = alice(), bob()
    other.read_message(one.write_message())
    one.read_message(other.write_message())
    other.read_message(one.write_message())
    one.split()
    shown = repr(one) + repr(other) + repr(ALICE) + str(BOB_E)
    for secret in (ALICE, BOB, ALICE_E, BOB_E):
        assert secret.secret.hex() not in shown
        assert str(secret.secret) not in shown
    held = [getattr(one, name) for name in HandshakeState.__slots__ if name != "__weakref__"]
    assert ALICE.secret not in held
    assert not any(isinstance(part, Pair) and part.secret for part in held)


def test_ten_thousand_random_messages_are_refused_by_name() -> None:
    dice = random.Random(7)
    for _ in range(10_000):
        size = dice.choice((0, 1, 31, 32, 47, 48, 49, 200))
        with pytest.raises(HandshakeError):
            bob().read_message(dice.randbytes(size))

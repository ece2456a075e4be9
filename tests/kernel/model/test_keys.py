"""Keys against the official vectors: whatever a lenient library lets through fails here."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.errors import ConfigError, InvalidKeyError, RemoteProtocolError
from skycore.model.keys import ED25519, SecretKey, node_id, parse_public, short

VECTORS = Path(__file__).parents[2] / "vectors"
PRIME = 2**255 - 19
LOW_ORDER_X25519 = [
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (PRIME - 1).to_bytes(32, "little"),
    PRIME.to_bytes(32, "little"),
    (PRIME + 1).to_bytes(32, "little"),
]


def load(name: str) -> dict[str, Any]:
    return json.loads((VECTORS / f"{name}.json").read_text())


def wycheproof(name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(group, test) for group in load(name)["testGroups"] for test in group["tests"]]


@pytest.mark.parametrize("vector", load("rfc8032_ed25519")["vectors"], ids=lambda v: v["name"])
def test_rfc8032(vector: dict[str, str]) -> None:
    secret = ED25519.secret(bytes.fromhex(vector["secret_seed"]))
    message, signature = bytes.fromhex(vector["message"]), bytes.fromhex(vector["signature"])
    assert ED25519.public(secret).hex() == vector["public_key"]
    assert ED25519.sign(secret, message) == signature
    assert ED25519.verify(ED25519.public(secret), message, signature)
    assert not ED25519.verify(ED25519.public(secret), message + b"\0", signature)


def test_wycheproof_ed25519() -> None:
    cases = wycheproof("wycheproof_ed25519")
    assert len(cases) == 151
    for group, test in cases:
        key = bytes.fromhex(group["publicKey"]["pk"])
        answer = ED25519.verify(key, bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
        assert answer is (test["result"] == "valid"), test


def test_speccheck_strict_column() -> None:
    vectors = load("ed25519_speccheck")["vectors"]
    assert len(vectors) == 12
    for vector in vectors:
        key, message, signature = (
            bytes.fromhex(vector[name]) for name in ("public_key", "message", "signature")
        )
        assert ED25519.verify(key, message, signature) is vector["strict"], vector["comment"]


def test_rfc7748() -> None:
    (vector,) = load("rfc7748_x25519")["vectors"]
    raw = {name: bytes.fromhex(value) for name, value in vector.items()}
    assert ED25519.dh_pair(raw["alice_private"])[1] == raw["alice_public"]
    assert ED25519.dh_pair(raw["bob_private"])[1] == raw["bob_public"]
    assert ED25519.dh(raw["alice_private"], raw["bob_public"]) == raw["shared"]
    assert ED25519.dh(raw["bob_private"], raw["alice_public"]) == raw["shared"]


def test_n4_wycheproof_x25519() -> None:
    """The cases with a zero secret are refused, and all others give exactly their secret."""
    cases = wycheproof("wycheproof_x25519")
    assert len(cases) == 518
    zero = 0
    for _, test in cases:
        secret, public = bytes.fromhex(test["private"]), bytes.fromhex(test["public"])
        if "ZeroSharedSecret" in test["flags"] or not any(bytes.fromhex(test["shared"])):
            zero += 1
            with pytest.raises(InvalidKeyError):
                ED25519.dh(secret, public)
        else:
            assert ED25519.dh(secret, public).hex() == test["shared"], test
    assert zero == 31


@pytest.mark.parametrize("public", LOW_ORDER_X25519, ids=bytes.hex)
def test_n4_low_order_points_are_refused(public: bytes) -> None:
    with pytest.raises(InvalidKeyError, match="low order"):
        ED25519.dh(b"\x55" * 32, public)


def test_converted_pair_agrees() -> None:
    one, other = ED25519.secret(b"\x01" * 32), ED25519.secret(b"\x02" * 32)
    there = ED25519.dh(ED25519.dh_secret(one), ED25519.dh_public(ED25519.public(other)))
    back = ED25519.dh(ED25519.dh_secret(other), ED25519.dh_public(ED25519.public(one)))
    assert there == back
    public = ED25519.dh_public(ED25519.public(one))
    assert ED25519.dh_pair(ED25519.dh_secret(one))[1] == public


def test_a_key_and_its_negative_share_an_exchange_key() -> None:
    """Why a handshake must compare identities byte for byte, and not exchange keys alone."""
    key = ED25519.public(ED25519.secret(b"\x07" * 32))
    negative = key[:31] + bytes((key[31] ^ 0x80,))
    assert ED25519.check_public(negative) != key
    assert ED25519.dh_public(negative) == ED25519.dh_public(key)


NOT_KEYS = {
    "identity point": (1).to_bytes(32, "little"),
    "order 2": (PRIME - 1).to_bytes(32, "little"),
    "order 4": bytes(32),
    "order 8": bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    "mixed order": bytes.fromhex(
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d"
    ),
    "not canonical 0": PRIME.to_bytes(32, "little"),
    "not canonical 1": (PRIME + 1).to_bytes(32, "little"),
    "off the curve": (2).to_bytes(32, "little"),
    "too short": bytes(31),
    "too long": bytes(33),
    "nothing": b"",
}


@pytest.mark.parametrize("data", NOT_KEYS.values(), ids=NOT_KEYS.keys())
def test_bytes_that_nobody_can_own(data: bytes) -> None:
    with pytest.raises(InvalidKeyError):
        ED25519.check_public(data)
    with pytest.raises(InvalidKeyError):
        ED25519.dh_public(data)


@given(st.binary(max_size=80), st.binary(max_size=40), st.binary(max_size=80))
def test_any_bytes_are_only_ever_refused(key: bytes, message: bytes, signature: bytes) -> None:
    assert not ED25519.verify(key, message, signature)
    for call in (ED25519.check_public, ED25519.dh_public, lambda k: ED25519.dh(b"\x11" * 32, k)):
        try:
            call(key)
        except RemoteProtocolError:
            pass
        else:
            assert len(key) == 32


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_what_is_signed_verifies(seed: bytes, message: bytes) -> None:
    secret = ED25519.secret(seed)
    public, signature = ED25519.public(secret), ED25519.sign(secret, message)
    assert len(public) == ED25519.public_bytes
    assert len(signature) == ED25519.signature_bytes
    assert ED25519.check_public(public) == public
    assert ED25519.verify(public, message, signature)


def test_lengths_are_refused_by_name() -> None:
    with pytest.raises(InvalidKeyError, match="seed"):
        ED25519.secret(bytes(31))
    with pytest.raises(InvalidKeyError, match="32 bytes"):
        ED25519.dh(bytes(32), bytes(31))
    public = ED25519.public(ED25519.secret(bytes(32)))
    assert not ED25519.verify(public, b"", bytes(63))
    assert not ED25519.verify(public[:31], b"", bytes(64))


def test_parse_public_takes_lower_case_hex_only() -> None:
    key = ED25519.public(ED25519.secret(bytes(32)))
    assert parse_public(ED25519, key.hex()) == key
    for text in (key.hex().upper(), " " + key.hex(), key.hex()[:-2], "", "٣" * 64, "0x" + "0" * 62):
        with pytest.raises(InvalidKeyError) as refused:
            parse_public(ED25519, text)
        assert refused.value.hint
        assert not isinstance(refused.value, ConfigError)


def test_n20_a_secret_key_keeps_to_itself() -> None:
    secret = ED25519.secret(b"\x03" * 32)
    for text in (repr(secret), str(secret), f"{secret}", f"{[secret]!r}"):
        assert "03030303" not in text
        assert secret.reveal().hex()[64:] not in text
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        hash(secret)
    assert secret == SecretKey(secret.reveal())
    assert secret != ED25519.secret(b"\x04" * 32)


def test_names_of_a_key() -> None:
    key = ED25519.public(ED25519.secret(bytes(32)))
    assert short(key) == key.hex()[:8]
    assert node_id(b"").hex().startswith("e3b0c442")

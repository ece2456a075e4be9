"""The cipher against Wycheproof, and the counter that never repeats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from security_noise.core.cipher import TAG_BYTES, CipherState, SymmetricState
from skycore.errors import HandshakeAuthError, NonceExhaustedError, TransportClosedError

VECTORS = Path(__file__).parents[3] / "vectors"
KEY = bytes(range(32))


def test_wycheproof_chacha20_poly1305() -> None:
    """All 325, through the class that we use."""
    count = 0
    for group in json.loads((VECTORS / "wycheproof_chacha20_poly1305.json").read_text())[
        "testGroups"
    ]:
        for test in group["tests"]:
            count += 1
            key, iv, ad, message, sealed = (
                bytes.fromhex(test[name]) for name in ("key", "iv", "aad", "msg", "ct")
            )
            sealed += bytes.fromhex(test["tag"])
            aead = ChaCha20Poly1305(key)
            if test["result"] == "valid":
                assert aead.encrypt(iv, message, ad) == sealed
                assert aead.decrypt(iv, sealed, ad) == message
            else:
                with pytest.raises((InvalidTag, ValueError)):
                    aead.decrypt(iv, sealed, ad)
    assert count == 325


def test_nonce_is_four_zero_bytes_and_a_little_endian_counter() -> None:
    n = 0x0102030405060708
    sealed = CipherState(KEY, n).encrypt(b"hello")
    nonce = bytes(4) + n.to_bytes(8, "little")
    assert sealed == ChaCha20Poly1305(KEY).encrypt(nonce, b"hello", None)


def test_into_a_buffer_is_the_same() -> None:
    one, other, reader = CipherState(KEY), CipherState(KEY), CipherState(KEY)
    for size in (0, 1, 64, 65_519):
        plain = bytes(size)
        sealed, opened = bytearray(size + TAG_BYTES), bytearray(size)
        one.encrypt_into(memoryview(plain), memoryview(sealed))
        assert sealed == other.encrypt(plain)
        reader.decrypt_into(memoryview(sealed), memoryview(opened))
        assert opened == plain


def test_n9_the_counter_never_wraps() -> None:
    last = 2**64 - 2
    sealer, opener = CipherState(KEY, last), CipherState(KEY, last)
    sealed = sealer.encrypt(b"the last one")
    assert opener.decrypt(sealed) == b"the last one"
    for _ in range(3):
        with pytest.raises(NonceExhaustedError) as over:
            sealer.encrypt(b"one too many")
        with pytest.raises(NonceExhaustedError):
            sealer.encrypt_into(memoryview(b"x"), memoryview(bytearray(17)))
        with pytest.raises(NonceExhaustedError):
            opener.decrypt(sealed)
        with pytest.raises(NonceExhaustedError):
            opener.decrypt_into(memoryview(sealed), memoryview(bytearray(12)))
    assert isinstance(over.value, TransportClosedError)


def test_n10_the_counter_moves_only_after_the_tag_verifies() -> None:
    sealer, opener = CipherState(KEY), CipherState(KEY)
    honest = [sealer.encrypt(bytes((i,))) for i in range(3)]
    far_ahead = CipherState(KEY, 2**40).encrypt(b"forged")
    for i, frame in enumerate(honest):
        for bad in (far_ahead, frame[:-1] + bytes((frame[-1] ^ 1,)), frame[:10], b""):
            with pytest.raises(InvalidTag):
                opener.decrypt(bad)
        assert opener.decrypt(frame) == bytes((i,))
        with pytest.raises(InvalidTag):  # N7: a replay
            opener.decrypt(frame)


def test_symmetric_state_hashes_a_long_name_and_pads_a_short_one() -> None:
    assert SymmetricState(b"short").h == b"short".ljust(32, b"\0")
    assert len(SymmetricState(b"n" * 33).h) == 32
    assert SymmetricState(b"n" * 33).h != b"n" * 32


def test_symmetric_state_is_in_clear_until_there_is_a_key() -> None:
    one, other = SymmetricState(b"name"), SymmetricState(b"name")
    assert not one.has_key
    assert one.encrypt_and_hash(b"clear") == b"clear"
    assert other.decrypt_and_hash(b"clear") == b"clear"
    one.mix_key(KEY)
    other.mix_key(KEY)
    assert one.has_key
    sealed = one.encrypt_and_hash(b"sealed")
    assert other.decrypt_and_hash(sealed) == b"sealed"
    assert one.h == other.h
    with pytest.raises(HandshakeAuthError):
        other.decrypt_and_hash(sealed)


def test_side_cipher_is_a_key_of_its_own() -> None:
    state = SymmetricState(b"name")
    state.mix_key(KEY)
    sides = {state.side_cipher(label).encrypt(b"x") for label in (b"one", b"two")}
    before = state.h
    assert len(sides) == 2
    assert state.h == before
    assert state.encrypt_and_hash(b"x") not in sides


def test_n20_neither_state_prints_a_key() -> None:
    state = SymmetricState(b"name")
    state.mix_key(KEY)
    cipher = CipherState(KEY)
    for part in (state, cipher):
        assert KEY.hex() not in repr(part)
        assert str(KEY) not in repr(part)
    state.split()
    assert not state.has_key

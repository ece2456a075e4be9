"""Keys: the identity of a node, and the suite of functions that give a key its meaning.

Why a suite: one network uses one kind of key, and another network may use another. So the length
of a key is never a literal, and whoever signs, verifies or agrees on a secret asks the suite. The
kernel ships `ed25519` (RFC 8032, through libsodium: it refuses small-order and non-canonical keys,
which other libraries accept and under which a signature need not be anybody's).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import NewType, Protocol

from nacl import bindings, exceptions

from skycore.errors import InvalidKeyError

__all__ = ["ED25519", "KeySuite", "PubKey", "SecretKey", "node_id", "parse_public", "short"]

PubKey = NewType("PubKey", bytes)
"""A public key in its suite's one canonical encoding; text is lower-case hex."""


class SecretKey:
    """A secret that does not print itself. `reveal()` is the one way to its bytes."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def reveal(self) -> bytes:
        """Return the raw bytes, for a key file or a cipher; never for a log."""
        return self._secret

    def __repr__(self) -> str:
        return "SecretKey(hidden)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretKey) and hmac.compare_digest(self._secret, other._secret)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a SecretKey does not serialise; use reveal()")


class KeySuite(Protocol):
    """What a kind of key can do. Pure: randomness comes in as `seed`.

    Raises `InvalidKeyError` wherever bytes are not a key; `verify` answers False instead.
    """

    name: str
    seed_bytes: int
    public_bytes: int
    signature_bytes: int
    dh_bytes: int

    def secret(self, seed: bytes) -> SecretKey:
        """Return the secret key made from `seed_bytes` random bytes."""
        ...

    def public(self, secret: SecretKey) -> PubKey:
        """Return the public half of a secret key."""
        ...

    def check_public(self, data: bytes) -> PubKey:
        """Return `data` as a key if it is a canonical one that somebody can own."""
        ...

    def sign(self, secret: SecretKey, message: bytes) -> bytes:
        """Sign; `signature_bytes` long."""
        ...

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """Tell whether this is the key's signature over exactly this message."""
        ...

    def dh_pair(self, seed: bytes) -> tuple[bytes, bytes]:
        """Return an ephemeral (secret, public) pair for a Diffie-Hellman exchange."""
        ...

    def dh_secret(self, secret: SecretKey) -> bytes:
        """Return the exchange secret that belongs to an identity's secret key."""
        ...

    def dh_public(self, public: bytes) -> bytes:
        """Return the exchange key that belongs to an identity's public key."""
        ...

    def dh(self, secret: bytes, public: bytes) -> bytes:
        """Return the shared secret; refuses keys that would make it zero."""
        ...


class _Ed25519:
    """Ed25519 to sign, X25519 on the converted pair to agree. Source: RFC 8032, RFC 7748."""

    name = "ed25519"
    seed_bytes = 32
    public_bytes = 32
    signature_bytes = 64
    dh_bytes = 32

    def secret(self, seed: bytes) -> SecretKey:
        if len(seed) != self.seed_bytes:
            raise InvalidKeyError(f"an ed25519 seed has 32 bytes, this has {len(seed)}")
        return SecretKey(bindings.crypto_sign_seed_keypair(seed)[1])

    def public(self, secret: SecretKey) -> PubKey:
        return PubKey(secret.reveal()[32:])

    def check_public(self, data: bytes) -> PubKey:
        if len(data) != self.public_bytes:
            raise InvalidKeyError(f"an ed25519 public key has 32 bytes, this has {len(data)}")
        if not bindings.crypto_core_ed25519_is_valid_point(data):
            raise InvalidKeyError(
                f"{data.hex()[:8]}… is no ed25519 public key",
                hint="the point is off the curve, of small order or not in canonical form",
            )
        return PubKey(data)

    def sign(self, secret: SecretKey, message: bytes) -> bytes:
        return bindings.crypto_sign(message, secret.reveal())[:64]

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        if len(signature) != 64 or len(public) != 32:
            return False
        try:
            bindings.crypto_sign_open(signature + message, public)
        except exceptions.BadSignatureError:
            return False
        return True

    def dh_pair(self, seed: bytes) -> tuple[bytes, bytes]:
        return seed, bindings.crypto_scalarmult_base(seed)

    def dh_secret(self, secret: SecretKey) -> bytes:
        return bindings.crypto_sign_ed25519_sk_to_curve25519(secret.reveal())

    def dh_public(self, public: bytes) -> bytes:
        try:
            return bindings.crypto_sign_ed25519_pk_to_curve25519(public)
        except (exceptions.CryptoError, ValueError) as bad:
            raise InvalidKeyError(f"{public.hex()[:8]}… has no exchange key") from bad

    def dh(self, secret: bytes, public: bytes) -> bytes:
        if len(public) != self.dh_bytes:
            raise InvalidKeyError(f"an X25519 key has 32 bytes, this has {len(public)}")
        try:
            return bindings.crypto_scalarmult(secret, public)
        except (exceptions.CryptoError, ValueError) as bad:
            raise InvalidKeyError("this X25519 key is of low order") from bad


ED25519: KeySuite = _Ed25519()


def node_id(public: bytes) -> bytes:
    """Return the 32-byte place of a key in the id space: SHA256(pk)."""
    return hashlib.sha256(public).digest()


def parse_public(suite: KeySuite, text: str) -> PubKey:
    """Read a key as people write it: lower-case hex, nothing else. Raises `InvalidKeyError`."""
    digits = suite.public_bytes * 2
    if len(text) != digits or text.strip("0123456789abcdef"):
        raise InvalidKeyError(
            f"{text[:80]!r} is no {suite.name} public key",
            hint=f"a key is written as {digits} lower-case hex digits; see `skynode keys show`",
        )
    return suite.check_public(bytes.fromhex(text))


def short(key: bytes) -> str:
    """Return the first eight hex digits: how a key looks in a log line."""
    return key[:4].hex()

"""Cipher state and symmetric state: ChaCha20-Poly1305, SHA-256, HKDF.

Source: the Noise Protocol Framework, revision 34, sections 4.2, 4.3, 5.1 and 5.2.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from skycore.errors import HandshakeAuthError, NonceExhaustedError

__all__ = ["TAG_BYTES", "CipherState", "SymmetricState"]

TAG_BYTES = 16
_NONCE_LIMIT = 2**64 - 1  # the last one is reserved, section 5.1
_nonce = struct.Struct("<4xQ").pack
_hmac = hmac.digest


class CipherState:
    """A key and the number of the next message under it. The number never repeats nor wraps.

    The key lives in the cipher object alone; nothing here can print it.
    """

    __slots__ = ("_aead", "_n")

    def __init__(self, key: bytes, n: int = 0) -> None:
        self._aead = ChaCha20Poly1305(key)
        self._n = n

    def _next_nonce(self) -> bytes:
        if self._n >= _NONCE_LIMIT:
            raise NonceExhaustedError
        return _nonce(self._n)

    def encrypt(self, plaintext: bytes, ad: bytes | None = None) -> bytes:
        """Seal one message. Raises `NonceExhaustedError`."""
        sealed = self._aead.encrypt(self._next_nonce(), plaintext, ad)
        self._n += 1
        return sealed

    def encrypt_into(self, plaintext: memoryview, sealed: memoryview) -> None:
        """Seal into a buffer that is exactly TAG_BYTES longer. Raises `NonceExhaustedError`."""
        self._aead.encrypt_into(self._next_nonce(), plaintext, None, sealed)
        self._n += 1

    def decrypt(self, sealed: bytes, ad: bytes | None = None) -> bytes:
        """Open one message. Raises `InvalidTag`, and then the number has not moved."""
        plaintext = self._aead.decrypt(self._next_nonce(), sealed, ad)
        self._n += 1
        return plaintext

    def decrypt_into(self, sealed: memoryview, plaintext: memoryview) -> None:
        """Open into a buffer that is exactly TAG_BYTES shorter. Raises as `decrypt`."""
        self._aead.decrypt_into(self._next_nonce(), sealed, None, plaintext)
        self._n += 1


class SymmetricState:
    """The chaining key and the running hash of one handshake.

    `h` covers everything both ends have seen, so a message altered on its way fails at the next
    sealed part; `ck` grows with every Diffie-Hellman result.
    """

    __slots__ = ("_cipher", "_ck", "h")

    def __init__(self, name: bytes) -> None:
        self.h = name.ljust(32, b"\0") if len(name) <= 32 else hashlib.sha256(name).digest()
        self._ck = self.h
        self._cipher: CipherState | None = None

    @property
    def has_key(self) -> bool:
        """Whether what comes next is sealed."""
        return self._cipher is not None

    def mix_hash(self, data: bytes) -> None:
        """Take public bytes into the running hash."""
        self.h = hashlib.sha256(self.h + data).digest()

    def mix_key(self, secret: bytes) -> None:
        """Take a shared secret into the chaining key, and make the next cipher of it."""
        self._ck, key = self._hkdf(secret)
        self._cipher = CipherState(key)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Seal (once there is a key) under the running hash, and take the result into it."""
        cipher = self._cipher
        sealed = plaintext if cipher is None else cipher.encrypt(plaintext, self.h)
        self.mix_hash(sealed)
        return sealed

    def decrypt_and_hash(self, sealed: bytes) -> bytes:
        """Open what `encrypt_and_hash` made. Raises `HandshakeAuthError`."""
        cipher = self._cipher
        if cipher is None:
            plaintext = sealed
        else:
            try:
                plaintext = cipher.decrypt(sealed, self.h)
            except InvalidTag:
                raise HandshakeAuthError("a handshake message does not verify") from None
        self.mix_hash(sealed)
        return plaintext

    def side_cipher(self, label: bytes) -> CipherState:
        """Return a cipher for a message beside the pattern, of a key that depends on `ck` alone.

        Labels are never 32 bytes long, as the inputs of `mix_key` are, so no key is made twice.
        """
        return CipherState(_hmac(self._ck, label, "sha256"))

    def split(self) -> tuple[CipherState, CipherState]:
        """Return the ciphers of both directions, the initiator's first, and forget the rest."""
        one, other = self._hkdf(b"")
        self._ck, self._cipher = b"", None
        return CipherState(one), CipherState(other)

    def _hkdf(self, secret: bytes) -> tuple[bytes, bytes]:
        temporary = _hmac(self._ck, secret, "sha256")
        first = _hmac(temporary, b"\x01", "sha256")
        return first, _hmac(temporary, first + b"\x02", "sha256")

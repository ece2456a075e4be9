"""The handshake state machine: write and read the messages of any pattern of the table.

Why pure: keys, the ephemeral pair included, come in as arguments, so the official vectors run
through the code that strangers talk to. Source: the Noise Protocol Framework, revision 34, 5.3.
"""

from __future__ import annotations

from typing import NamedTuple

from security_noise.core.cipher import TAG_BYTES, CipherState, SymmetricState
from security_noise.core.pattern import Pattern, Token, protocol_name
from skycore.errors import (
    HandshakeKeyError,
    HandshakeMalformedError,
    InvalidKeyError,
    LocalProtocolError,
)
from skycore.model.keys import KeySuite

__all__ = ["HandshakeState", "Pair"]

_DEAD = 1_000
"""The turn of a handshake that failed or is over: past the end of every pattern."""


class Pair(NamedTuple):
    """An exchange key pair. Its secret does not print."""

    secret: bytes
    public: bytes

    def __repr__(self) -> str:
        return f"Pair(secret=hidden, public={self.public.hex()})"


class HandshakeState:
    """One end of one handshake. After an error, and after `split`, it can do nothing more.

    Raises `HandshakeMalformedError` for a message of the wrong length, `HandshakeKeyError` for a
    key that nobody can own, `HandshakeAuthError` for a part that does not verify, and
    `LocalProtocolError` where it is our turn and not theirs.
    """

    __slots__ = (
        "__weakref__",
        "_e",
        "_initiator",
        "_messages",
        "_re",
        "_s",
        "_suite",
        "_symmetric",
        "_turn",
        "remote_static",
    )

    def __init__(
        self,
        pattern: Pattern,
        suite: KeySuite,
        *,
        initiator: bool,
        prologue: bytes,
        static: Pair,
        ephemeral: Pair,
        remote_static: bytes = b"",
    ) -> None:
        self._suite = suite
        self._initiator = initiator
        self._messages = pattern.messages
        self._turn = 0
        self._s, self._e = static, ephemeral
        self._re = b""
        self.remote_static = remote_static
        self._symmetric = symmetric = SymmetricState(protocol_name(pattern, suite.name))
        symmetric.mix_hash(prologue)
        ours, theirs = static.public, remote_static
        if pattern.initiator_known:
            symmetric.mix_hash(ours if initiator else theirs)
        if pattern.responder_known:
            symmetric.mix_hash(theirs if initiator else ours)

    def __repr__(self) -> str:
        role = "initiator" if self._initiator else "responder"
        where = "over" if self._turn == _DEAD else f"{self._turn} of {len(self._messages)} messages"
        return f"HandshakeState({role}, {where})"

    @property
    def hash(self) -> bytes:
        """The running hash: names this handshake, and no other, once both ephemerals are in."""
        return self._symmetric.h

    @property
    def is_finished(self) -> bool:
        """Whether every message was written or read."""
        return self._turn == len(self._messages)

    def side_cipher(self, label: bytes) -> CipherState:
        """Return a cipher for one message beside the pattern; see `SymmetricState`."""
        return self._symmetric.side_cipher(label)

    def write_message(self, payload: bytes = b"") -> bytes:
        """Return the next message, with a payload of ours at its end."""
        tokens, turn = self._take_turn(writing=True)
        symmetric = self._symmetric
        parts = []
        for token in tokens:
            if token == "e":
                parts.append(self._e.public)
                symmetric.mix_hash(self._e.public)
            elif token == "s":
                parts.append(symmetric.encrypt_and_hash(self._s.public))
            else:
                self._mix(token)
        parts.append(symmetric.encrypt_and_hash(payload))
        self._turn = turn + 1
        return b"".join(parts)

    def read_message(self, message: bytes) -> bytes:
        """Take the remote's next message and return its payload."""
        tokens, turn = self._take_turn(writing=False)
        symmetric, size, at = self._symmetric, self._suite.dh_bytes, 0
        for token in tokens:
            if token == "e":
                self._re = _cut(message, at, size)
                symmetric.mix_hash(self._re)
                at += size
            elif token == "s":
                sealed = size + (TAG_BYTES if symmetric.has_key else 0)
                self.remote_static = symmetric.decrypt_and_hash(_cut(message, at, sealed))
                at += sealed
            else:
                self._mix(token)
        rest = message[at:]
        if symmetric.has_key and len(rest) < TAG_BYTES:
            raise HandshakeMalformedError(f"a handshake message of only {len(message)} bytes")
        payload = symmetric.decrypt_and_hash(rest)
        self._turn = turn + 1
        return payload

    def split(self) -> tuple[CipherState, CipherState]:
        """Return the ciphers to send and to receive with, and forget every secret.

        Bytes objects cannot be wiped in Python; no reference to them stays here.
        """
        if not self.is_finished:
            raise LocalProtocolError("the handshake is not over")
        first, second = self._symmetric.split()
        self._turn = _DEAD
        self._s = self._e = Pair(b"", b"")
        return (first, second) if self._initiator else (second, first)

    def _take_turn(self, *, writing: bool) -> tuple[tuple[Token, ...], int]:
        """Return this turn's tokens and number, and shut the door: whoever is done reopens it."""
        turn = self._turn
        ours = (turn % 2 == 0) is self._initiator
        if turn >= len(self._messages) or ours is not writing:
            raise LocalProtocolError(f"{self!r} cannot {'write' if writing else 'read'} now")
        self._turn = _DEAD
        return self._messages[turn], turn

    def _mix(self, token: Token) -> None:
        """Mix one Diffie-Hellman result. The first letter is the initiator's key."""
        mine, yours = (token[0], token[1]) if self._initiator else (token[1], token[0])
        secret = (self._e if mine == "e" else self._s).secret
        public = self._re if yours == "e" else self.remote_static
        try:
            self._symmetric.mix_key(self._suite.dh(secret, public))
        except InvalidKeyError as bad:
            raise HandshakeKeyError(f"the handshake's key cannot be used: {bad}") from bad


def _cut(message: bytes, at: int, size: int) -> bytes:
    part = message[at : at + size]
    if len(part) != size:
        raise HandshakeMalformedError(f"a handshake message of only {len(message)} bytes")
    return part

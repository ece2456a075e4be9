"""Delegation tokens: a delegation as one line of text, to paste into a configuration.

Why hex of MessagePack: it is what crosses the wire, so there is nothing to convert and nothing to
get wrong. It is no secret: a delegation names the key that may use it.
"""

from __future__ import annotations

import msgspec

from skycore.errors import ConfigError
from skycore.model.items import Delegation

__all__ = ["decode_delegation", "encode_delegation"]

TOKEN_MAX = 2_048


def encode_delegation(delegation: Delegation) -> str:
    """Return the token: lower-case hex."""
    return msgspec.msgpack.encode(delegation).hex()


def decode_delegation(text: str) -> Delegation:
    """Read a token. Raises `ConfigError`. Whether it is validly signed, the gate checks."""
    text = text.strip()
    try:
        if len(text) > TOKEN_MAX:
            raise ValueError(f"over {TOKEN_MAX} characters")
        return msgspec.msgpack.decode(bytes.fromhex(text), type=Delegation)
    except (ValueError, msgspec.DecodeError) as bad:
        raise ConfigError(
            f"{text[:20]!r} is no delegation: {bad}",
            hint="a delegation is one line of hex, as `skynode network delegate` prints it",
        ) from bad

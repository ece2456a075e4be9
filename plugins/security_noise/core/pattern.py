"""Handshake patterns as tables: who sends which token when.

Why a table: the state machine below (handshake.py) knows tokens, not patterns, so that the official
vectors of four patterns check the very code that runs the one we speak. Source: the Noise Protocol
Framework, revision 34, sections 5 and 7.5.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["IK", "KK", "XK", "XX", "Pattern", "Token", "protocol_name"]

Token = str
"""`e` and `s` send a public key; `ee`, `es`, `se`, `ss` mix a Diffie-Hellman result, the
initiator's key named first."""

# What the name of a protocol calls each suite's exchange; an unlisted suite goes by its own name.
_DH_NAMES = {"ed25519": "25519"}


@dataclass(frozen=True)
class Pattern:
    """A handshake: which static keys are known before it, and the tokens of each message.

    Messages alternate, the initiator's first. `psk` modifiers are not supported.
    """

    name: str
    initiator_known: bool
    """Whether the responder knows the initiator's static key beforehand."""
    responder_known: bool
    messages: tuple[tuple[Token, ...], ...]


XK = Pattern("XK", False, True, (("e", "es"), ("e", "ee"), ("s", "se")))
"""What skycore speaks: the dialler knows whom it dials and hides its own key from all others."""

XX = Pattern("XX", False, False, (("e",), ("e", "ee", "s", "es"), ("s", "se")))
KK = Pattern("KK", True, True, (("e", "es", "ss"), ("e", "ee", "se")))
IK = Pattern("IK", False, True, (("e", "es", "s", "ss"), ("e", "ee", "se")))


def protocol_name(pattern: Pattern, suite_name: str) -> bytes:
    """Return the name that both ends hash first: another suite is another protocol."""
    dh = _DH_NAMES.get(suite_name, suite_name)
    return f"Noise_{pattern.name}_{dh}_ChaChaPoly_SHA256".encode()

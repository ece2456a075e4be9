"""Network constants: what every node of a network must agree on before it can say anything.

Why an id of its own: whatever is signed or negotiated begins with it, so no signature and no
handshake of one network means anything in another (docs/protocols/items.md).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from skycore.model.keys import KeySuite, PubKey

__all__ = ["NetworkConstants", "tagged"]


@dataclass(frozen=True)
class NetworkConstants:
    """Suite, name and, where mirrors are wanted, the authority that may delegate to them."""

    suite: KeySuite
    name: str
    authority: PubKey | None = None
    id: bytes = field(init=False, repr=False)
    """32 bytes: SHA256(suite name ‖ 0 ‖ name ‖ 0 ‖ authority)."""

    def __post_init__(self) -> None:
        parts = (self.suite.name.encode(), self.name.encode(), self.authority or b"")
        object.__setattr__(self, "id", hashlib.sha256(b"\0".join(parts)).digest())


def tagged(tag: str, network: NetworkConstants) -> bytes:
    """Return the head of everything signed: the tag, 0x00, the network id."""
    return tag.encode() + b"\0" + network.id

"""What a datagram is, read from its first bytes. Knows QUIC from outside, and loads none of it."""

from __future__ import annotations

from enum import Enum
from typing import Final

__all__ = ["CID_BYTES", "Datagram", "Kind", "connection_id", "kind_of"]

Datagram = tuple[bytes, tuple[str, int]]
"""Bytes, and where they go."""
CID_BYTES: Final = 8
CID_MAX: Final = 20


class Kind(Enum):
    """The kinds of datagram on the one socket."""

    CONTROL = "control"
    """Resolver messages and punches: the first two bits are 0, which QUIC never sends."""
    SHORT = "short"
    LONG = "long"
    NOISE = "noise"


def kind_of(data: bytes) -> Kind:
    """Tell what a datagram claims to be."""
    if not data:
        return Kind.NOISE
    first = data[0]
    if first < 0x40:
        return Kind.CONTROL
    if first < 0x80:
        return Kind.SHORT if len(data) > CID_BYTES else Kind.NOISE
    return Kind.LONG if len(data) >= 7 and data[5] <= CID_MAX else Kind.NOISE


def connection_id(data: bytes, kind: Kind) -> bytes:
    """Return whose connection a QUIC datagram is for, in the receiver's terms."""
    if kind is Kind.SHORT:
        return data[1 : 1 + CID_BYTES]
    return data[6 : 6 + data[5]]

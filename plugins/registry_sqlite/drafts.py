"""What a turn at the database has read and not yet written: rows as they will be.

Why in memory first: the writes of many callers become a handful of statements, and one call that is
refused is forgotten without a trace in what the others did.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from skycore.discovery.registries import Held

__all__ = ["Draft", "Place", "Row", "bodies_of", "decode", "encode_bodies", "encode_lives"]

_encode = msgspec.msgpack.Encoder().encode
_bodies = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]]).decode
_lives = msgspec.msgpack.Decoder(list[tuple[int, int]]).decode


class Row(NamedTuple):
    """What a subject lists, and how it stands in the file."""

    id: int
    position: int
    gone_ms: int | None
    size: int
    entries: Mapping[bytes, Held]
    is_altered: bool = False
    """Bodies or position have to be written, not lives alone."""


class Place(NamedTuple):
    """A table of listings."""

    position: int
    first: int
    floor: int
    subjects: int = 0
    size: int = 0


Key = tuple[str, bytes]


class Draft:
    """Rows that were read or made. None: it is known that there is none."""

    def __init__(self) -> None:
        self.rows: dict[Key, Row | None] = {}
        self.altered: dict[Key, None] = {}
        self.nonces: dict[Key, int] = {}
        self.kept: set[Key] = set()
        """Whose nonces stand in the file already."""
        self.used: dict[Key, None] = {}
        self.beats: dict[tuple[str, str, bytes], tuple[bytes, int]] = {}
        self.places: dict[str, Place] = {}

    def copy(self) -> Draft:
        """Return one to go on with, which can be thrown away."""
        other = Draft()
        for name, value in vars(self).items():
            setattr(other, name, value.copy())
        return other


def decode(bodies: bytes, lives: bytes) -> dict[bytes, Held]:
    """Return entries. Raises ValueError, msgspec.DecodeError."""
    pairs = zip(_bodies(bodies), _lives(lives), strict=True)
    return {key: Held(body, until, stamp) for (key, body), (until, stamp) in pairs}


def bodies_of(bodies: bytes, lives: bytes, now_ms: int) -> dict[bytes, bytes]:
    """Return bodies of live entries by key. Raises ValueError, msgspec.DecodeError."""
    pairs = zip(_bodies(bodies), _lives(lives), strict=True)
    return {key: body for (key, body), (until, _) in pairs if until > now_ms}


def encode_bodies(entries: Mapping[bytes, Held]) -> bytes:
    """Return keys and bodies, by key."""
    return _encode([(key, entries[key].body) for key in sorted(entries)])


def encode_lives(entries: Mapping[bytes, Held]) -> bytes:
    """Return lives and stamps, in the same order."""
    return _encode([entries[key][1:] for key in sorted(entries)])

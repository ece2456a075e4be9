"""Traces: what happened in a simulation, as one hash, so that two runs can be compared.

Why a hash: "the same seed gives the same run" is a claim about every byte that moved and when.
Where two hashes differ, run both again with `keep_max` and look at the first line that differs.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections import deque
from collections.abc import Sequence

__all__ = ["Dice", "Trace", "first_difference"]

_MASK = 2**64 - 1
_ARRIVAL = struct.Struct(">diI")


class Trace:
    """A running hash of events, and the last `keep_max` of them as text."""

    def __init__(self, keep_max: int = 0) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self.kept: deque[str] = deque(maxlen=keep_max)
        self.count = 0

    def note(self, line: str) -> None:
        """Add an event: one line, which says when, where and what."""
        self._hash.update(line.encode() + b"\n")
        self.count += 1
        if self.kept.maxlen:
            self.kept.append(line)

    def arrived(self, now: float, name: bytes, data: bytes | None) -> None:
        """Add an arrival on a connection: bytes, their end (empty) or a reset (None)."""
        size = -1 if data is None else len(data)
        check = zlib.crc32(data) if data else 0
        self._hash.update(_ARRIVAL.pack(now, size, check) + name)
        self.count += 1
        if self.kept.maxlen:
            what = "rst" if data is None else f"{size} {check:08x}" if data else "fin"
            self.kept.append(f"{now:.9f} {name.decode()} {what}")

    @property
    def digest(self) -> str:
        """The hash of all events so far, hex."""
        return self._hash.hexdigest()


def first_difference(one: Sequence[str], other: Sequence[str]) -> str:
    """Return the first line at which two kept traces part, for a failing test; "" for none."""
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return f"line {number}:\n  {a}\n  {b}"
    return "" if len(one) == len(other) else f"one ends after {min(len(one), len(other))} lines"


class Dice:
    """A generator of 8 bytes, one for each direction of each connection.

    Why one each: what one connection draws cannot change what another one draws. Knuth's MMIX
    linear congruence; the upper 53 bits are used.
    """

    __slots__ = ("_state",)

    def __init__(self, *name: object) -> None:
        text = "/".join(map(str, name)).encode()
        self._state = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")

    def random(self) -> float:
        """Return 0.0 <= x < 1.0."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) & _MASK
        return (self._state >> 11) / 9007199254740992.0

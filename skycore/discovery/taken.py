"""What a server's table has from the DHT, and how much of it that may be.

Why a bound of its own: keys and records are free, and whoever signs a hundred thousand of them must
neither push out those who register here nor fill a memory or a disk. Half of what the registry
holds is for the DHT, whatever sources tell of it; the other half nobody gets at from there. Who
finds no room is not lost: he sees that his record does not carry his listing, and registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from skycore.contracts.registry import Listed, RegistryCapacity

__all__ = ["Held", "Share", "Taken", "size_of"]


class Held(NamedTuple):
    """What was taken of a subject: enough to say it again."""

    stamp: int
    until_s: int
    keys: tuple[bytes, ...]
    size: int
    """Bytes of keys and bodies."""


class Share:
    """The room that all sources have together."""

    def __init__(self, capacity: RegistryCapacity) -> None:
        self.subjects_left = capacity.subjects // 2
        self.size_left = capacity.size // 2


class Taken:
    """What was taken from one source, by subject. A subject of two sources counts twice."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._held: dict[bytes, Held] = {}

    def __len__(self) -> int:
        """Return how many subjects there are."""
        return len(self._held)

    def get(self, subject: bytes) -> Held | None:
        """Return what is held of a subject."""
        return self._held.get(subject)

    def subjects(self) -> tuple[bytes, ...]:
        """Return whose records are held."""
        return tuple(self._held)

    def keep(self, subject: bytes, held: Held) -> bool:
        """Hold this in the place of what is held of a subject; False where there is no room."""
        share, before = self._share, self._held.get(subject)
        subjects, size = (0, before.size) if before else (1, 0)
        if share.subjects_left < subjects or share.size_left + size < held.size:
            return False
        share.subjects_left -= subjects
        share.size_left += size - held.size
        self._held[subject] = held
        return True

    def drop(self, subject: bytes) -> None:
        """Hold nothing of a subject any more."""
        held = self._held.pop(subject, None)
        if held is not None:
            self._share.subjects_left += 1
            self._share.size_left += held.size

    def forget_ended(self, now_s: int) -> None:
        """Drop what ended: there is nothing of it to say again."""
        for subject in [s for s, held in self._held.items() if held.until_s <= now_s]:
            self.drop(subject)


def size_of(put: Sequence[Listed]) -> int:
    """Return how much room entries take."""
    return sum(len(entry.key) + len(entry.body) for entry in put)

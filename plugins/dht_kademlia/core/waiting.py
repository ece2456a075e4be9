"""What was put and reached no other node: remembered, bounded, until somebody is there to take it.

Why: a node that starts before its network publishes to nobody, and its publisher rightly takes its
own store's copy for a success. Without this the record would stay unknown until it changes.

Why keys alone: our own store has what this node signed, and is read when the time comes: what
expired or was replaced in the meantime is then not sent at all. Pure: time and jitter come in as
arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from skycore.contracts.store import ItemKey

__all__ = ["WAITING_MAX", "Held", "Waiting"]

WAITING_MAX: Final = 4_096


@dataclass(eq=False, slots=True)
class Held:
    """A put that waits."""

    seq: int
    """0 for a lease alone."""
    cas: int | None = None
    """What the writer expected where he put item `seq`."""
    tries: int = 0
    due_s: float = 0.0


class Waiting:
    """The puts that reached nobody, by target and class, the oldest first."""

    def __init__(self, most: int = WAITING_MAX) -> None:
        self.dropped = 0
        """How many made room for newer ones."""
        self._most = most
        self._held: dict[ItemKey, Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def find(self, key: ItemKey) -> Held | None:
        """Return what waits under a key."""
        return self._held.get(key)

    def keep(self, key: ItemKey, held: Held) -> Held:
        """Hold a put, or note one more try; returns what is held under this key now.

        A newer item takes an older one's place, and a lease (seq 0) changes neither.
        """
        known = self._held.get(key)
        if known is not None and (not held.seq or held.seq < known.seq):
            return known
        if known is not None and held.seq == known.seq:
            held.tries = known.tries
        self.forget(key)
        self._held[key] = held
        while len(self._held) > self._most:
            self.forget(next(iter(self._held)))
            self.dropped += 1
        return held

    def forget(self, key: ItemKey) -> None:
        """Hold it no longer."""
        self._held.pop(key, None)

    def reached(self, key: ItemKey, seq: int) -> None:
        """Note that an item (or, with seq 0, a lease) is at another node, or was beaten there."""
        held = self._held.get(key)
        if held is not None and seq >= held.seq:
            self.forget(key)

    def due(self, now: float, count: int) -> Sequence[tuple[ItemKey, Held]]:
        """Return what may be tried again, oldest first."""
        found = []
        for key, held in self._held.items():
            if held.due_s <= now:
                found.append((key, held))
                if len(found) == count:
                    break
        return found

    def all_due(self) -> None:
        """Let everything be tried at once: we were alone and are no longer."""
        for held in self._held.values():
            held.tries, held.due_s = 0, 0.0

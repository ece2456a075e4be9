"""Subjects with something to be done, each once: what waits, what is being done, what rests.

Why by subject: one that changes ten times before its turn is done once, so memory is bounded by how
many subjects there are, however long the other side is away (L22). What nobody took rests a while,
so that one bad record is not tried again with every other's change.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

import anyio

from skycore.contracts.runtime import Clock

__all__ = ["Backlog"]


class Backlog:
    """Not a queue of changes: a set of subjects, the oldest first, and since when."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[bytes, float] = {}
        self._resting: dict[bytes, float] = {}
        self._taken: dict[bytes, float] = {}
        self._rested_at = 0.0
        self._some = anyio.Event()

    def __len__(self) -> int:
        return len(self._waiting.keys() | self._resting.keys() | self._taken.keys())

    def __contains__(self, subject: bytes) -> bool:
        return subject in self._waiting or subject in self._resting or subject in self._taken

    @property
    def lag_s(self) -> float:
        """How long the oldest has been here, seconds; 0: there is none."""
        parts = (self._waiting, self._resting, self._taken)
        first = [next(iter(part.values())) for part in parts if part]
        return max(0.0, self._clock.now() - min(first)) if first else 0.0

    def add(self, subjects: Iterable[bytes]) -> None:
        """Note subjects; one that is being done now is done once more after that."""
        now = self._clock.now()
        for subject in subjects:
            self._waiting.setdefault(subject, self._resting.pop(subject, now))
        if self._waiting:
            self._some.set()

    def waits(self, subject: bytes) -> bool:
        """Whether it changed since it was taken."""
        return subject in self._waiting

    def waiting(self) -> Collection[bytes]:
        """Return what can be taken now, the oldest first."""
        return tuple(self._waiting)

    def take(self, subject: bytes) -> None:
        """Begin with a subject that waits."""
        self._taken[subject] = self._waiting.pop(subject)

    def done(self, subject: bytes) -> None:
        """End with one that was taken."""
        self._taken.pop(subject, None)

    def put_back(self) -> None:
        """Let everything that was taken and is not done wait again, before the others."""
        self._waiting = {**self._taken, **self._waiting}
        self._taken = {}

    def rest(self, rest_s: float) -> None:
        """Let everything that was taken and is not done rest; with nothing left, do nothing."""
        for subject, since in self._taken.items():
            if subject not in self._waiting:
                self._resting[subject] = since
        if self._taken:
            self._rested_at = self._clock.now() + rest_s
        self._taken = {}

    @property
    def is_well(self) -> bool:
        """Whether nothing that was tried has come to nothing."""
        return not self._taken and not self._resting

    @property
    def taken(self) -> int:
        """How many were taken and are not done."""
        return len(self._taken)

    async def some(self) -> None:
        """Return when something can be taken."""
        while not self._waiting:
            self._some = anyio.Event()
            due_s = self._rested_at - self._clock.now() if self._resting else math.inf
            with anyio.move_on_after(max(0.0, due_s)):
                await self._some.wait()
            if self._resting and self._clock.now() >= self._rested_at:
                self._waiting = {**self._resting, **self._waiting}
                self._resting = {}

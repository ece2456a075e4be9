"""Whose record is asked after again, because what was taken does not stand.

Why seldom: of two services that do not list the same, each finds the other's word in the place of
its own, and would overwrite it for ever (L14). Why at all: a record that another service deleted,
or that a store lost, would be missing until its lease is half over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from skycore.contracts.runtime import Clock

__all__ = ["DOUBT_S", "Doubts"]

DOUBT_S: Final = 300.0
"""How often mirrors are asked anew about one subject."""


class Doubts:
    """Subjects, each doubted every `DOUBT_S` at most. Bounded: those that differ."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[bytes, float] = {}
        self._fresh: set[bytes] = set()

    def add(self, subjects: Iterable[bytes]) -> None:
        """Note subjects of which something else stands than was published."""
        now = self._clock.now()
        self._since = {s: at for s, at in self._since.items() if now - at < DOUBT_S}
        fresh = [subject for subject in subjects if subject not in self._since]
        self._since.update(dict.fromkeys(fresh, now))
        self._fresh.update(fresh)

    def take(self, subject: bytes) -> bool:
        """Tell, once, whether a subject's record is to be asked after."""
        is_fresh = subject in self._fresh
        self._fresh.discard(subject)
        return is_fresh

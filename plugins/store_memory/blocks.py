"""Blocks by reference: kept while a head or a version stands on them, and for late readers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from skycore.model.limits import BLOCK_GRACE_S

__all__ = ["Blocks"]


class Blocks:
    """Content-addressed pieces of large values, each counted by those who refer to it."""

    def __init__(self) -> None:
        self._data: dict[bytes, bytes] = {}
        self._heads: dict[bytes, int] = {}
        self._past: dict[bytes, int] = {}
        """Replaced versions that hold a block."""
        self._idle: dict[bytes, int | None] = {}
        """Blocks without a head, and since when (None: the next sweep will say)."""

    def get(self, name: bytes) -> bytes | None:
        """Return a block, or None."""
        return self._data.get(name)

    def missing(self, names: Iterable[bytes], given: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
        """Return those that are neither here nor given."""
        return tuple(n for n in names if n not in self._data and n not in given)

    def size(self, names: Iterable[bytes]) -> int:
        """Return how many bytes these blocks have."""
        return sum(len(self._data[name]) for name in names)

    def hold(self, names: Iterable[bytes], given: Mapping[bytes, bytes]) -> None:
        """Count one more head for each; those not here come from `given`."""
        for name in names:
            if name not in self._data:
                self._data[name] = given[name]
            self._heads[name] = self._heads.get(name, 0) + 1
            self._idle.pop(name, None)

    def release(self, names: Iterable[bytes], now_s: int | None) -> None:
        """Count one head less for each."""
        for name in names:
            self._heads[name] -= 1
            if not self._heads[name]:
                del self._heads[name]
                self._idle[name] = now_s

    def remember(self, names: Iterable[bytes]) -> None:
        """Count one more replaced version for each, all of them here."""
        for name in names:
            self._past[name] = self._past.get(name, 0) + 1

    def forget(self, names: Iterable[bytes]) -> None:
        """Count one replaced version less for each."""
        for name in names:
            self._past[name] -= 1
            if not self._past[name]:
                del self._past[name]
                if name not in self._heads:
                    self._idle.setdefault(name, None)

    def sweep(self, now_s: int) -> None:
        """Forget what has had no head for the time of grace, and is in no version."""
        for name, since in list(self._idle.items()):
            if since is None or since > now_s:  # unknown, or the clock was set back
                self._idle[name] = now_s
            elif now_s - since >= BLOCK_GRACE_S:
                del self._idle[name]
                if name not in self._past:
                    del self._data[name]

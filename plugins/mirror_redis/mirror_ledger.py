"""What of ours must stand in Redis: slot, rank and end of life of each record, and no bytes.

Why: a Redis that was flushed, restored, or that threw a key away does not say so. Whoever knows
what should be there can ask, and bring what is not (C35, M4, M8). Pure and bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from skycore.contracts.store import ItemKey

__all__ = ["Ledger", "Wanted"]


class Wanted(NamedTuple):
    """The least that must stand in a slot."""

    rank: bytes
    until: int


class Ledger:
    """Wanted by slot; the one that was noted longest ago falls out first."""

    def __init__(self, records_max: int) -> None:
        self._wanted: OrderedDict[ItemKey, Wanted] = OrderedDict()
        self._records_max = records_max
        self.fallen = 0
        """Records that there was no room to remember."""

    def __len__(self) -> int:
        return len(self._wanted)

    def note(self, key: ItemKey, rank: bytes, until: int) -> None:
        """Want this, unless something better is wanted already."""
        held = self._wanted.get(key)
        if held is not None:
            if rank < held.rank:
                return
            if rank == held.rank:
                until = max(until, held.until)
        self._wanted[key] = Wanted(rank, until)
        self._wanted.move_to_end(key)
        if len(self._wanted) > self._records_max:
            self._wanted.popitem(last=False)
            self.fallen += 1

    def prolong(self, key: ItemKey, until: int) -> None:
        """Want what is wanted for longer."""
        held = self._wanted.get(key)
        if held is not None and until > held.until:
            self._wanted[key] = held._replace(until=until)

    def forget(self, key: ItemKey) -> None:
        """Want it no more."""
        self._wanted.pop(key, None)

    def end(self, now_s: int) -> None:
        """Forget what has ended."""
        for key in [key for key, wanted in self._wanted.items() if wanted.until <= now_s]:
            del self._wanted[key]

    def parts(self, size: int) -> Iterator[list[tuple[ItemKey, Wanted]]]:
        """Yield all of it as it is now, in parts."""
        rows = iter(list(self._wanted.items()))
        while part := list(islice(rows, size)):
            yield part

"""The orders in which a store is read: by position, by target, by end of life.

Why by hand: each is a page, and each keeps a put at the same few dictionary operations whether
ten items are held or a million. What has moved or gone is left in place and skipped, and thrown out
once it is half of everything, so the cost stays in proportion.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Iterator
from heapq import heapify, heappop, heappush

from skycore.contracts.store import ItemKey

__all__ = ["Ends", "Log", "Shelf"]

_SLACK = 1_024


class Log:
    """Positions in ascending order. A position that is not in `live` any more is skipped."""

    __slots__ = ("_gone", "_positions")

    def __init__(self) -> None:
        self._positions: list[int] = []
        self._gone = 0

    def append(self, position: int) -> None:
        """Add the newest position."""
        self._positions.append(position)

    def remove_one(self, live: Container[int]) -> None:
        """Take note that one position has left `live`."""
        self._gone += 1
        if self._gone * 2 > len(self._positions) + _SLACK:
            self._positions = [p for p in self._positions if p in live]
            self._gone = 0

    def after(self, position: int) -> Iterator[int]:
        """Yield positions after this one; some may have gone."""
        positions = self._positions
        for i in range(bisect_right(positions, position), len(positions)):
            yield positions[i]

    def __len__(self) -> int:
        return len(self._positions) - self._gone


class Shelf:
    """Slots by target: cells by the first 12 bits, each sorted when it is read."""

    __slots__ = ("_cells",)

    def __init__(self) -> None:
        self._cells: dict[int, set[tuple[bytes, int]]] = {}

    def add(self, key: tuple[bytes, int]) -> None:
        """Put a slot in its place."""
        target = key[0]
        number = target[0] << 4 | target[1] >> 4
        cell = self._cells.get(number)
        if cell is None:
            self._cells[number] = {key}
        else:
            cell.add(key)

    def remove(self, key: tuple[bytes, int]) -> None:
        """Take a slot out."""
        number = key[0][0] << 4 | key[0][1] >> 4
        cell = self._cells[number]
        cell.discard(key)
        if not cell:
            del self._cells[number]

    def between(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, int]]:
        """Yield slots with low ≤ target ≤ high, by target and class."""
        first, last = (int.from_bytes(end[:2].ljust(2, b"\0"), "big") >> 4 for end in (low, high))
        cells = self._cells
        span = range(first, last + 1)  # of a narrow range one cell, not a look at all of them
        numbers = span if len(span) <= len(cells) else sorted(n for n in cells if n in span)
        for number in numbers:
            for key in sorted(cells.get(number, ())):
                if low <= key[0] <= high:
                    yield key

    def __len__(self) -> int:
        return len(self._cells)


class Ends:
    """Slots by the second at which they end. Entries that a lease made untrue are skipped."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        self._heap: list[tuple[int, bytes, int]] = []

    def add(self, until: int, key: tuple[bytes, int]) -> None:
        """Note when a slot ends."""
        heappush(self._heap, (until, *key))

    def pop_before(self, now_s: int) -> Iterator[tuple[int, ItemKey]]:
        """Take out and yield (until, slot) with until < now_s; the caller checks if it is true."""
        while self._heap and self._heap[0][0] < now_s:
            until, target, item_class = heappop(self._heap)
            yield until, ItemKey(target, item_class)

    def rebuild(self, untils: dict[tuple[bytes, int], int]) -> None:
        """Replace the heap by what is true."""
        self._heap = [(until, *key) for key, until in untils.items()]
        heapify(self._heap)

    def __len__(self) -> int:
        return len(self._heap)

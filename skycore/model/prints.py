"""Fingerprints of ranges: how two stores find where they differ without listing what they hold.

Why sums: a sum does not depend on order and can be kept up to date, one addition for an item that
comes and one subtraction for one that goes. Why 4,096 cells by the first 12 bits of the target:
reconciliation (docs/protocols/dht.md) splits ranges by 16, so three rounds are answered from the
cells alone, and a narrower range has at most 1/4,096 of the items to read.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable

__all__ = ["CELLS", "Prints", "cell_bounds", "cell_of", "item_print", "range_print"]

CELLS = 4_096
_TAIL = struct.Struct(">Q")
_MASK = 2**256 - 1
_LOW_END = bytes(30)
_HIGH_END = b"\xff" * 30

Row = tuple[bytes, int, bytes, int]
"""What a print is made of: target, class, rank, until."""


def item_print(target: bytes, item_class: int, rank: bytes, until: int) -> int:
    """Return one item's share: SHA256(target ‖ class u8 ‖ rank ‖ until u64) as an integer."""
    data = b"".join((target, bytes((item_class,)), rank, _TAIL.pack(until)))
    return int.from_bytes(hashlib.sha256(data).digest(), "big")


def range_print(rows: Iterable[Row]) -> tuple[int, int]:
    """Return how many rows there are, and the sum of their prints mod 2^256."""
    count = value = 0
    for row in rows:
        count += 1
        value += item_print(*row)
    return count, value & _MASK


def cell_of(target: bytes) -> int:
    """Return the number of a target's cell: its first 12 bits."""
    return int.from_bytes(target[:2].ljust(2, b"\0"), "big") >> 4


def cell_bounds(cell: int) -> tuple[bytes, bytes]:
    """Return the first and the last target of a cell."""
    top, low = cell >> 4, (cell & 15) << 4
    return bytes((top, low)) + _LOW_END, bytes((top, low | 15)) + _HIGH_END


class Prints:
    """Sums by cell, for each salt that was ever asked about (None: all salts together).

    Until a salt is asked about, nothing is kept or computed for it; then `read` gives its rows
    once, and `add` keeps the sums. Only cells with items take memory.
    """

    def __init__(self) -> None:
        self._known: dict[bytes | None, dict[int, list[int]]] = {}

    def watches(self, salt: bytes) -> bool:
        """Tell whether a change under this salt has to be added."""
        return bool(self._known) and (None in self._known or salt in self._known)

    def forget(self) -> None:
        """Forget everything: whoever cannot say what changed calls this."""
        self._known.clear()

    def add(self, salt: bytes, row: Row, sign: int) -> None:
        """Count an item that came (+1) or went (-1)."""
        share = sign * item_print(*row)
        for key in (salt, None):
            cells = self._known.get(key)
            if cells is not None:
                self._add(cells, row[0], sign, share)
                if not cells:
                    del self._known[key]

    @staticmethod
    def _add(cells: dict[int, list[int]], target: bytes, sign: int, share: int) -> None:
        number = cell_of(target)
        cell = cells.setdefault(number, [0, 0])
        cell[0] += sign
        cell[1] = (cell[1] + share) & _MASK
        if not cell[0]:
            del cells[number]

    def over(
        self,
        salt: bytes | None,
        low: bytes,
        high: bytes,
        read: Callable[[bytes, bytes], Iterable[Row]],
    ) -> tuple[int, int]:
        """Return count and sum over low ≤ target ≤ high; `read` yields the rows of a range."""
        if low > high:
            return 0, 0
        first, last = cell_of(low), cell_of(high)
        if first == last and (low, high) != cell_bounds(first):
            return range_print(read(low, high))
        cells = self._cells(salt, read)
        count = value = 0
        if low != cell_bounds(first)[0]:
            count, value = range_print(read(low, cell_bounds(first)[1]))
            first += 1
        if high != cell_bounds(last)[1]:
            edge = range_print(read(cell_bounds(last)[0], high))
            count, value = count + edge[0], value + edge[1]
            last -= 1
        for number in range(first, last + 1):
            cell = cells.get(number)
            if cell is not None:
                count, value = count + cell[0], value + cell[1]
        return count, value & _MASK

    def _cells(
        self, salt: bytes | None, read: Callable[[bytes, bytes], Iterable[Row]]
    ) -> dict[int, list[int]]:
        cells = self._known.get(salt)
        if cells is None:
            cells = {}
            for row in read(cell_bounds(0)[0], cell_bounds(CELLS - 1)[1]):
                self._add(cells, row[0], 1, item_print(*row))
            if cells:  # a salt that nothing is held under takes no memory
                self._known[salt] = cells
        return cells

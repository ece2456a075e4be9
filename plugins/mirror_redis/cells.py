"""Fingerprints of what several writers hold in one Redis.

Why cells are read again and not added up: nobody tells this process what a slot held before another
process changed it, or that it was dropped. Each change marks the cell of its target (the first 12
bits) with a number that only grows; a cell that was marked since it was read is read again, whoever
marked it. A mark that comes while cells are read counts for the next question.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mirror_redis.rows import number, record, slot_of
from mirror_redis.scans import high_bound, low_bound
from skycore.contracts.store import Fingerprint
from skycore.model.prints import CELLS, cell_bounds, cell_of, range_print

__all__ = ["Cells"]

ROWS_MAX = 2_000
REREAD_MAX = 256
"""Where more cells than these are to be read, everything is: fewer questions."""
_MASK = 2**256 - 1
_ALL = (bytes(32), b"\xff" * 32)

Range = tuple[bytes, bytes]


@dataclass
class _Known:
    """The cells of one salt."""

    sums: dict[int, Fingerprint] = field(default_factory=dict)
    stale: set[int] = field(default_factory=set)
    is_whole: bool = False


class Cells:
    """Sums by cell, for each salt that was ever asked about (None: all salts together)."""

    def __init__(self, run: Callable[..., Awaitable[Any]]) -> None:
        self._run = run
        self._mark = b""
        self._known: dict[bytes | None, _Known] = {}

    def forget(self) -> None:
        """Forget everything: this is another store."""
        self._known.clear()
        self._mark = b""

    async def over(self, salt: bytes | None, ranges: Sequence[Range]) -> list[Fingerprint]:
        """Return a fingerprint for each range, bounds included."""
        plans = [_plan(low, high) for low, high in ranges]
        wanted = {n for _, span in plans for n in span}
        known = self._known.get(salt, _Known())
        edges = [edge for found, _ in plans for edge in found]
        sums = iter(await self._edges(salt, edges))
        cells = await self._cells(salt, known, wanted) if wanted else {}
        answer = []
        for found, span in plans:
            parts = [next(sums) for _ in found]
            numbers = span if len(span) <= len(cells) else [n for n in cells if n in span]
            parts += [cells[n] for n in numbers if n in cells]
            count, value = sum(p.items for p in parts), sum(p.value for p in parts)
            answer.append(Fingerprint(count, value & _MASK))
        return answer

    async def _edges(self, salt: bytes | None, edges: Sequence[Range]) -> list[Fingerprint]:
        if not edges:
            return []
        return [Fingerprint(*range_print(rows)) for rows in await self._read(salt, edges)]

    async def _cells(
        self, salt: bytes | None, known: _Known, wanted: set[int]
    ) -> dict[int, Fingerprint]:
        await self._look(salt)
        if known.is_whole:
            again = sorted(known.stale & wanted)
        if not known.is_whole or len(again) > REREAD_MAX:
            known.stale.clear()
            [rows] = await self._read(salt, [_ALL])
            groups: dict[int, list[Any]] = {}
            for row in rows:
                groups.setdefault(cell_of(row[0]), []).append(row)
            known.sums = {n: Fingerprint(*range_print(group)) for n, group in groups.items()}
            known.is_whole = True
        elif again:
            known.stale -= set(again)
            found = await self._read(salt, [cell_bounds(n) for n in again])
            for n, rows in zip(again, found, strict=True):
                known.sums.pop(n, None)
                if rows:
                    known.sums[n] = Fingerprint(*range_print(rows))
        if known.sums:
            self._known[salt] = known
        else:  # a salt that nothing is held under takes no memory
            self._known.pop(salt, None)
        return known.sums

    async def _look(self, salt: bytes | None) -> None:
        """Ask which cells were marked since the last look."""
        mark, marked, _, _, _ = await self._run("ranks", _head(salt, self._mark))
        self._mark = bytes(mark)
        numbers = {number for cell in marked if (number := _number_of(cell)) is not None}
        for known in self._known.values():
            known.stale |= numbers

    async def _read(self, salt: bytes | None, ranges: Sequence[Range]) -> list[list[Any]]:
        """Return the rows of ranges, in as few round trips as their number allows."""
        bounds = [(low_bound(low), high_bound(high)) for low, high in ranges]
        found: list[list[Any]] = [[] for _ in ranges]
        at = 0
        while at < len(bounds):
            words = [word for pair in bounds[at : at + ROWS_MAX] for word in pair]
            _, _, done, last, groups = await self._run("ranks", _head(salt, b""), *words)
            for offset, group in enumerate(groups):
                for i in range(0, len(group), 3):
                    try:
                        target, item_class = slot_of(group[i])
                        rank = bytes.fromhex(group[i + 1].decode())
                        row = (target, item_class, rank, int(group[i + 2], 16))
                    except ValueError:  # not written by any of us: readers drop it
                        continue
                    found[at + offset].append(row)
            at += done
            if last:
                bounds[at] = (b"(" + bytes(last), bounds[at][1])
        return found


def _number_of(cell: bytes) -> int | None:
    try:
        return int(cell, 16)
    except ValueError:
        return None


def _head(salt: bytes | None, mark: bytes) -> bytes:
    return record(b"1" if salt is not None else b"", salt or b"", mark, number(ROWS_MAX))


def _plan(low: bytes, high: bytes) -> tuple[list[Range], range]:
    """Return the edges of a range, and the cells that lie in it as a whole."""
    if low > high:
        return [], range(0)
    first, last = cell_of(low), cell_of(high)
    if first == last and (low, high) != cell_bounds(first):
        return [(low, high)], range(0)
    edges = []
    if low != cell_bounds(first)[0]:
        edges.append((low, cell_bounds(first)[1]))
        first += 1
    if high != cell_bounds(last)[1]:
        edges.append((cell_bounds(last)[0], high))
        last -= 1
    return edges, range(first, min(last, CELLS - 1) + 1)

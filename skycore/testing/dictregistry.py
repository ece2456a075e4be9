"""A registry in a dict, for tests of what stands on one: the shared rules, and an off switch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel

from skycore.contracts.registry import (
    Beats,
    Listing,
    RegistryCapacity,
    RegistryPage,
    RegistryWrite,
    RegistryWritten,
)
from skycore.contracts.runtime import Clock
from skycore.discovery.registries import (
    Held,
    RegistryBounds,
    apply,
    beat_slot,
    check_writes,
    cursor_at,
    listing_of,
    position_of,
)
from skycore.errors import StoreFullError, StoreUnreachableError

__all__ = ["DictRegistry"]


class _Table:
    def __init__(self) -> None:
        self.held: dict[bytes, dict[bytes, Held]] = {}
        self.nonces: dict[bytes, int] = {}
        self.log: dict[bytes, int] = {}
        """Subjects in order of their last change, and its position."""
        self.position = 0
        self.beats: dict[str, dict[bytes, set[int]]] = defaultdict(lambda: defaultdict(set))

    def changed(self, subject: bytes) -> None:
        self.position += 1
        self.log.pop(subject, None)
        self.log[subject] = self.position


class DictRegistry:
    """`contracts.registry.Registry`. `is_down` makes every call fail; `flush` forgets all."""

    def __init__(self, clock: Clock, *, bounds: RegistryBounds | None = None) -> None:
        self.is_down = False
        self.round_trips = 0
        self._clock = clock
        self._bounds = bounds or RegistryBounds()
        self._id = b"dict" * 4
        self._tables: dict[str, _Table] = defaultdict(_Table)
        self._news = anyio.Event()

    @property
    def capacity(self) -> RegistryCapacity:
        """How much a table may hold."""
        return self._bounds.capacity

    def flush(self) -> None:
        """Become an empty one, as a server that lost its data."""
        self._tables.clear()
        self._id = bytes(byte ^ 1 for byte in self._id)
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    async def _ask(self) -> None:
        self.round_trips += 1
        await anyio.lowlevel.checkpoint()
        if self.is_down:
            raise StoreUnreachableError("the registry is down")

    async def write(self, table: str, writes: Sequence[RegistryWrite]) -> Sequence[RegistryWritten]:
        """Do writes, each as a whole."""
        check_writes(table, writes, self._bounds)
        await self._ask()
        self._check_room(self._tables[table], writes)
        results = [self._write(self._tables[table], write) for write in writes]
        if any(result.changed for result in results):
            self._tell()
        return results

    def _check_room(self, table: _Table, writes: Sequence[RegistryWrite]) -> None:
        """Refuse a batch that does not fit, near enough: what it removes leaves no room yet."""
        there = sum(map(bool, table.held.values()))
        there += len({w.subject for w in writes if w.put and not table.held.get(w.subject)})
        if there > self._bounds.subjects_max:
            raise StoreFullError(f"the table is full: subjects_max is {self._bounds.subjects_max}")

    def _write(self, table: _Table, write: RegistryWrite) -> RegistryWritten:
        known, subject = table.nonces.get(write.subject, 0), write.subject
        if write.nonce is not None and write.nonce != known:
            return RegistryWritten("nonce", known)
        done = apply(table.held.get(subject, {}), write, self._clock.wall_ns())
        if done.is_refused:
            return RegistryWritten("stamp", known, done.highest)
        if write.nonce is not None:
            known = table.nonces[subject] = known + 1
        table.held[subject] = dict(done.entries)
        if write.beat:
            day, slot = beat_slot(self._clock.wall_s())
            table.beats[day][subject].add(slot)
        if done.is_changed:
            table.changed(subject)
        listing = self._listing(table, subject) if done.is_changed else None
        return RegistryWritten("", known, 0, done.is_changed, listing, done.removed)

    def _listing(self, table: _Table, subject: bytes) -> Listing:
        now_ms = self._clock.wall_ns() // 10**6
        held = table.held.get(subject, {})
        return listing_of(subject, {k: h.body for k, h in held.items() if h.until_ms > now_ms})

    async def next_nonce(self, table: str, subject: bytes) -> int:
        """Return a subject's next nonce."""
        await self._ask()
        return self._tables[table].nonces.get(subject, 0)

    async def changes(self, table: str, after: bytes | None, limit: int) -> RegistryPage:
        """Return what changed after a cursor."""
        await self._ask()
        held = self._tables[table]
        start = 0 if after is None else position_of(after, self._id, table, 0, held.position)
        rows = [(s, p) for s, p in held.log.items() if p > start]
        page = rows[:limit]
        end = page[-1][1] if len(page) < len(rows) else held.position
        listings = tuple(self._listing(held, subject) for subject, _ in page)
        if after is None:
            listings = tuple(listing for listing in listings if listing.entries)
        return RegistryPage(listings, cursor_at(self._id, table, end), len(page) < len(rows))

    async def sweep(self, table: str, limit: int) -> int:
        """End what is over."""
        await self._ask()
        held, now_ms, count = self._tables[table], self._clock.wall_ns() // 10**6, 0
        for subject, entries in held.held.items():
            over = [key for key, one in entries.items() if one.until_ms <= now_ms]
            for key in over:
                del entries[key]
            if over:
                held.changed(subject)
            count += len(over)
        if count:
            self._tell()
        return count

    async def beats(self, table: str, day: str) -> Mapping[bytes, Beats]:
        """Return who was seen on a day."""
        await self._ask()
        seen = self._tables[table].beats[day]
        return {subject: Beats(len(slots), 0) for subject, slots in seen.items()}

    @asynccontextmanager
    async def watch(self, table: str) -> AsyncIterator[AsyncIterator[None]]:
        """Learn of changes."""

        async def news() -> AsyncIterator[None]:
            while True:
                await self._news.wait()
                yield

        yield news()

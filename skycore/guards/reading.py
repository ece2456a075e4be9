"""What a gate shows of its store: what is live, what was, and what changes.

Why apart from the gate: readers change nothing and ask nobody; they see what has not expired,
swept or not (O11), and the store's own account of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anyio import Event

from skycore.contracts.runtime import Clock
from skycore.contracts.store import (
    ChangeFilter,
    ChangePage,
    Fingerprint,
    ItemKey,
    ItemStore,
    Usage,
)
from skycore.guards.storing import Storer
from skycore.guards.trees import Trees
from skycore.model.items import Cursor, MutableItem, StoredItem

__all__ = ["FRESH_SWEEP_S", "StoreFace"]

FRESH_SWEEP_S = 2.0
"""Fingerprints are taken of a store that was swept at most so long ago."""
_LISTING_SLACK = 3


class StoreFace:
    """The half of a gate that judges nothing: what it shows, and what it forgets."""

    def __init__(self, store: ItemStore, clock: Clock, trees: Trees, storer: Storer) -> None:
        self._store = store
        self._clock = clock
        self._trees = trees
        self._storer = storer

    @property
    def store_id(self) -> bytes:
        """The store's id, for cursors."""
        return self._store.store_id

    async def get(self, target: bytes, *, age_max_s: float | None = None) -> tuple[StoredItem, ...]:
        """Return the live items of a target, highest class first, none older than asked.

        What has expired is not served, swept or not (O11); age counts from the admission here.
        """
        slots = self._live((await self._store.get([target]))[0])
        if age_max_s is None:
            return slots
        oldest_ns = self._clock.wall_ns() - int(age_max_s * 1e9)
        return tuple(stored for stored in slots if stored.stored_ns >= oldest_ns)

    async def changes(
        self, after: Cursor | None, wanted: ChangeFilter, limit: int, bytes_max: int
    ) -> ChangePage:
        """Return live changes; an empty page is the last one."""
        while True:
            page = await self._store.changes(after, wanted, limit, bytes_max)
            live = self._live(page.entries)
            if live or not page.has_more:
                return ChangePage(live, page.cursor, page.has_more)
            after = page.cursor

    def changed(self) -> Event:
        """Return an event that is set when the store changes next; take it before reading."""
        return self._storer.changed()

    async def listing(
        self, salt: bytes | None, low: bytes, high: bytes, limit: int
    ) -> Sequence[StoredItem]:
        """Return live items by target; fewer than `limit` only where there are no more."""
        found: dict[ItemKey, StoredItem] = {}
        while True:
            page = await self._store.listing(salt, low, high, limit + _LISTING_SLACK)
            found |= {ItemKey(s.target, s.item_class): s for s in self._live(page)}
            if len(found) >= limit or len(page) < limit + _LISTING_SLACK:
                return tuple(found.values())[:limit]
            low = page[-1].target

    async def fingerprints(
        self, salt: bytes | None, ranges: Sequence[tuple[bytes, bytes]]
    ) -> Sequence[Fingerprint]:
        """Return a fingerprint of what is live in each range of targets, bounds included.

        A store's sums are of what it holds: what has expired since the last sweep goes first, or
        two nodes that hold the same would differ by when they swept.
        """
        if self._clock.now() - self._storer.swept_at >= FRESH_SWEEP_S:
            await self._storer.sweep()
        return await self._store.fingerprints(salt, ranges)

    async def drop(self, keys: Sequence[ItemKey]) -> int:
        """Forget slots here."""
        return await self._storer.drop(keys)

    async def sweep(self) -> int:
        """Drop what has expired, and count anew what is held."""
        return await self._storer.sweep()

    async def history(self, target: bytes, limit: int) -> Sequence[StoredItem]:
        """Return replaced items of a target, newest arrival first, expired or not."""
        return await self._store.history(target, limit)

    async def blocks(self, hashes: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return blocks of heads that are stored, or were until lately; None for others."""
        return await self._store.blocks(hashes)

    async def tree(self, item: MutableItem) -> Mapping[bytes, bytes]:
        """Return all blocks of a manifest, parents first. Raises `MissingBlocksError`."""
        return await self._trees.collect(item)

    async def value(self, stored: StoredItem) -> bytes | None:
        """Return the whole value, put together and checked. Raises `MissingBlocksError`."""
        return stored.assembled or await self._trees.value(stored.item)

    def assemble(self, item: MutableItem, blocks: Mapping[bytes, bytes]) -> bytes:
        """Put a manifest's value together from these blocks alone, checking all of it."""
        return self._trees.assemble(item, blocks)

    async def usage(self) -> Mapping[bytes, Usage]:
        """Return what is held under each salt, expired items that wait for the sweep included."""
        return await self._store.usage()

    def _live(self, slots: Sequence[StoredItem]) -> tuple[StoredItem, ...]:
        now_s = self._clock.wall_s()
        return tuple(stored for stored in slots if stored.until > now_s)

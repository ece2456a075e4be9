"""The Redis that we mirror into, as a source of entries: all that full nodes there hold.

Why judged here again: whoever gets at that Redis can write into it, so a row is told only after our
own gate's rules have proven it, signature, right, lifetime and namespace (O22b, M10). Why asked by
turns and not by notification: a source must notice that Redis is gone, and a subscription that is
silent says nothing; a look a second costs one round trip.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
import anyio.lowlevel

from mirror_redis.mirror_service import MirrorLink
from mirror_redis.store import RedisStore
from skycore.contracts.discovery import EntrySource, Record, Records
from skycore.contracts.namespace import Namespaces
from skycore.contracts.runtime import Clock, Entropy, Identity
from skycore.contracts.store import ChangeFilter, Items
from skycore.discovery.records import best_of_each, is_own_word, record_of
from skycore.errors import ItemError
from skycore.model.items import Cursor, Kind, MutableItem, StoredItem, mutable_item_target
from skycore.model.limits import MISSING_MAX
from skycore.model.trie import reach, read_manifest

__all__ = ["RedisSource", "open_redis_source"]

log = logging.getLogger(__name__)
NAME: Final = "redis"
NOTE: Final = "what Redis holds; only a full node can say whether that is everything"
PAGE_ITEMS: Final = 256
PAGE_BYTES: Final = 1024 * 1024
POLL_S: Final = 1.0
"""How often to look for what others wrote, where no notification came."""
JUDGED_AT_ONCE: Final = 16
"""Rows judged between two breaths of the event loop: a few ms."""
TOP: Final = b"\xff" * 32


@asynccontextmanager
async def open_redis_source(
    link: MirrorLink,
    items: Items,
    namespaces: Namespaces,
    identity: Identity,
    clock: Clock,
    entropy: Entropy,
) -> AsyncIterator[EntrySource]:
    """Give what stands in the mirror's Redis, of any salt."""
    store = RedisStore(link, entropy, identity.network.id, poll_s=POLL_S)
    yield RedisSource(store, items, namespaces, clock, POLL_S)


class RedisSource:
    """`contracts.discovery.FollowedSource`."""

    name = NAME
    salts: frozenset[bytes] | None = None
    is_local = True

    def __init__(
        self, store: RedisStore, items: Items, namespaces: Namespaces, clock: Clock, poll_s: float
    ) -> None:
        self._store = store
        self._items = items
        self._namespaces = namespaces
        self._clock = clock
        self._poll_s = poll_s
        self.counters: Counter[str] = Counter()
        """Rows: `proven`, `refused`, `incomplete` (blocks missing)."""

    async def find(self, salt: bytes, subject: bytes) -> Record | None:
        """Return the best proven record of a subject. Raises `StoreError`."""
        [rows] = await self._store.get([mutable_item_target(subject, salt)])
        for row in rows:  # highest class first
            record = await self._record(row)
            if record is not None and (record.salt, record.subject) == (salt, subject):
                return record
        return None

    async def records(self, salt: bytes) -> Records:
        """Return all proven records of a salt. Raises `StoreError`."""
        found: list[Record] = []
        low, as_of_ns = bytes(32), self._clock.wall_ns()
        while True:
            page = await self._store.listing(salt, low, TOP, PAGE_ITEMS)
            is_last = len(page) < PAGE_ITEMS
            if not is_last:  # the last target has perhaps more slots: it is read again
                low = page[-1].target
            held = [row for row in page if is_last or row.target != low]
            for row in best_of_each(await self._proven(held)):
                record = await self._told(row)
                if record is not None and record.body is not None:
                    found.append(record)
            if is_last:
                return Records(tuple(found), NAME, as_of_ns, complete=False, note=NOTE)

    # --- changes ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def follow(self, salt: bytes) -> AsyncIterator[AsyncIterator[Sequence[Record]]]:
        """Tell what subjects sign themselves. Raises `StoreError` where Redis is gone.

        `CursorInvalidError` where another one is in its place.
        """
        yield self._batches(salt)

    async def _batches(self, salt: bytes) -> AsyncIterator[Sequence[Record]]:
        cursor: Cursor | None = None
        while True:
            wanted = ChangeFilter(salt)
            page = await self._store.changes(cursor, wanted, PAGE_ITEMS, PAGE_BYTES)
            own = await self._proven([row for row in page.entries if is_own_word(row)])
            records = [record for row in own if (record := await self._told(row)) is not None]
            if records or cursor is None:
                yield records
            cursor = page.cursor
            if not page.has_more:
                await anyio.sleep(self._poll_s)

    # --- rows that anybody may have written ------------------------------------------------------

    async def _proven(self, rows: Sequence[StoredItem]) -> list[StoredItem]:
        proven = []
        for number, row in enumerate(rows, 1):
            if self._is_proven(row):
                proven.append(row)
            if number % JUDGED_AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
        return proven

    def _is_proven(self, row: StoredItem) -> bool:
        try:
            ranked = self._items.judge(row.item, row.lease)
        except ItemError as refused:
            self.counters["refused"] += 1
            log.debug("a row is not told target=%s: %s", row.target.hex()[:8], refused)
            return False
        said = (row.target, row.item_class, row.rank, row.digest)
        is_true = said == (ranked.target, ranked.item_class, ranked.rank, ranked.digest)
        self.counters["proven" if is_true else "refused"] += 1
        return is_true

    async def _record(self, row: StoredItem) -> Record | None:
        return await self._told(row) if self._is_proven(row) else None

    async def _told(self, row: StoredItem) -> Record | None:
        """Return the record of a proven row, with its whole value."""
        item, value = row.item, row.item.v
        if item.kind == Kind.MANIFEST:
            try:
                value = await self._whole(item)
            except ItemError:  # replaced just now, or somebody took blocks away
                self.counters["incomplete"] += 1
                return None
        return record_of(self._namespaces, row, value, NAME)

    async def _whole(self, item: MutableItem) -> bytes:
        """Put a value together from its blocks; they are proven by their names and the head.

        Raises `MissingBlocksError`, `NamespaceError`, `StoreError`.
        """
        root = read_manifest(item.v).root
        blocks: dict[bytes, bytes] = {}
        while missing := reach(root, blocks.get, MISSING_MAX)[1]:
            got = await self._store.blocks(missing)
            found = {name: block for name, block in zip(missing, got, strict=True) if block}
            if not found:
                break  # `assemble` says what is missing
            blocks |= found
        return self._items.assemble(item, blocks)

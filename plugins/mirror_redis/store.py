"""Items in Redis: an ItemStore that several nodes and services share.

Why everything is a script: others write at the same time, so what is compared and what is written
must be one step inside Redis (O20, O21, C35), and a batch must be one round trip. The schema:
docs/protocols/redis_schema.md.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import anyio.lowlevel

from mirror_redis.cells import Cells
from mirror_redis.link import Link
from mirror_redis.news import News
from mirror_redis.opened import CALL_ITEMS_MAX, History, OpenedStore
from mirror_redis.own import OwnRecords
from mirror_redis.rows import member_of, number, record, rows_of, stored_item
from mirror_redis.scans import Scans
from skycore.contracts.runtime import Entropy
from skycore.contracts.store import (
    ChangeFilter,
    ChangePage,
    Fingerprint,
    ItemKey,
    PutOutcome,
    Usage,
)
from skycore.errors import StoreError
from skycore.model.items import Cursor, ItemClass, Lease, RankedItem, StoredItem
from skycore.model.limits import BLOCK_GRACE_S, BLOCK_MAX

__all__ = ["RedisStore"]

log = logging.getLogger(__name__)
REPLY_BYTES = 2 * 1024 * 1024
"""A reply ends behind the row with which it is larger; the next call goes on."""
BLOCKS_ASKED_MAX = 2_000
DECODED_AT_ONCE = 128
"""Rows or leases turned over between two breaths of the event loop: 1 to 2 ms."""


class RedisStore(OpenedStore):
    """An ItemStore in Redis. Any number of them, in any processes, may stand on the same one."""

    def __init__(
        self,
        link: Link,
        entropy: Entropy,
        network: bytes,
        *,
        poll_s: float,
        history: History | None = None,
        clock_ahead_max_s: int = 0,
        own: OwnRecords | None = None,
    ) -> None:
        super().__init__(link, entropy, network, history)
        self._ahead_max = number(clock_ahead_max_s)
        self._own = own
        self.news = News(link, self._place, self._channel, self._writer, poll_s=poll_s)
        self._cells = Cells(self.run)
        self._scans = Scans(self.run, self.run_all, self._shown)

    def forget(self) -> None:
        """Forget what was known of the store before; whoever watches looks again."""
        self._cells.forget()
        self.news.ring()

    def wrote(self, mark: int) -> None:
        """Take note of the mark of a change of ours: it is no news."""
        self.news.is_ours(mark)

    # --- reading --------------------------------------------------------------------------------

    async def _shown(self, rows: Sequence[Any]) -> list[StoredItem]:
        """Return items of rows; what cannot be read is dropped, by name."""
        items, damaged = [], []
        for count, row in enumerate(rows, 1):
            if count % DECODED_AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
            item = stored_item(row)
            if item is not None:
                items.append(item)
            else:
                damaged.append(record(row[-1], row[2] if len(row) > 3 else b"?"))
        if damaged:
            await self._drop_damaged(damaged)
        return items

    async def _drop_damaged(self, slots: Sequence[bytes]) -> None:
        log.error(
            "rows that cannot be read are dropped from redis rows=%d first=%s",
            len(slots), slots[0][4:20].decode("ascii", "replace"),
        )  # fmt: skip
        self.link.counters["damaged"] += len(slots)
        await self.change("drop", [slots])

    async def get(self, targets: Sequence[bytes]) -> Sequence[tuple[StoredItem, ...]]:
        """Return what the slots of each target hold."""
        wanted = list(dict.fromkeys(targets))
        found: dict[bytes, list[StoredItem]] = {target: [] for target in wanted}
        for start in range(0, len(wanted), CALL_ITEMS_MAX):
            part = wanted[start : start + CALL_ITEMS_MAX]
            for item in (await self._slots(part))[1]:
                found[item.target].append(item)
        return [tuple(found[target]) for target in targets]

    async def _slots(self, targets: Sequence[bytes]) -> tuple[int, list[StoredItem]]:
        """Return the end of the log, and the slots of targets, highest class first."""
        classes = sorted((int(c) for c in ItemClass), reverse=True)
        members = [member_of(target, c) for target in targets for c in classes]
        items: list[StoredItem] = []
        while True:
            end, looked, *packed = await self.run("get", number(REPLY_BYTES), *members)
            items += await self._shown(rows_of(*packed))
            members = members[looked:]
            if not members:
                return end, items

    async def changes(
        self, after: Cursor | None, wanted: ChangeFilter, limit: int, bytes_max: int
    ) -> ChangePage:
        """Return a stretch of the change log."""
        await self.open()
        while True:
            before = self.store_id
            if wanted.salt is not None and wanted.subject is not None:
                page = await self._scans.changes_of_one(
                    before, after, wanted, limit, bytes_max, self._slots
                )
            else:
                page = await self._scans.changes(before, after, wanted, limit, bytes_max)
            if self.store_id == before:
                return page  # else it was another store by the end: look again

    async def listing(
        self, salt: bytes | None, low: bytes, high: bytes, limit: int
    ) -> Sequence[StoredItem]:
        """Return items by target."""
        return await self._scans.listing(salt, low, high, limit)

    async def fingerprints(
        self, salt: bytes | None, ranges: Sequence[tuple[bytes, bytes]]
    ) -> Sequence[Fingerprint]:
        """Return a fingerprint for each range."""
        await self.open()
        return await self._cells.over(salt, ranges)

    async def blocks(self, hashes: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return blocks; one that is not what its name says is not there."""
        wanted = list(dict.fromkeys(hashes))
        found: dict[bytes, bytes] = {}
        damaged: list[bytes] = []
        while wanted:
            part = wanted[:BLOCKS_ASKED_MAX]
            limits = record(number(REPLY_BYTES), number(BLOCK_MAX))
            looked, blocks = await self.run("blocks", limits, b"".join(part))
            for name, block in zip(part[:looked], blocks, strict=True):
                if hashlib.sha256(block).digest() == name:
                    found[name] = block
                elif block:
                    sha = hashlib.sha1(block, usedforsecurity=False).hexdigest()
                    damaged += (name, sha.encode())
            wanted = wanted[looked:]
        if damaged:
            log.error("damaged blocks are forgotten blocks=%d", len(damaged) // 2)
            self.link.counters["damaged"] += len(damaged) // 2
            await self.run("unblock", b"", *damaged)
        return [found.get(name) for name in hashes]

    async def history(self, target: bytes, limit: int) -> Sequence[StoredItem]:
        """Return replaced items."""
        return await self._scans.history(target, limit)

    async def usage(self) -> Mapping[bytes, Usage]:
        """Return what is held under each salt."""
        return _usages(await self.run("usage"))

    async def signer_usage(self, accounts: Sequence[bytes]) -> Sequence[Usage]:
        """Return what is held on each account."""
        found: dict[bytes, Usage] = {}
        asked = list(dict.fromkeys(accounts))
        for start in range(0, len(asked), CALL_ITEMS_MAX):
            found |= _usages(await self.run("usage", *asked[start : start + CALL_ITEMS_MAX]))
        return [found[account] for account in accounts]

    # --- writing --------------------------------------------------------------------------------

    async def put_many(
        self, items: Sequence[RankedItem], blocks: Mapping[bytes, bytes] | None = None
    ) -> Sequence[PutOutcome]:
        """Compare and set by rank; what this node itself signed is remembered, too."""
        outcomes = await super().put_many(items, blocks)
        if self._own is not None:
            for item, outcome in zip(items, outcomes, strict=True):
                if outcome.accepted and self._own.is_ours(item.item):
                    with suppress(StoreError):  # it is stored, whatever we can remember of it
                        await self._own.note(item, blocks or {}, self.blocks)
        return outcomes

    async def renew(self, leases: Sequence[Lease], now_ns: int) -> Sequence[PutOutcome]:
        """Set leases."""
        outcomes = await super().renew(leases, now_ns)
        if self._own is not None:
            for lease, outcome in zip(leases, outcomes, strict=True):
                if outcome.accepted:
                    self._own.prolong(lease)
        return outcomes

    async def drop(self, keys: Sequence[ItemKey], positions: Sequence[int] | None = None) -> int:
        """Forget slots."""
        if self._own is not None and positions is None:
            self._own.forget(keys)
        return await super().drop(keys, positions)

    async def sweep(self, now_s: int) -> int:
        """Drop what has ended, in portions: others write in between."""
        limits = record(
            number(now_s), number(BLOCK_GRACE_S), number(CALL_ITEMS_MAX), self._ahead_max
        )
        count = 0
        while True:
            [(_, dropped, more)] = await self.change("sweep", [[limits]])
            self.link.warn("clock_ahead" if dropped < 0 else "")
            count += max(int(dropped), 0)
            if not more:
                return count

    # --- others ---------------------------------------------------------------------------------

    async def _place(self) -> tuple[int, int]:
        end, mark = await self.run("place")
        return end, mark

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Tell when others wrote here."""
        return self.news.watch()


def _usages(flat: Sequence[Any]) -> dict[bytes, Usage]:
    triples = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    return {bytes(name): Usage(int(items), int(size)) for name, items, size in triples}

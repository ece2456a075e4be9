"""Does Redis still hold all that this node published? Asked at the start, then every half minute.

Why ask: a flush, a restored backup, a fail-over that lost the last second and a Redis that evicts
all look alike from here: what was acknowledged is not there (C35, M4, M8, M12). What is missing is
queued again from the node's own store, signed already. Another store in the place of the one before
is noticed within `check_s`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import anyio.lowlevel

from mirror_redis.link import Link
from mirror_redis.mirror_copies import Copies
from mirror_redis.mirror_ledger import Ledger, Wanted
from mirror_redis.mirror_queue import Job, Queue
from mirror_redis.mirror_settings import RedisMirrorSettings
from mirror_redis.mirror_store import MirrorStore, Standing
from mirror_redis.mirror_writer import Writer
from skycore.contracts.runtime import Clock
from skycore.contracts.store import ItemKey
from skycore.model.limits import CLOCK_SKEW_MAX_S

__all__ = ["Auditor"]

log = logging.getLogger(__name__)
ASKED_AT_ONCE = 512
LISTED_AT_ONCE = 512


class Auditor:
    """Compares the ledger with Redis, and queues what is missing there."""

    def __init__(
        self,
        settings: RedisMirrorSettings,
        link: Link,
        store: MirrorStore,
        copies: Copies,
        queue: Queue,
        ledger: Ledger,
        writer: Writer,
        clock: Clock,
    ) -> None:
        self._audit_s = settings.audit_s
        self._link = link
        self._store = store
        self._copies = copies
        self._queue = queue
        self._ledger = ledger
        self._writer = writer
        self._clock = clock
        self._seen = b""
        self._due_at = 0.0
        self._was_usable = False
        self.healed = 0
        """Records that Redis had lost, and that were queued again."""
        self.audits = 0

    async def check(self) -> None:
        """Ask what time it is there and whether it is the same store; audit when it is time.

        Raises `StoreError` where Redis cannot be used.
        """
        if not self._link.is_usable:
            self._due_at = 0.0  # whatever was done to it meanwhile
            return
        await self._compare_clocks()
        if await self._store.look() != self._seen:
            await self._recall()
            self._due_at = 0.0
        if self._clock.now() >= self._due_at:
            await self._audit()
            self._seen = self._store.store_id
            self._due_at = self._clock.now() + self._audit_s

    async def _compare_clocks(self) -> None:
        theirs_ns = await self._store.server_ns()
        ahead_ns = self._clock.wall_ns() - theirs_ns
        was_wrong = self.is_clock_wrong
        self._writer.ahead_ns = ahead_ns
        if self.is_clock_wrong and not was_wrong:
            log.warning(
                "this clock and that of redis differ: one is wrong ahead_s=%.0f", ahead_ns / 1e9
            )

    @property
    def is_clock_wrong(self) -> bool:
        """Whether our clock and the server's differ by more than full nodes put up with."""
        return abs(self._writer.ahead_ns) > CLOCK_SKEW_MAX_S * 10**9

    async def _recall(self) -> None:
        """Fill the ledger with what our own store holds of us."""
        low: bytes | None = bytes(32)
        while low is not None:
            copies, low = await self._copies.page(low, LISTED_AT_ONCE)
            for stored in copies:
                key = ItemKey(stored.target, stored.item_class)
                self._ledger.note(key, stored.rank, stored.until)

    async def _audit(self) -> None:
        """Ask for every record in the ledger, and queue those that are not there."""
        self._ledger.end(self._clock.wall_s())
        missing = 0
        for part in self._ledger.parts(ASKED_AT_ONCE):
            missing += await self._audit_part(part)
            await anyio.lowlevel.checkpoint()
        self.audits += 1
        self.healed += missing
        if missing:
            log.warning("redis lacks records of ours, bringing them count=%d", missing)

    async def _audit_part(self, part: Sequence[tuple[ItemKey, Wanted]]) -> int:
        """Audit some slots, but none that is being written at the moment."""
        part = [row for row in part if not self._writer.is_busy_with(row[0])]
        standing = await self._store.standing([key for key, _ in part])
        await self._drop_remnants(part, standing)
        missing = 0
        for (key, wanted), there in zip(part, standing, strict=True):
            is_there = there.is_listed and (there.rank, there.until) >= wanted
            if not is_there and not self._writer.is_busy_with(key):
                missing += 1
                self._queue.put(Job(key, self._clock.now()))
        return missing

    async def _drop_remnants(
        self, part: Sequence[tuple[ItemKey, Wanted]], standing: Sequence[Standing]
    ) -> None:
        """Drop rows that no index knows, or putting them again would find them there."""
        pairs = zip(part, standing, strict=True)
        remnants = [key for (key, _), there in pairs if there.rank and not there.is_listed]
        if remnants:
            log.warning("redis has thrown parts of its index away rows=%d", len(remnants))
            await self._store.drop(remnants)

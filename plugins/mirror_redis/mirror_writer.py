"""The writing end of the mirror: one task that brings what waits into Redis, batch after batch.

Why one: batches of one writer come in order, and while Redis is away nothing piles up but names.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import anyio
import msgspec

from mirror_redis.failures import named
from mirror_redis.link import Link
from mirror_redis.mirror_copies import Copies
from mirror_redis.mirror_ledger import Ledger
from mirror_redis.mirror_queue import Job, Queue
from mirror_redis.mirror_store import MirrorStore
from skycore.contracts.runtime import Clock
from skycore.contracts.store import ItemKey, Outcome, PutOutcome
from skycore.errors import (
    ItemError,
    MissingBlocksError,
    QuotaError,
    SeqTooFarError,
    SeqTooLowError,
    SkycoreError,
    StoreFullError,
)
from skycore.model.items import Kind, MutableItem, RankedItem, StoredItem
from skycore.model.limits import CLOCK_SKEW_MAX_S, MISSING_MAX
from skycore.model.manifest import read_manifest
from skycore.model.trie import reach

__all__ = ["Writer", "blocks_of"]

log = logging.getLogger(__name__)
BATCH_ITEMS = 1_024
BATCH_BYTES = 8 * 1024 * 1024
PAUSE_LONGEST_S = 5.0
_WRITTEN = (Outcome.STORED, Outcome.RENEWED, Outcome.HELD)


def blocks_of(item: MutableItem, blocks: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return a manifest's blocks, parents first, out of those at hand. Raises `NamespaceError`.

    Raises `MissingBlocksError` where some are not.
    """
    if item.kind != Kind.MANIFEST:
        return {}
    names, missing = reach(read_manifest(item.v).root, blocks.get, MISSING_MAX)
    if missing:
        raise MissingBlocksError(f"{len(missing)} blocks of this record are not at hand")
    return {name: blocks[name] for name in names}


def _raise_full(outcomes: Sequence[PutOutcome]) -> None:
    """Raise what Redis said where it became full in the midst of a batch: the rest waits."""
    for outcome in outcomes:
        if outcome.code == QuotaError.code:
            raise StoreFullError(outcome.text, hint=named["full"].hint)


class Writer:
    """Brings jobs into Redis, and tells what became of each."""

    def __init__(
        self,
        link: Link,
        store: MirrorStore,
        copies: Copies,
        queue: Queue,
        ledger: Ledger,
        own: bytes,
        clock: Clock,
    ) -> None:
        self._link = link
        self._store = store
        self._copies = copies
        self._queue = queue
        self._ledger = ledger
        self._own = own
        self._clock = clock
        self._retry_s = link.settings.retry_s
        self._on_way: dict[ItemKey, Job] = {}
        self.ahead_ns = 0
        """How far this node's clock is ahead of the server's, as it was asked last."""
        self.counters: Counter[str] = Counter()
        self.trouble: SkycoreError | None = None
        """Why the latest batch was not written; None where it was."""

    @property
    def waiting(self) -> int:
        """Slots in which Redis is behind, those on their way included."""
        return len(self._queue) + len(self._on_way)

    def is_busy_with(self, key: ItemKey) -> bool:
        """Tell whether a slot waits, or is on its way."""
        return self._queue.holds(key) or key in self._on_way

    @property
    def lag_s(self) -> float:
        """For how long Redis has been behind, seconds; 0 where it is not."""
        since = [job.since for job in self._on_way.values()]
        if (oldest := self._queue.waiting_since) is not None:
            since.append(oldest)
        return max(0.0, self._clock.now() - min(since)) if since else 0.0

    async def run(self) -> None:
        """Write for ever."""
        pause_s = 0.0
        while True:
            await self._queue.news.wait()
            if not self._link.is_usable:
                await anyio.sleep(self._retry_s)
                continue
            try:
                await self._batch()
                self.trouble, pause_s = None, 0.0
            except SkycoreError as trouble:
                self._take_note(trouble)
                pause_s = min(PAUSE_LONGEST_S, max(self._retry_s, 2 * pause_s))
                await anyio.sleep(pause_s)

    def _take_note(self, trouble: SkycoreError) -> None:
        self.counters["failures"] += 1
        if self.trouble is None or str(self.trouble) != str(trouble):
            log.warning("records wait for redis waiting=%d error=%r", self.waiting, str(trouble))
        self.trouble = trouble

    async def _batch(self) -> None:
        """Write one batch; what Redis did not take for a reason of its own waits on."""
        jobs = self._queue.take(BATCH_ITEMS, BATCH_BYTES)
        self._on_way = {job.key: job for job in jobs}
        try:
            ready = [job for job in jobs if await self._load(job) and self._fits(job)]
            await self._put([job for job in ready if job.ranked is not None])
            await self._renew([job for job in ready if job.lease is not None])
        except BaseException:
            left = [job for job in jobs if not job.is_done]
            for job in left:
                job.release()
            self._queue.put_back(left)
            raise
        finally:
            self._on_way = {}

    # --- before ---------------------------------------------------------------------------------

    async def _load(self, job: Job) -> bool:
        """Read what is to be brought where the job does not carry it; False where there is none."""
        if job.ranked is not None or job.lease is not None:
            return True
        stored = await self._copies.find(job.key)
        if stored is not None:
            return await self._fill(job, stored)
        job.settle(None)  # it has ended, or was never kept here
        return False

    async def _fill(self, job: Job, stored: StoredItem) -> bool:
        try:
            blocks = await self._copies.tree(stored.item)
        except MissingBlocksError:  # replaced while we looked: the newer one is in the queue
            job.settle(None)
            return False
        except ItemError as error:  # what our own store has of it cannot be read
            self.counters["refused"] += 1
            job.settle(PutOutcome(error.code, text=str(error)))
            return False
        job.blocks = blocks
        job.ranked = RankedItem(
            stored.target, stored.item_class, stored.rank, stored.digest, stored.item,
            self._own, stored.stored_ns, None, tuple(blocks),
        )  # fmt: skip
        job.lease = stored.lease
        return True

    def _fits(self, job: Job) -> bool:
        """Refuse what full nodes would, by the server's clock: it would hold its slot for nothing.

        The ledger keeps it: an audit brings it once the clocks agree (C13).
        """
        now_ns = self._clock.wall_ns() - self.ahead_ns
        if job.ranked is None or job.ranked.item.seq <= now_ns + CLOCK_SKEW_MAX_S * 10**9:
            return True
        error = SeqTooFarError("this node's clock is ahead of that of Redis")
        self.counters["refused"] += 1
        job.settle(PutOutcome(error.code, text=str(error)))
        return False

    # --- writing --------------------------------------------------------------------------------

    async def _put(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        blocks: dict[bytes, bytes] = {}
        for job in jobs:
            blocks.update(job.blocks)
        outcomes = await self._store.put_many([job.ranked for job in jobs if job.ranked], blocks)
        for job, outcome in zip(jobs, outcomes, strict=True):
            if outcome.code != QuotaError.code:
                self._took(job, outcome)
        _raise_full(outcomes)

    def _took(self, job: Job, outcome: PutOutcome) -> None:
        if outcome.code in _WRITTEN:
            self.counters["held" if outcome.code == Outcome.HELD else "written"] += 1
        elif outcome.code == SeqTooLowError.code:
            self.counters["overtaken"] += 1
            outcome = msgspec.structs.replace(outcome, text="Redis holds a newer one")
        else:
            self.counters["refused"] += 1
            log.warning("redis did not take a record code=%d", outcome.code)
        if job.lease is None or outcome.code not in _WRITTEN:
            job.lease = None
            job.settle(outcome)

    async def _renew(self, jobs: Sequence[Job]) -> None:
        leases = [(job, job.lease) for job in jobs if job.lease is not None]
        if not leases:
            return
        now_ns = self._clock.wall_ns()
        outcomes = await self._store.renew([lease for _, lease in leases], now_ns)
        _raise_full(outcomes)  # a lease may be sent again
        for (job, _), outcome in zip(leases, outcomes, strict=True):
            if outcome.code == Outcome.NOT_HELD and job.ranked is None:
                await self._bring(job, outcome)
                continue
            self.counters["renewed"] += outcome.code == Outcome.RENEWED
            job.settle(outcome)

    async def _bring(self, job: Job, outcome: PutOutcome) -> None:
        """Redis lacks what a lease was for: bring it with the item, if our own store has that."""
        stored = await self._copies.find(job.key)
        if stored is not None and job.lease is not None and stored.digest == job.lease.digest:
            self._queue.put(Job(job.key, job.since, tickets=job.tickets))
            job.is_done = True  # another takes its place: this batch has nothing to put back
            return
        job.settle(outcome)

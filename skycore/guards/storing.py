"""Storing what was found right: counting what there is room for, and putting it there, in one step.

Why one step at a time: two admissions that count at once would share the last place, and a node
that says it keeps N items must hold N and not one more (C25). The store does one write at a time
anyway, so this costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import anyio
from anyio import Event

from skycore.contracts.runtime import Clock
from skycore.contracts.store import ItemKey, ItemStore, Outcome, PutOutcome, Usage
from skycore.errors import QuotaError
from skycore.guards.admission import Candidate
from skycore.guards.heads import Heads
from skycore.guards.quota import Growth, Quotas
from skycore.model.items import Kind, Lease, RankedItem

__all__ = ["Storer"]

SWEEP_FOR_ROOM_S = 5.0

_Ready = tuple[Candidate, RankedItem, Growth]


class Storer:
    """The writing end of a gate: the only one that changes its store."""

    def __init__(
        self, store: ItemStore, quotas: Quotas, heads: Heads, clock: Clock, own: bytes
    ) -> None:
        self._store = store
        self._quotas = quotas
        self._heads = heads
        self._clock = clock
        self._own = own
        self._turn = anyio.Lock()
        self._news: Event | None = None
        self.counters: Counter[str] = Counter()
        """Slots that left: `expired`, `dropped`."""
        self.swept_at = clock.now()

    # --- telling that something changed ----------------------------------------------------------

    def changed(self) -> Event:
        """Return an event that is set when the store changes next."""
        if self._news is None:
            self._news = Event()
        return self._news

    def touch(self) -> None:
        """Tell those who wait that the store changed."""
        if self._news is not None:
            self._news.set()
            self._news = None

    # --- forgetting ------------------------------------------------------------------------------

    async def drop(self, keys: Sequence[ItemKey]) -> int:
        """Forget slots."""
        async with self._turn:
            dropped = await self._store.drop(keys)
            await self.count()
        if dropped:
            self.counters["dropped"] += dropped
            self.touch()
        return dropped

    async def sweep(self) -> int:
        """Drop what has expired, and count anew what is held."""
        async with self._turn:
            return await self._sweep()

    async def _sweep(self) -> int:
        self.swept_at = self._clock.now()
        self._heads.expire()
        dropped = await self._store.sweep(self._clock.wall_s())
        if dropped:
            self.counters["expired"] += dropped
            self.touch()
        await self.count()
        return dropped

    async def count(self) -> None:
        """Take the store's own count as the truth."""
        self._quotas.refresh(await self._store.usage())

    # --- storing ---------------------------------------------------------------------------------

    async def put(self, proven: Sequence[Candidate]) -> None:
        """Store what there is room for; give each candidate its outcome."""
        if not proven:
            return
        for candidate in proven:
            if candidate.growth is None:
                candidate.growth = self._heads.growth(candidate)
        async with self._turn:
            await self._reserve(proven)
            ready = [(c, c.ranked, c.growth) for c in proven if c.is_open and c.ranked and c.growth]
            results = await self._put(ready) if ready else ()
        if any(outcome.code == Outcome.STORED for outcome in results):
            self.touch()

    async def _reserve(self, proven: Sequence[Candidate]) -> None:
        wanted = [(c.ranked, c.growth) for c in proven if c.ranked and c.growth]
        if not self._quotas.has_room(wanted):
            if self._clock.now() - self.swept_at >= SWEEP_FOR_ROOM_S:
                await self._sweep()
            else:
                await self.count()
        foreign = [c.ranked for c in proven if c.ranked and c.item.signer != self._own]
        accounts = list(dict.fromkeys(ranked.account for ranked in foreign))
        usage = await self._store.signer_usage(accounts) if accounts else ()
        used = dict(zip(accounts, usage, strict=True))
        for candidate in proven:
            try:
                if candidate.ranked is not None and candidate.growth is not None:
                    mine = used.get(candidate.ranked.account, Usage(0, 0))
                    self._quotas.reserve(candidate.ranked, candidate.growth, mine)
            except QuotaError as error:
                candidate.refuse(error)

    async def _put(self, ready: Sequence[_Ready]) -> Sequence[PutOutcome]:
        blocks: dict[bytes, bytes] = {}
        for candidate, _, _ in ready:
            blocks.update(candidate.blocks or ())
        results: Sequence[PutOutcome] = ()
        try:
            await self._clear_dead([c for c, _, _ in ready])
            results = await self._store.put_many([ranked for _, ranked, _ in ready], blocks)
        finally:
            for index, (candidate, ranked, growth) in enumerate(ready):
                outcome = results[index] if results else None
                is_stored = outcome is not None and outcome.code == Outcome.STORED
                self._quotas.settle(ranked, growth, is_stored=is_stored)
                candidate.outcome = outcome
        if any(_has_blocks(candidate) for candidate, _, _ in ready):
            await self.count()  # only the store knows to the byte
        return results

    async def _clear_dead(self, ready: Sequence[Candidate]) -> None:
        """Make way where an expired item, not swept yet, would still outrank or answer a cas."""
        now_s = self._clock.wall_s()
        dead = {
            ItemKey(c.old.target, c.old.item_class): c.old.position
            for c in ready
            if c.old
            and c.ranked
            and c.old.until <= now_s
            and (c.ranked.rank < c.old.rank or c.cas is not None)
        }
        if dead:  # and still what was read: another writer may have been here (O21)
            self.counters["expired"] += await self._store.drop(list(dead), list(dead.values()))
            self.touch()

    async def renew(self, leases: Sequence[Lease], now_ns: int) -> Sequence[PutOutcome]:
        """Set leases that were found right."""
        results = await self._store.renew(leases, now_ns)
        if any(outcome.code == Outcome.RENEWED for outcome in results):
            self.touch()
        return results


def _has_blocks(candidate: Candidate) -> bool:
    old = candidate.old
    return candidate.blocks is not None or (old is not None and old.item.kind == Kind.MANIFEST)

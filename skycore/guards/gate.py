"""The gate: every item enters and leaves the store through here, whichever way it came.

Why one gate: a put, a batch, a sync page, an import and a mirror are five ways to the same store,
and a rule that one of them skips is no rule (C1, C7). The judge says what may be believed, the
quotas what there is room for; the gate asks them in order, keeps the event loop free, and tells the
truth about each item (C15). The rules: docs/protocols/items.md.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import anyio

from skycore.contracts.namespace import Namespaces
from skycore.contracts.runtime import Clock, Identity, Workers
from skycore.contracts.store import (
    ItemKey,
    Items,
    ItemStore,
    Outcome,
    PutOutcome,
    Usage,
)
from skycore.errors import ItemError, PluginError, QuotaError, SeqTooLowError
from skycore.events import Events
from skycore.guards.admission import Candidate, Prover, outcome_name, seq_of
from skycore.guards.judge import Claim, Judge
from skycore.guards.quota import GateSettings, Quotas
from skycore.guards.reading import StoreFace
from skycore.guards.trees import Trees
from skycore.model.items import Kind, Lease, MutableItem, RankedItem, StoredItem
from skycore.model.keys import short
from skycore.model.limits import ENTRY_BYTES, LEASE_LIFETIME_MAX_S
from skycore.tasks import every

__all__ = ["Gate", "GateSettings", "open_gate"]

log = logging.getLogger(__name__)
CHUNK_ITEMS = 512
LEASE_BYTES = 150
SWEEP_FOR_ROOM_S = 5.0
LOG_REFUSALS_S = 60.0
_LISTING_SLACK = 3


@asynccontextmanager
async def open_gate(
    settings: GateSettings,
    store: ItemStore,
    identity: Identity,
    namespaces: Namespaces,
    clock: Clock,
    workers: Workers,
    events: Events,
) -> AsyncIterator[Items]:
    """Guard the node's one store for as long as the context lasts; sweep it now and then."""
    for namespace in namespaces:
        longest_s = max(namespace.lifetimes_s.values(), default=0)
        if longest_s > LEASE_LIFETIME_MAX_S:
            raise PluginError(
                f"namespace {namespace.salt!r} lets items live {longest_s} s",
                hint=f"{LEASE_LIFETIME_MAX_S} s at most: a tombstone must outlive what it deletes",
            )
    quotas = Quotas(settings, identity.public, namespaces, events)
    judge = Judge(identity.network, identity.public, namespaces)
    trees = Trees(store, namespaces, workers)
    gate = Gate(store, judge, quotas, Prover(judge, workers), trees, clock, identity.public)
    quotas.refresh(await store.usage())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(
            partial(every, settings.sweep_interval_s, gate.sweep, name="sweep", at_once=False)
        )
        yield gate
        tasks.cancel_scope.cancel()


class Gate(StoreFace):
    """Items, judged once for all: the only holder of the node's ItemStore."""

    def __init__(
        self,
        store: ItemStore,
        judge: Judge,
        quotas: Quotas,
        prover: Prover,
        trees: Trees,
        clock: Clock,
        own: bytes,
    ) -> None:
        super().__init__(store, clock, trees)
        self._judge = judge
        self._quotas = quotas
        self._prover = prover
        self._own = own
        self._counters: Counter[str] = Counter()
        self._log_after = clock.now()

    @property
    def counters(self) -> Mapping[str, int]:
        """How many puts and leases ended how, since the start: by outcome's or error's name."""
        return dict(self._counters)

    # --- forgetting ------------------------------------------------------------------------------

    async def drop(self, keys: Sequence[ItemKey]) -> int:
        """Forget slots here."""
        dropped = await self._store.drop(keys)
        if dropped:
            self._touch()
        self._quotas.refresh(await self._store.usage())
        return dropped

    async def sweep(self) -> int:
        """Drop what has expired, and count anew what is held."""
        self._swept_at = self._clock.now()
        dropped = await self._store.sweep(self._clock.wall_s())
        if dropped:
            self._touch()
        self._quotas.refresh(await self._store.usage())
        return dropped

    # --- judging and admitting -------------------------------------------------------------------

    def judge(self, item: MutableItem, lease: Lease | None = None) -> RankedItem:
        """Return the item with class and rank, or raise the `ItemError` that says why not."""
        now_ns = self._clock.wall_ns()
        evidence = self._judge.prepare(self._judge.look(item, lease, now_ns))
        return self._judge.rank(evidence, self._judge.verify(evidence.checks), b"", now_ns, None)

    async def admit(
        self,
        items: Sequence[MutableItem],
        *,
        sender: bytes,
        cas: Sequence[int | None] | None = None,
        blocks: Sequence[bytes] = (),
        leases: Sequence[Lease | None] | None = None,
    ) -> Sequence[PutOutcome]:
        """Judge and store; one outcome an item, in order. `sender` is the authenticated peer."""
        outcomes: list[PutOutcome] = []
        for start in range(0, len(items), CHUNK_ITEMS):
            chunk = [
                Candidate(items[i], cas[i] if cas else None, leases[i] if leases else None)
                for i in range(start, min(start + CHUNK_ITEMS, len(items)))
            ]
            await self._admit_chunk(chunk, sender, {})
            outcomes += self._told(chunk, sender)
        return outcomes

    async def _admit_chunk(
        self, chunk: Sequence[Candidate], sender: bytes, blocks: Mapping[bytes, bytes]
    ) -> None:
        now_ns, now = self._clock.wall_ns(), self._clock.now()
        size = sum(len(candidate.item.v) for candidate in chunk) + ENTRY_BYTES * len(chunk)
        is_paid = self._quotas.take(sender, size, now)  # else as far as it goes, one by one
        for candidate in chunk:
            self._look(candidate, now_ns, None if is_paid else sender)
        await self._recognise([c for c in chunk if c.is_open])
        await self._prover.prove([c for c in chunk if c.is_open], sender, now_ns)
        await self._store_proven([c for c in chunk if c.is_open and c.ranked], blocks)
        for candidate in chunk:
            if candidate.is_open:  # held already
                candidate.outcome = PutOutcome(Outcome.HELD, seq_of(candidate.old))
        await self._apply_leases([c for c in chunk if c.outcome and c.outcome.accepted], now_ns)

    def _look(self, candidate: Candidate, now_ns: int, payer: bytes | None) -> None:
        try:
            if payer is not None:
                self._charge(payer, len(candidate.item.v) + ENTRY_BYTES)
            candidate.claim = self._judge.look(candidate.item, candidate.lease, now_ns)
        except ItemError as error:
            candidate.refuse(error)

    def _charge(self, sender: bytes, size: int) -> None:
        if not self._quotas.take(sender, size, self._clock.now()):
            raise QuotaError("this sender has handed in all that one minute allows")

    async def _recognise(self, chunk: Sequence[Candidate]) -> None:
        """Set apart what is held already, and what is older than that, before any costly check."""
        slots = await self._slots([c.claim.target for c in chunk if c.claim])
        now_s = self._clock.wall_s()
        for candidate in chunk:
            claim, item = candidate.claim, candidate.item
            if claim is None or (old := slots.get((claim.target, claim.item_class))) is None:
                continue
            candidate.old = old
            if old.until <= now_s:
                continue
            candidate.is_held = old.item == item
            if candidate.is_held and claim.lease and claim.lease.until <= old.until:
                candidate.claim = claim._replace(lease=None)
            if item.seq < old.item.seq and candidate.cas is None:
                candidate.outcome = PutOutcome(
                    SeqTooLowError.code, old.item.seq, text="a newer item of this class is stored"
                )

    async def _slots(self, targets: Sequence[bytes]) -> dict[tuple[bytes, int], StoredItem]:
        if not targets:
            return {}
        rows = await self._store.get(targets)
        return {(stored.target, stored.item_class): stored for row in rows for stored in row}

    async def _store_proven(
        self, proven: Sequence[Candidate], blocks: Mapping[bytes, bytes]
    ) -> None:
        await self._reserve(proven)
        ready = [(c, c.ranked) for c in proven if c.is_open and c.ranked]
        if not ready:
            return
        results: Sequence[PutOutcome] = ()
        try:
            await self._clear_dead([c for c, _ in ready])
            results = await self._store.put_many([ranked for _, ranked in ready], blocks)
        finally:
            for index, (candidate, ranked) in enumerate(ready):
                outcome = results[index] if results else None
                is_stored = outcome is not None and outcome.code == Outcome.STORED
                self._quotas.settle(ranked, candidate.old, is_stored=is_stored)
                candidate.outcome = outcome
        if any(outcome.code == Outcome.STORED for outcome in results):
            self._touch()

    async def _reserve(self, proven: Sequence[Candidate]) -> None:
        if not proven:
            return
        if not self._quotas.has_room((c.ranked, c.old) for c in proven if c.ranked) and (
            self._clock.now() - self._swept_at >= SWEEP_FOR_ROOM_S
        ):
            await self.sweep()
        signers = list(dict.fromkeys(c.item.signer for c in proven if c.item.signer != self._own))
        usage = await self._store.signer_usage(signers) if signers else ()
        used = dict(zip(signers, usage, strict=True))
        for candidate in proven:
            try:
                if candidate.ranked is not None:
                    mine = used.get(candidate.item.signer, Usage(0, 0))
                    self._quotas.reserve(candidate.ranked, candidate.old, mine)
            except QuotaError as error:
                candidate.refuse(error)

    async def _clear_dead(self, ready: Sequence[Candidate]) -> None:
        """Make way where an expired item, not swept yet, would still outrank or answer a cas."""
        now_s = self._clock.wall_s()
        dead = [
            ItemKey(c.old.target, c.old.item_class)
            for c in ready
            if c.old
            and c.ranked
            and c.old.until <= now_s
            and (c.ranked.rank < c.old.rank or c.cas is not None)
        ]
        if dead:
            await self._store.drop(dead)
            self._touch()

    # --- leases ----------------------------------------------------------------------------------

    async def renew(self, leases: Sequence[Lease], *, sender: bytes) -> Sequence[PutOutcome]:
        """Judge and apply leases; one outcome each, in order."""
        outcomes: list[PutOutcome] = []
        for start in range(0, len(leases), CHUNK_ITEMS):
            part = leases[start : start + CHUNK_ITEMS]
            now_ns = self._clock.wall_ns()
            slots = await self._slots([lease.target for lease in part])
            chunk = [self._match(lease, slots, sender, now_ns) for lease in part]
            await self._prover.prove([c for c in chunk if c.is_open], sender, now_ns)
            await self._apply_leases([c for c in chunk if c.is_open], now_ns)
            outcomes += self._told(chunk, sender)
        return outcomes

    def _match(
        self,
        lease: Lease,
        slots: Mapping[tuple[bytes, int], StoredItem],
        sender: bytes,
        now_ns: int,
    ) -> Candidate:
        """Find the item that a lease is for, and decide all that needs no signature check."""
        old = slots.get((lease.target, lease.item_class))
        candidate = Candidate(old.item if old else _NOTHING, None, lease)
        try:
            self._charge(sender, LEASE_BYTES)
            if old is None or old.digest != lease.digest or old.until <= now_ns // 10**9:
                candidate.outcome = PutOutcome(Outcome.NOT_HELD, seq_of(old))
                return candidate
            candidate.old, candidate.is_held = old, True
            item_class = self._judge.check_lease(old.item, lease, now_ns)
            if lease.until <= old.until:
                candidate.outcome = PutOutcome(Outcome.HELD, seq_of(old))
            candidate.claim = Claim(old.item, item_class, old.target, lease)
        except ItemError as error:
            candidate.refuse(error)
        return candidate

    async def _apply_leases(self, chunk: Sequence[Candidate], now_ns: int) -> None:
        """Store the leases of candidates whose item is stored; a lease that came alone decides."""
        with_lease = [(c, c.claim.lease) for c in chunk if c.claim and c.claim.lease]
        if not with_lease:
            return
        results = await self._store.renew([lease for _, lease in with_lease], now_ns)
        if any(outcome.code == Outcome.RENEWED for outcome in results):
            self._touch()
        for (candidate, _), outcome in zip(with_lease, results, strict=True):
            before = candidate.outcome
            if before is None or (before.code == Outcome.HELD and outcome.accepted):
                candidate.outcome = outcome

    # --- telling ---------------------------------------------------------------------------------

    def _told(self, chunk: Sequence[Candidate], sender: bytes) -> list[PutOutcome]:
        outcomes = [c.outcome for c in chunk if c.outcome is not None]
        codes = Counter([outcome.code for outcome in outcomes])
        for code, count in codes.items():
            self._counters[outcome_name(code)] += count
        if max(codes) > Outcome.NOT_HELD and self._clock.now() >= self._log_after:
            self._log_refusals(outcomes, sender)
        return outcomes

    def _log_refusals(self, outcomes: Sequence[PutOutcome], sender: bytes) -> None:
        refused = [o for o in outcomes if o.code >= ItemError.code or o.code in _FORGED]
        if refused:
            self._log_after = self._clock.now() + LOG_REFUSALS_S
            first = refused[0]
            log.info(
                "refused items sender=%s count=%d first=%s reason=%r",
                short(sender),
                len(refused),
                outcome_name(first.code),
                first.text,
            )


_FORGED = frozenset({205, 206, 207, 303})
"""Refusals below 400 that nobody meets in good faith; 301 and 302 are everyday."""
_NOTHING = MutableItem(b"", b"", b"", 0, int(Kind.VALUE), 0, b"")

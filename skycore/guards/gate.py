"""The gate: every item enters and leaves the store through here, whichever way it came.

Why one gate: a put, a batch, a sync page, an import and a mirror are five ways to the same store,
and a rule that one of them skips is no rule (C1, C7). The judge says what may be believed, the
quotas what there is room for; the gate asks them in order, keeps the event loop free, and tells the
truth about each item (C15). The rules: docs/protocols/items.md.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import anyio
import anyio.lowlevel

from skycore.contracts.namespace import Namespaces
from skycore.contracts.runtime import Clock, Identity, Workers
from skycore.contracts.store import (
    Items,
    ItemStore,
    Outcome,
    PutOutcome,
)
from skycore.errors import ItemError, PluginError, QuotaError, SeqTooLowError, StoreError
from skycore.events import Events
from skycore.guards.admission import Candidate, Prover, outcome_name, seq_of
from skycore.guards.blocks import PendingBlocks
from skycore.guards.heads import Heads
from skycore.guards.judge import Claim, Judge
from skycore.guards.quota import GateSettings, Quotas
from skycore.guards.reading import StoreFace
from skycore.guards.shared import SharedStore
from skycore.guards.storing import Storer
from skycore.guards.trees import Trees
from skycore.model.blocks import block_id
from skycore.model.items import Kind, Lease, MutableItem, RankedItem, StoredItem
from skycore.model.keys import short
from skycore.model.limits import BLOCK_MAX, ENTRY_BYTES, LEASE_LIFETIME_MAX_S
from skycore.model.manifest import read_manifest
from skycore.tasks import every

__all__ = ["Gate", "GateSettings", "open_gate"]

log = logging.getLogger(__name__)
CHUNK_ITEMS = 512
LEASE_BYTES = 150
LOG_REFUSALS_S = 60.0
CHUNK_TREE_BYTES = 8 * 1024 * 1024
"""A chunk ends where the manifests in it stand for more: their blocks are in memory at once."""
HASHED_AT_ONCE = 128
"""Blocks hashed between two breaths of the event loop: about 2 ms."""


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
    prover = Prover(judge, workers)
    trees = Trees(store, namespaces, workers)
    pending = PendingBlocks(
        settings.sender_pending_bytes_max, settings.pending_bytes_max, identity.public
    )
    heads = Heads(store, namespaces, quotas, pending, workers, clock)
    watching = store.watch()
    if watching is not None:
        store = SharedStore(store, judge, prover, heads, clock)
    storer = Storer(store, quotas, heads, clock, identity.public)
    gate = Gate(store, judge, quotas, prover, trees, heads, storer, clock)
    try:
        await storer.count()
    except StoreError as trouble:  # a server that is down comes back; each sweep counts again
        log.warning("what is held is not counted yet error=%r", str(trouble))
    async with anyio.create_task_group() as tasks:
        if watching is not None:
            tasks.start_soon(_follow, watching, storer)
        tasks.start_soon(
            partial(every, settings.sweep_interval_s, gate.sweep, name="sweep", at_once=False)
        )
        yield gate
        tasks.cancel_scope.cancel()


async def _follow(
    watching: AbstractAsyncContextManager[AsyncIterator[None]], storer: Storer
) -> None:
    """Tell those who wait for changes of what others wrote, too (C35, L4)."""
    async with watching as news:
        async for _ in news:
            storer.touch()


class Gate(StoreFace):
    """Items, judged once for all: the only holder of the node's ItemStore."""

    def __init__(
        self,
        store: ItemStore,
        judge: Judge,
        quotas: Quotas,
        prover: Prover,
        trees: Trees,
        heads: Heads,
        storer: Storer,
        clock: Clock,
    ) -> None:
        super().__init__(store, clock, trees, storer)
        self._heads = heads
        self._judge = judge
        self._quotas = quotas
        self._prover = prover
        self._counters: Counter[str] = Counter()
        self._log_after = clock.now()

    @property
    def counters(self) -> Mapping[str, int]:
        """How many puts and leases ended how, since the start, and what left: by name."""
        others = self._store.counters if isinstance(self._store, SharedStore) else {}
        return {**self._counters, **self._storer.counters, **others}

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
        given = await self._take_in(blocks, sender) if blocks else {}
        for start, end in _chunks(items):
            chunk = [
                Candidate(items[i], cas[i] if cas else None, leases[i] if leases else None)
                for i in range(start, end)
            ]
            await self._admit_chunk(chunk, sender, given)
            outcomes += self._told(chunk, sender)
        return outcomes

    async def _take_in(self, blocks: Sequence[bytes], sender: bytes) -> dict[bytes, bytes] | None:
        """Return blocks by their ids; None where the sender may hand in no more for now."""
        if not self._quotas.take(sender, sum(map(len, blocks)), self._clock.now()):
            return None
        given: dict[bytes, bytes] = {}
        for number, block in enumerate(blocks, 1):
            if len(block) <= BLOCK_MAX:
                given[block_id(block)] = block
            if number % HASHED_AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
        return given

    async def _admit_chunk(
        self, chunk: Sequence[Candidate], sender: bytes, given: Mapping[bytes, bytes] | None
    ) -> None:
        now_ns, now = self._clock.wall_ns(), self._clock.now()
        size = sum(len(candidate.item.v) for candidate in chunk) + ENTRY_BYTES * len(chunk)
        is_paid = self._quotas.take(sender, size, now)  # else as far as it goes, one by one
        for candidate in chunk:
            self._look(candidate, now_ns, None if is_paid else sender)
        await self._recognise([c for c in chunk if c.is_open])
        await self._prover.prove([c for c in chunk if c.is_open], sender, now_ns)
        heads = [c for c in chunk if c.item.kind == Kind.MANIFEST]
        if heads:
            await self._heads.complete([c for c in heads if c.is_open], given, sender)
        await self._storer.put([c for c in chunk if c.is_open and c.ranked])
        if heads:
            self._heads.settle(heads, sender)
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
        results = await self._storer.renew([lease for _, lease in with_lease], now_ns)
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


def _chunks(items: Sequence[MutableItem]) -> Iterator[tuple[int, int]]:
    """Yield stretches that are judged and stored together."""
    start = size = 0
    for number, item in enumerate(items):
        more = _tree_bytes(item) if item.kind == Kind.MANIFEST else 0
        if number - start == CHUNK_ITEMS or (number > start and size + more > CHUNK_TREE_BYTES):
            yield start, number
            start, size = number, 0
        size += more
    if items:
        yield start, len(items)


def _tree_bytes(item: MutableItem) -> int:
    try:
        return read_manifest(item.v).bytes
    except ItemError:
        return 0  # refused later, by name


_FORGED = frozenset({205, 206, 207, 303})
"""Refusals below 400 that nobody meets in good faith; 301 and 302 are everyday."""
_NOTHING = MutableItem(b"", b"", b"", 0, int(Kind.VALUE), 0, b"")

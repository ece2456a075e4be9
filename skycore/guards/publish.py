"""The publisher: the one way facts leave this node.

Why one: it alone stamps seq (C13, C14), it alone knows what was published before and therefore
signs nothing twice (C27), and it tells the truth about who has a fact now (C15). Where facts go is
not its business: to every mirror that is up, or, with none, into our own store.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import anyio.lowlevel
from pydantic import Field

from skycore.contracts.dht import Mirror, PutReport, RenewingMirror
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Fact, Published, Publisher
from skycore.contracts.runtime import Clock, Files, Identity
from skycore.contracts.settings import PluginSettings
from skycore.contracts.store import ItemKey, Items, PutOutcome
from skycore.errors import ConfigError, ItemError, SkycoreError
from skycore.guards.facts import Plan, Planner, Step
from skycore.guards.ownstore import OwnStore
from skycore.guards.published import PublishedRecords
from skycore.guards.stamp import SeqSource, beaten_by, is_too_far
from skycore.model.delegation_token import decode_delegation
from skycore.model.items import Delegation, MutableItem
from skycore.model.keys import short
from skycore.model.trie import Tree
from skycore.wiring import Live

__all__ = ["PublisherSettings", "open_publisher"]

M = TypeVar("M", bound=Mirror)
log = logging.getLogger(__name__)
BATCH_ITEMS = 1_024
SIGNED_AT_ONCE = 64
FIRST_ERROR_CODE = 200
PART_BYTES = 16 * 1024 * 1024
"""Bytes of values in one call of a mirror, unless one value alone has more."""


class PublisherSettings(PluginSettings):
    """What this node may publish for others."""

    delegations: tuple[str, ...] = ()
    """Delegation tokens, as `skynode network delegate` prints them: other subjects to sign for."""
    records_max: int = Field(default=100_000, ge=0)
    """Published records remembered, so that what has not changed is not signed again; the latest
    20,000 of them over a restart too."""


@asynccontextmanager
async def open_publisher(
    settings: PublisherSettings,
    identity: Identity,
    items: Items,
    mirrors: Live[Mirror],
    namespaces: Namespaces,
    clock: Clock,
    files: Files,
) -> AsyncIterator[Publisher]:
    """Publish under this node's key. Raises `ConfigError` for a delegation that is not ours."""
    delegations = [decode_delegation(text) for text in settings.delegations]
    for token in delegations:
        if token.delegate != identity.public:
            raise ConfigError(
                f"a delegation is for {short(token.delegate)}, and this node is "
                f"{short(identity.public)}",
                hint="see [publisher] delegations",
            )
    planner = Planner(identity, namespaces, delegations)
    records = PublishedRecords(settings.records_max, identity, clock, files)
    own_store = OwnStore(items, identity.public)
    seqs = SeqSource(clock, files)
    try:
        yield _Publisher(items, mirrors, own_store, planner, clock, seqs, records)
    finally:
        records.save(at_end=True)


def _parts(plans: Sequence[Plan]) -> Iterator[Sequence[Plan]]:
    """Yield stretches that a mirror can be handed at once."""
    start, size = 0, 0
    for at, plan in enumerate(plans):
        more = len(plan.fact.v or b"")
        if at > start and (at - start == BATCH_ITEMS or size + more > PART_BYTES):
            yield plans[start:at]
            start, size = at, 0
        size += more
    if plans:
        yield plans[start:]


def _stored(reports: Sequence[PutReport]) -> int:
    return sum(report.stored for report in reports)


class _Publisher:
    def __init__(
        self,
        items: Items,
        mirrors: Live[Mirror],
        own_store: OwnStore,
        planner: Planner,
        clock: Clock,
        seqs: SeqSource,
        records: PublishedRecords,
    ) -> None:
        self._items = items
        self._mirrors = mirrors
        self._own_store = own_store
        self._planner = planner
        self._clock = clock
        self._seqs = seqs
        self._records = records
        self._busy: set[bytes] = set()
        self._freed = anyio.Event()

    def mirrors_until(self, salt: bytes) -> int:
        """Return until when any subject may be spoken for under a salt."""
        return self._planner.mirrors_until(salt)

    async def publish(self, fact: Fact, *, cas: int | None = None) -> Published:
        """Publish one fact."""
        return (await self._publish([fact], (), cas, None))[0]

    async def publish_many(
        self,
        facts: Sequence[Fact],
        *,
        delegations: Sequence[Delegation] = (),
        progress: Callable[[int], None] | None = None,
    ) -> Sequence[Published]:
        """Publish a batch; `delegations` are used besides the configured ones."""
        return await self._publish(facts, delegations, None, progress)

    async def _publish(
        self,
        facts: Sequence[Fact],
        delegations: Sequence[Delegation],
        cas: int | None,
        progress: Callable[[int], None] | None,
    ) -> list[Published]:
        now_s = self._clock.wall_s()
        plans = [self._planner.plan(fact, delegations, now_s) for fact in facts]
        done: list[Published] = []
        async with self._turn({plan.target for plan in plans}):
            planted: dict[bytes, Tree | None] = {}
            for plan in plans:  # nothing is sent before all are known to fit
                record = self._records.get(plan.target)
                if record is None or record.content != plan.content:
                    planted[plan.content] = self._planner.plant(plan)
            for part in _parts(plans):
                done += await self._publish_part(part, planted, cas)
                self._records.save()
                if progress is not None:
                    progress(len(done))
        return done

    @asynccontextmanager
    async def _turn(self, keys: set[bytes]) -> AsyncIterator[None]:
        """Let one publish of a record end before the next begins, or an older one could win."""
        while keys & self._busy:
            await self._freed.wait()
        self._busy |= keys
        try:
            yield
        finally:
            self._busy -= keys
            self._freed.set()
            self._freed = anyio.Event()

    async def _publish_part(
        self, part: Sequence[Plan], planted: Mapping[bytes, Tree | None], cas: int | None
    ) -> list[Published]:
        mirrors: tuple[Mirror, ...] = (*self._mirrors,)
        mirrors = mirrors or (self._own_store,)
        renewing = [mirror for mirror in mirrors if isinstance(mirror, RenewingMirror)]
        names = {mirror.name for mirror in mirrors}
        now_s = self._clock.wall_s()
        done: dict[int, Published] = {}
        leasing = []
        signing: set[bytes] = set()
        for index, plan in enumerate(part):
            record = self._records.get(plan.target)
            step = plan.step(record, names, now_s) if cas is None else Step.SIGN
            if step is Step.SIGN or plan.target in signing:  # an earlier fact changes it
                signing.add(plan.target)
            elif step is Step.NOTHING and record is not None:
                done[index] = Published(record.seq, unchanged=True)
            elif step is Step.LEASE and len(renewing) == len(mirrors):
                leasing.append(index)
        await self._renew(part, leasing, renewing, done)
        trees = {
            index: planted[plan.content] if plan.content in planted else self._planner.plant(plan)
            for index, plan in enumerate(part)
            if index not in done
        }
        await self._sign_and_send(part, trees, mirrors, cas, done)
        return [done[index] for index in range(len(part))]

    async def _renew(
        self,
        part: Sequence[Plan],
        wanted: Sequence[int],
        mirrors: Sequence[RenewingMirror],
        done: dict[int, Published],
    ) -> None:
        """Send leases; what some mirror no longer holds is left undone, to be signed anew."""
        now_s = self._clock.wall_s()
        held = [record for index in wanted if (record := self._records.get(part[index].target))]
        leases = []
        for index, record in zip(wanted, held, strict=True):
            until = part[index].leased_until(record, now_s)
            leases.append(self._planner.lease(part[index], record, until))
        if not leases:
            return
        replies = await self._ask(mirrors, len(leases), lambda mirror: mirror.renew(leases))
        for index, record, lease, reports in zip(wanted, held, leases, replies, strict=True):
            if all(report.stored for report in reports):
                record.until, record.is_confirmed = max(record.until, lease.until), True
                self._records.keep(part[index].target, record)
                done[index] = Published(record.seq, unchanged=True, reports=reports)

    # --- items -----------------------------------------------------------------------------------

    async def _sign_and_send(
        self,
        part: Sequence[Plan],
        wanted: Mapping[int, Tree | None],
        mirrors: Sequence[Mirror],
        cas: int | None,
        done: dict[int, Published],
    ) -> None:
        plans = [part[index] for index in wanted]
        if not plans:
            return
        trees = list(wanted.values())
        above = [record.seq if (record := self._records.get(p.target)) else 0 for p in plans]
        sent = await self._sign(plans, trees, above)
        replies = await self._send(sent, trees, mirrors, cas)
        again = await self._again(plans, sent, replies)
        if again:
            more_trees = [trees[i] for i in again]
            retried = await self._sign([plans[i] for i in again], more_trees, list(again.values()))
            more = await self._send(retried, more_trees, mirrors, cas)
            for index, item, reports in zip(again, retried, more, strict=True):
                if _stored(reports) >= _stored(replies[index]):  # else a liar led us astray
                    sent[index], replies[index] = item, reports
        for index, plan, item, reports in zip(wanted, plans, sent, replies, strict=True):
            self._remember(plan, item, mirrors, reports)
            done[index] = Published(item.seq, unchanged=False, reports=reports)

    async def _sign(
        self, plans: Sequence[Plan], trees: Sequence[Tree | None], above: Sequence[int]
    ) -> list[MutableItem]:
        """Stamp and sign; the loop breathes now and then (a signature takes some 20 µs)."""
        items = []
        for index, (plan, tree, floor) in enumerate(zip(plans, trees, above, strict=True)):
            seq = self._seqs.take(floor)
            now_s = max(self._clock.wall_s(), seq // 10**9)
            items.append(self._planner.sign(plan, tree, seq, now_s))
            if index % SIGNED_AT_ONCE == SIGNED_AT_ONCE - 1:
                await anyio.lowlevel.checkpoint()
        return items

    async def _send(
        self,
        items: Sequence[MutableItem],
        trees: Sequence[Tree | None],
        mirrors: Sequence[Mirror],
        cas: int | None,
    ) -> list[tuple[PutReport, ...]]:
        blocks: Mapping[bytes, bytes] = {k: v for t in trees if t for k, v in t.blocks.items()}
        return await self._ask(
            mirrors, len(items), lambda m: m.mirror(items, cas=cas, blocks=blocks or None)
        )

    async def _again(
        self,
        plans: Sequence[Plan],
        sent: Sequence[MutableItem],
        replies: Sequence[tuple[PutReport, ...]],
    ) -> dict[int, int]:
        """Return which facts to send once more, and above which seq (C13, C14)."""
        again: dict[int, int] = {}
        from_ahead: list[Plan] = []
        for index, (plan, item, reports) in enumerate(zip(plans, sent, replies, strict=True)):
            current = beaten_by(reports, item.seq, self._seqs.horizon_ns)
            if current:
                again[index] = current
            elif self._seqs.is_ahead(item.seq) and is_too_far(reports):
                again[index] = 0
                from_ahead.append(plan)
        if from_ahead:
            log.warning("our clock ran ahead; taking records back count=%d", len(from_ahead))
            self._seqs.come_back()
            await self._items.drop([ItemKey(p.target, int(p.item_class)) for p in from_ahead])
        return again

    def _remember(
        self,
        plan: Plan,
        item: MutableItem,
        mirrors: Sequence[Mirror],
        reports: Sequence[PutReport],
    ) -> None:
        """Keep what is needed to publish nothing next time; only what somebody holds counts."""
        took = frozenset(m.name for m, r in zip(mirrors, reports, strict=True) if r.stored)
        if not took:
            return
        self._records.keep(plan.target, self._planner.record(plan, item, took))

    async def _ask(
        self,
        mirrors: Sequence[M],
        count: int,
        call: Callable[[M], Awaitable[Sequence[PutReport]]],
    ) -> list[tuple[PutReport, ...]]:
        """Ask all mirrors at once; what one of them cannot do is said, and stops no other."""
        columns: list[Sequence[PutReport]] = [()] * len(mirrors)

        async def ask(column: int, mirror: M) -> None:
            try:
                columns[column] = await call(mirror)
                if len(columns[column]) != count:
                    raise SkycoreError(f"answered {len(columns[column])} of {count}")
            except SkycoreError as error:
                log.warning("mirror failed name=%s error=%r", mirror.name, str(error))
                code = error.code if error.code >= FIRST_ERROR_CODE else ItemError.code
                outcome = PutOutcome(code, text=f"{mirror.name}: {error}")
                columns[column] = [PutReport(outcome)] * count
            except Exception as bug:  # a mirror's own bug stops no other
                log.exception("mirror failed name=%s", mirror.name)
                text = f"{mirror.name}: internal error ({type(bug).__name__}); see the node's log"
                columns[column] = [PutReport(PutOutcome(ItemError.code, text=text))] * count

        async with anyio.create_task_group() as tasks:
            for column, mirror in enumerate(mirrors):
                tasks.start_soon(ask, column, mirror)
        return list(zip(*columns, strict=True))

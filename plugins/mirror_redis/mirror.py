"""The mirror: what this node publishes, written into the Redis that full nodes serve.

Why our own gate judges first: its rules are those of every other gate, so what goes to Redis is
what full nodes there will serve. Why a copy in our own store: it can be brought again when Redis
has lost it, with no new signature. Why a queue: a service that publishes must not wait for a Redis
that is away (L22); a report says `queued` where the answer took longer than a moment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import anyio
import anyio.lowlevel
import msgspec

from mirror_redis.link import Link
from mirror_redis.mirror_copies import Copies
from mirror_redis.mirror_ledger import Ledger
from mirror_redis.mirror_queue import Job, Queue, Ticket
from mirror_redis.mirror_settings import RedisMirrorSettings
from mirror_redis.mirror_store import MirrorStore
from mirror_redis.mirror_writer import blocks_of
from skycore.contracts.dht import PutReport, Replica
from skycore.contracts.runtime import Clock
from skycore.contracts.store import ItemKey, Outcome, PutOutcome
from skycore.errors import ItemError, MissingBlocksError, SeqTooLowError, StoreError
from skycore.model.items import Kind, Lease, MutableItem, RankedItem

__all__ = ["NAME", "RedisMirror"]

NAME = "redis"
QUEUED = "queued: {}"
JUDGED_AT_ONCE = 32
"""Items judged between two breaths of the event loop: about 2 ms."""


class RedisMirror:
    """`contracts.dht.RenewingMirror` and `CopyingMirror`, into one Redis."""

    name = NAME

    def __init__(
        self,
        link: Link,
        store: MirrorStore,
        copies: Copies,
        queue: Queue,
        ledger: Ledger,
        own: bytes,
        clock: Clock,
        settings: RedisMirrorSettings,
    ) -> None:
        self._link = link
        self._store = store
        self._copies = copies
        self._queue = queue
        self._ledger = ledger
        self._own = own
        self._clock = clock
        self._grace_s = settings.grace_s
        self._may_follow = settings.copy_s > 0

    async def mirror(
        self,
        items: Sequence[MutableItem],
        *,
        cas: int | None = None,
        progress: Callable[[int], None] | None = None,
        blocks: Mapping[bytes, bytes] | None = None,
    ) -> Sequence[PutReport]:
        """Bring items there: at once where Redis answers soon, else as soon as it does.

        With `cas` Redis is asked before anybody, and nothing is queued: where it is away nobody
        can tell whether the expectation holds.
        """
        given = blocks or {}
        if cas is not None:
            reports = [await self._compare_and_set(item, cas, given) for item in items]
        elif self._may_follow and len(items) == 1 and self._is_light(items[0]):
            reports = [await self._straight(items[0])]
        else:
            reports = await self._kept_first(items, given)
        if progress is not None:
            progress(len(items))
        return reports

    async def renew(self, leases: Sequence[Lease]) -> Sequence[PutReport]:
        """Prolong what stands there; what Redis has lost is brought again, signed already."""
        outcomes = await self._copies.renew(leases)
        ticket = Ticket()
        keys = []
        for lease, outcome in zip(leases, outcomes, strict=True):
            key = ItemKey(lease.target, lease.item_class)
            is_wanted = outcome.accepted or outcome.code == Outcome.NOT_HELD
            keys.append(key if is_wanted else None)
            if is_wanted:
                self._ledger.prolong(key, lease.until)
                ticket.expect(key)
                self._queue.put(Job(key, self._clock.now(), lease=lease, tickets=(ticket,)))
        return await self._told(keys, outcomes, ticket)

    async def copied(self) -> None:
        """Return once our own store has all that Redis took. `contracts.dht.CopyingMirror`."""
        await self._copies.catch_up()

    # --- on the way -----------------------------------------------------------------------------

    async def _kept_first(
        self, items: Sequence[MutableItem], given: Mapping[bytes, bytes]
    ) -> list[PutReport]:
        """Keep a batch here, then bring it: one commit for all, and nothing is lost if it waits."""
        outcomes = list(await self._copies.keep(items, given))
        judged: list[tuple[RankedItem, Mapping[bytes, bytes]] | None] = []
        for number, (item, outcome) in enumerate(zip(items, outcomes, strict=True), 1):
            judged.append(None)
            try:
                if outcome.accepted:
                    judged[-1] = self._copies.judge(item), await self._all_blocks(item, given)
            except ItemError as error:  # a newer one took its place meanwhile, or it has ended
                outcomes[number - 1] = PutOutcome(error.code, text=str(error))
            if number % JUDGED_AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
        ticket = Ticket()  # all of them at once, so that they are one batch
        keys = [None if one is None else self._enqueue(*one, ticket) for one in judged]
        return await self._told(keys, outcomes, ticket)

    async def _all_blocks(
        self, item: MutableItem, given: Mapping[bytes, bytes]
    ) -> Mapping[bytes, bytes]:
        try:
            return blocks_of(item, given)
        except MissingBlocksError:  # our own store had the others
            return await self._copies.tree(item)

    def _is_light(self, item: MutableItem) -> bool:
        return item.kind != Kind.MANIFEST and self._link.is_usable

    async def _straight(self, item: MutableItem) -> PutReport:
        """Bring one item; our own copy follows with others. If Redis does not take it, it is first.

        Else each change of a service would cost a commit of its own (C30).
        """
        try:
            ranked = self._copies.judge(item)
        except ItemError as error:
            return PutReport(PutOutcome(error.code, text=str(error)))
        ticket = Ticket()
        key = self._enqueue(ranked, {}, ticket)
        with anyio.move_on_after(self._grace_s):
            await ticket.done.wait()
        there = ticket.outcomes.get(key)
        replica = self._replica(there)
        if there is not None and there.accepted:
            self._copies.follow(key, item)
            outcome = PutOutcome(Outcome.NOT_HELD, text="this node's own copy follows")
        elif there is not None and there.code == SeqTooLowError.code:
            outcome = there
        else:
            [outcome] = await self._copies.keep([item], {})
        return PutReport(outcome, (replica,))

    def _enqueue(
        self, ranked: RankedItem, blocks: Mapping[bytes, bytes], ticket: Ticket
    ) -> ItemKey:
        key = ItemKey(ranked.target, ranked.item_class)
        self._ledger.note(key, ranked.rank, ranked.item.until)
        ticket.expect(key)
        ranked = msgspec.structs.replace(ranked, sender=self._own, refs=tuple(blocks))
        self._queue.put(Job(key, self._clock.now(), ranked, blocks, tickets=(ticket,)))
        return key

    async def _told(
        self, keys: Sequence[ItemKey | None], outcomes: Sequence[PutOutcome], ticket: Ticket
    ) -> list[PutReport]:
        """Wait a moment; say what is known by then."""
        if self._link.is_usable and any(keys):
            with anyio.move_on_after(self._grace_s):
                await ticket.done.wait()
        return [
            PutReport(outcome, (self._replica(ticket.outcomes.get(key)),) if key else ())
            for key, outcome in zip(keys, outcomes, strict=True)
        ]

    def _replica(self, outcome: PutOutcome | None) -> Replica:
        if outcome is None:
            why = self._link.trouble or "Redis has not answered yet"
            return Replica(NAME.encode(), int(Outcome.NOT_HELD), text=QUEUED.format(why))
        return Replica(NAME.encode(), outcome.code, outcome.seq, outcome.text)

    # --- cas ------------------------------------------------------------------------------------

    async def _compare_and_set(
        self, item: MutableItem, cas: int, given: Mapping[bytes, bytes]
    ) -> PutReport:
        try:
            ranked, blocks = self._judged(item, given)
            ranked = msgspec.structs.replace(ranked, cas=cas)
            [there] = await self._store.put_many([ranked], blocks)
        except ItemError as error:
            return PutReport(PutOutcome(error.code, text=str(error)))
        except StoreError as error:  # its code says nothing of an item
            return PutReport(PutOutcome(ItemError.code, text=str(error)))
        if not there.accepted:
            return PutReport(there, (self._replica(there),))
        [outcome] = await self._copies.keep([item], given)
        if outcome.accepted:
            self._ledger.note(ItemKey(ranked.target, ranked.item_class), ranked.rank, item.until)
        return PutReport(outcome, (self._replica(there),))

    def _judged(
        self, item: MutableItem, given: Mapping[bytes, bytes]
    ) -> tuple[RankedItem, Mapping[bytes, bytes]]:
        """Judge an item as the gate would, its blocks included. Raises `ItemError`s."""
        ranked = self._copies.judge(item)
        blocks = blocks_of(item, given)
        if blocks:
            self._copies.assemble(item, blocks)
        return msgspec.structs.replace(ranked, sender=self._own, refs=tuple(blocks)), blocks

"""Bringing a node's own records again into a Redis that lost them: emptied, restored, failed over.

Why at once for every other store, and not after a look at what it lacks: Redis compares ranks
itself, so what it has kept costs one line of a batch, and what it has lost is there again (M8).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence

import anyio

from mirror_redis.own import OwnRecord, OwnRecords
from mirror_redis.puts import PART_BYTES_MAX, PART_ITEMS_MAX
from mirror_redis.store import RedisStore
from skycore.contracts.runtime import Clock, Identity
from skycore.contracts.store import ItemKey, Outcome, PutOutcome
from skycore.errors import QuotaError, StoreError, StoreFullError
from skycore.model.items import (
    ItemClass,
    Lease,
    MutableItem,
    RankedItem,
    StoredItem,
    account_of,
    item_digest,
    item_rank,
    item_signed_bytes,
    lease_bytes,
)

__all__ = ["Bringer"]

log = logging.getLogger(__name__)
LISTED_AT_ONCE = 512
_TOP = b"\xff" * 32


class Bringer:
    """Remembers at the start what Redis has of ours; brings it again where another store is."""

    def __init__(
        self, store: RedisStore, own: OwnRecords, identity: Identity, clock: Clock
    ) -> None:
        self._store = store
        self._own = own
        self._identity = identity
        self._clock = clock
        self._retry_s = store.link.settings.retry_s

    async def run(self) -> None:
        """Go on until cancelled; what Redis cannot do now is tried again."""
        moved = self._store.moved
        await self._until_done(self._recall)
        while True:
            await moved.wait()
            moved = self._store.moved
            self._own.is_bringing = bool(len(self._own))
            await self._until_done(self._bring)
            self._own.is_bringing = False

    async def _until_done(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                return await work()
            except StoreError:  # which one, the status says
                await anyio.sleep(self._retry_s)

    async def _recall(self) -> None:
        """Remember what is there of ours from before we began."""
        public = self._identity.public
        accounts = [account_of(public, c) for c in (ItemClass.OWNER, ItemClass.MIRROR)]
        count = sum(used.items for used in await self._store.signer_usage(accounts))
        met: set[ItemKey] = set()  # a page begins with the target that the last one ended with
        low = bytes(32)
        while len(met) < count:
            rows = await self._store.listing(None, low, _TOP, LISTED_AT_ONCE)
            for row in rows:
                if self._own.is_ours(row.item) and self._is_signed(row):
                    met.add(ItemKey(row.target, row.item_class))
                    await self._own.note(_as_put(row, public), {}, self._store.blocks)
                    if row.lease is not None and self._is_lease(row, row.lease):
                        self._own.prolong(row.lease)
            if len(rows) < LISTED_AT_ONCE:
                return
            low = rows[-1].target

    def _is_signed(self, row: StoredItem) -> bool:
        """Others can write to Redis: what they forged must not be brought again by us.

        Nor what we signed, in a slot or with a rank that are not its own: nothing newer of ours
        would ever come in there.
        """
        network, item = self._identity.network, row.item
        signed = item_signed_bytes(network, item)
        token = item.delegation
        rank = item_rank(item.seq, signed, item.sig + (token.sig if token else b""))
        is_its_own = (row.target, row.item_class, row.rank, row.digest) == (
            item.target, _class_of(item), rank, item_digest(signed),
        )  # fmt: skip
        return is_its_own and network.suite.verify(self._identity.public, signed, item.sig)

    def _is_lease(self, row: StoredItem, lease: Lease) -> bool:
        network = self._identity.network
        is_its_own = (lease.target, lease.item_class) == (row.target, row.item_class)
        said = lease_bytes(network, lease.digest, lease.until)
        return is_its_own and network.suite.verify(self._identity.public, said, lease.sig)

    async def _bring(self) -> None:
        records = self._own.living(self._clock.wall_s())
        brought = 0
        for part in _parts(records):
            blocks = {name: data for record in part for name, data in record.blocks.items()}
            outcomes = await self._store.put_many([record.ranked for record in part], blocks)
            _raise_full(outcomes)
            brought += sum(outcome.code == Outcome.STORED for outcome in outcomes)
            leases = [record.lease for record in part if record.lease is not None]
            if leases:
                _raise_full(await self._store.renew(leases, self._clock.wall_ns()))
        if brought:
            self._own.brought += brought
            self._store.news.ring()
            log.warning("redis lacked records of ours, brought them count=%d", brought)


def _parts(records: Sequence[OwnRecord]) -> Iterator[Sequence[OwnRecord]]:
    start = size = 0
    for at, record in enumerate(records):
        is_full = at - start == PART_ITEMS_MAX or size + record.size > PART_BYTES_MAX
        if at > start and is_full:
            yield records[start:at]
            start, size = at, 0
        size += record.size
    if records:
        yield records[start:]


def _class_of(item: MutableItem) -> ItemClass:
    """Return by what right we signed an item."""
    if item.signer == item.subject:
        return ItemClass.OWNER
    token = item.delegation
    is_delegate = token is not None and token.issuer == item.subject
    return ItemClass.DELEGATE if is_delegate else ItemClass.MIRROR


def _as_put(row: StoredItem, own: bytes) -> RankedItem:
    return RankedItem(
        row.target, row.item_class, row.rank, row.digest, row.item, own, row.stored_ns
    )


def _raise_full(outcomes: Sequence[PutOutcome]) -> None:
    for outcome in outcomes:
        if outcome.code == QuotaError.code:
            raise StoreFullError(outcome.text)

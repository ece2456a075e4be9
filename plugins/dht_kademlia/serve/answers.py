"""What a node answers to each method of the DHT, whoever asks and over whatever stream.

Who asks is the stream's authenticated key; nothing in a request names its sender (C4).
"""

from __future__ import annotations

from collections.abc import Sequence

from dht_kademlia.core.messages import (
    FEATURES,
    VERSION,
    Batch,
    Blocks,
    ErrorCode,
    FindNode,
    GetBlocks,
    GetItems,
    GetValue,
    ItemLease,
    Message,
    Nodes,
    Outcomes,
    Page,
    Pong,
    PutValue,
    Reconcile,
    Stored,
    Value,
    known_rank,
)
from dht_kademlia.node import Kademlia
from dht_kademlia.serve.blocks import blocks_below, blocks_of
from dht_kademlia.serve.ranges import answer_ranges
from skycore.contracts.store import ChangeFilter, PutOutcome
from skycore.errors import CursorInvalidError, NotClosestError, RemoteProtocolError
from skycore.model.items import Cursor, Kind, Lease, MutableItem
from skycore.model.limits import (
    BLOCKS_BYTES_MAX,
    MISSING_MAX,
    PAGE_BYTES_MAX,
    PAGE_ITEMS_MAX,
    SEQ_MAX,
)

__all__ = ["Answers"]

BATCH_MISSING_MAX = 16 * MISSING_MAX
"""Hashes of missing blocks that one answer to a batch names, at 34 bytes each."""


class Answers:
    """Answers the requests of other nodes."""

    def __init__(self, node: Kademlia) -> None:
        self._node = node

    async def to(self, peer: bytes, request: Message) -> Message:
        """Return the reply. Raises `RemoteProtocolError`, `ItemError`, `StoreError`."""
        match request:
            case GetValue():
                return await self._get_value(request)
            case FindNode():
                return Nodes(self._node.near(_number(request.target)))
            case PutValue():
                return (await self._put(peer, (request,)))[0]
            case Batch():
                return Outcomes(_brief(await self._put(peer, request.puts)))
            case GetItems():
                return await self._get_items(request)
            case GetBlocks():
                blocks = await blocks_below(
                    self._node.items, request.hashes, deep=request.deep, bytes_max=BLOCKS_BYTES_MAX
                )
                return Blocks(tuple(blocks))
            case Reconcile():
                return await answer_ranges(self._node.items, request)
            case _:
                return await self._pong()

    async def _pong(self) -> Pong:
        usage = await self._node.items.usage()
        count = sum(used.items for used in usage.values())
        return Pong(VERSION, FEATURES, self._node.mode.value, count)

    async def _get_value(self, request: GetValue) -> Value:
        target = _number(request.target)
        held = False
        items: list[MutableItem] = []
        leases: list[ItemLease] = []
        for stored in await self._node.items.get(request.target):
            mine = known_rank(stored.item_class, stored.rank)
            if mine == request.known:
                held = True
            elif mine > request.known:
                if stored.lease:
                    leases.append(ItemLease(len(items), stored.lease))
                items.append(stored.item)
        room = max(0, min(request.blocks_bytes_max, BLOCKS_BYTES_MAX))
        heads = room and any(item.kind == Kind.MANIFEST for item in items)
        blocks = await blocks_of(self._node.items, items, room) if heads else ()
        return Value(tuple(items), self._node.near(target), held, tuple(leases), tuple(blocks))

    async def _put(self, peer: bytes, puts: Sequence[PutValue]) -> list[Stored]:
        """Admit what lies near in one go; leases alone are renewals."""
        answers: list[Stored | None] = [None] * len(puts)
        items: list[tuple[int, MutableItem]] = []
        leases: list[tuple[int, Lease]] = []
        for index, put in enumerate(puts):
            if put.item is None:
                if put.lease is None:
                    raise RemoteProtocolError("a put without an item and without a lease")
                leases.append((index, put.lease))
            elif self._node.keeps(put.item.target):
                items.append((index, put.item))
            else:
                self._node.stats.refused[NotClosestError.code] += 1
                answers[index] = Stored(NotClosestError.code, 0, str(NotClosestError()))
        if items:
            outcomes = await self._node.items.admit(
                [item for _, item in items],
                sender=peer,
                cas=[puts[index].cas for index, _ in items],
                blocks=[block for put in puts for block in put.blocks],
                leases=[puts[index].lease for index, _ in items],
            )
            for (index, item), outcome in zip(items, outcomes, strict=True):
                answers[index] = self._stored(outcome)
                if outcome.accepted:
                    self._node.credit(item, peer)
        if leases:
            renewed = await self._node.items.renew([lease for _, lease in leases], sender=peer)
            for (index, _), outcome in zip(leases, renewed, strict=True):
                answers[index] = self._stored(outcome)
        return [answer or Stored(ErrorCode.SERVER) for answer in answers]

    def _stored(self, outcome: PutOutcome) -> Stored:
        if not outcome.accepted:
            self._node.stats.refused[outcome.code] += 1
        return Stored(outcome.code, outcome.seq, outcome.text[:200], outcome.missing)

    async def _get_items(self, request: GetItems) -> Page:
        limit = max(1, min(request.limit, PAGE_ITEMS_MAX))
        bytes_max = max(1, min(request.bytes_max, PAGE_BYTES_MAX))
        after = Cursor.decode(request.cursor) if request.cursor else None
        if request.cursor and after is None:
            raise CursorInvalidError("a cursor has 24 bytes")
        since = max(0, min(request.since_seq, SEQ_MAX))
        wanted = ChangeFilter(request.salt, request.subject, since)
        page = await self._node.items.changes(after, wanted, limit, bytes_max)
        seen = after.position if after else -1
        fresh = [e for e in page.entries if e.item_position > seen]
        return Page(
            tuple(e.item for e in fresh),
            tuple(e.lease for e in page.entries if e.lease and e.item_position <= seen),
            page.has_more,
            page.cursor.encode(),
            tuple(ItemLease(at, e.lease) for at, e in enumerate(fresh) if e.lease),
        )


def _brief(answers: Sequence[Stored]) -> tuple[Stored, ...]:
    """Cut the names of missing blocks to what a reply holds, one of each put at least."""
    left = BATCH_MISSING_MAX
    brief = []
    for answer in answers:
        if answer.missing:
            named = answer.missing[: max(1, left)]
            left -= len(named)
            answer = Stored(answer.code, answer.seq, answer.text, named)
        brief.append(answer)
    return tuple(brief)


def _number(target: bytes) -> int:
    if len(target) != 32:
        raise RemoteProtocolError(f"a target has 32 bytes, this has {len(target)}")
    return int.from_bytes(target, "big")

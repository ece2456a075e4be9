"""Sending puts to one node: items, leases, and the blocks that the node lacks.

Why one place: a put, a batch, repair, hints and reconcile all end in "bring this to that node", and
each must send as few blocks as possible, tell the truth about each item (O25), and give up on a
node that asks for ever. First goes the head with the blocks that the node probably lacks; then what
it names, with everything below that (docs/protocols/dht.md, "Put").
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import anyio
import msgspec

from dht_kademlia.client import Meter
from dht_kademlia.core.crates import Crate, fill
from dht_kademlia.core.messages import (
    BATCH_ITEMS_MAX,
    Batch,
    ErrorCode,
    Outcomes,
    PutValue,
    Stored,
)
from dht_kademlia.node import Kademlia
from skycore.contracts.store import Outcome
from skycore.errors import (
    ItemError,
    MissingBlocksError,
    NamespaceError,
    ProtocolError,
    RemoteProtocolError,
    ReplyError,
    StoreError,
    TransportError,
)
from skycore.model.addresses import Contact
from skycore.model.items import Kind, Lease, MutableItem
from skycore.model.limits import (
    BLOCKS_BYTES_MAX,
    CALL_TIMEOUT_S,
    ENTRY_BYTES,
    MISSING_MAX,
    PAGE_TIMEOUT_S,
)
from skycore.model.numbers import DhtMethod
from skycore.model.trie import reach, read_manifest

__all__ = ["PASSING", "Cargo", "carry", "push"]

BATCH_BYTES_MAX: Final = 512 * 1024
FIRST_BYTES_MAX: Final = 512 * 1024
"""Bytes of blocks that go with a head unasked."""
ROUNDS_MAX: Final = 64
HEAVY_AT_ONCE: Final = 8
"""Nodes that are sent megabytes of blocks at a time; each message is held here until it left."""
TREES_BYTES_MAX: Final = 64 * 1024 * 1024
TEXT_MAX: Final = 200
PASSING: Final = frozenset(
    {
        Outcome.MISSING_BLOCKS,
        Outcome.NOT_HELD,
        ErrorCode.GENERIC,
        ErrorCode.SERVER,
        ErrorCode.NO_ANSWER,
        ErrorCode.BUSY,
    }
)
"""What a node says now and perhaps not the next time."""

_UNFINISHED: Final = frozenset({Outcome.MISSING_BLOCKS, Outcome.NOT_HELD})

Told = Callable[[int, Stored], None]
Slot = tuple[bytes, bytes]


class Cargo:
    """Puts on their way to one node or many: the blocks below them are found once for all."""

    def __init__(
        self,
        node: Kademlia,
        loads: Sequence[PutValue],
        blocks: Mapping[bytes, bytes] | None = None,
        *,
        lean: bool = False,
    ) -> None:
        self.node = node
        self.loads = loads
        self.lean = lean
        self.heavy = anyio.Semaphore(HEAVY_AT_ONCE)
        self._given = blocks or {}
        self._trees: dict[int, Mapping[bytes, bytes]] = {}
        self._bytes = 0
        self._first: dict[int, tuple[bytes, ...]] = {}
        self._frame: tuple[PutValue, bytes] | None = None

    async def tree(self, index: int) -> Mapping[bytes, bytes]:
        """Return the blocks of an item's value, parents first; none for one that stands inline.

        Raises `MissingBlocksError`, `NamespaceError`.
        """
        item = self.loads[index].item
        if item is None or item.kind != Kind.MANIFEST:
            return {}
        held = self._trees.get(index)
        if held is None:
            held = self.given(item) or await self.node.items.tree(item)
            self._trees[index] = held
            self._bytes += sum(map(len, held.values()))
            while self._bytes > TREES_BYTES_MAX and len(self._trees) > 1:
                gone = self._trees.pop(next(iter(self._trees)))
                self._bytes -= sum(map(len, gone.values()))
        return held

    def given(self, item: MutableItem) -> Mapping[bytes, bytes]:
        """Return the blocks of a manifest, if the caller gave all of them."""
        if not self._given or item.kind != Kind.MANIFEST:
            return {}
        try:
            refs, missing = reach(read_manifest(item.v).root, self._given.get, 1)
        except NamespaceError:
            return {}  # the gate says what is wrong with it
        return {} if missing else {name: self._given[name] for name in refs}

    async def bytes_below(self, index: int) -> int:
        """Return how large an item's blocks are together; 0 where they are not here."""
        try:
            return sum(map(len, (await self.tree(index)).values()))
        except ItemError:
            return 0

    async def note_before(self, item: MutableItem) -> None:
        """Look up what the last version stood on, before our own store gets this one."""
        slot = _slot(item)
        if self.node.sent.known(slot, item.sig) is not None:
            return
        for stored in await self.node.items.get(item.target):
            old = stored.item
            if old.kind == Kind.MANIFEST and old.signer == item.signer and old != item:
                try:
                    refs = frozenset(await self.node.items.tree(old))
                except MissingBlocksError:
                    continue
                self.node.sent.note(slot, old.sig, frozenset(), refs)

    async def dressed(self, index: int) -> tuple[PutValue, int]:
        """Return a put with the blocks that go with it unasked, and its size in bytes."""
        load = self.loads[index]
        if load.item is None:
            return load, 2 * ENTRY_BYTES
        size = 2 * ENTRY_BYTES + len(load.item.v)
        if load.item.kind != Kind.MANIFEST or self.lean:
            return load, size
        try:
            tree = await self.tree(index)
        except ItemError:
            return load, size  # whoever has them need not ask; to others `_Delivery` says it
        blocks = tuple(tree[name] for name in self._firsts(index, load.item, tree))
        return msgspec.structs.replace(load, blocks=blocks), size + sum(map(len, blocks))

    def _firsts(
        self, index: int, item: MutableItem, tree: Mapping[bytes, bytes]
    ) -> tuple[bytes, ...]:
        first = self._first.get(index)
        if first is None:
            sent, slot = self.node.sent, _slot(item)
            known = sent.known(slot, item.sig) or frozenset()
            sent.note(slot, item.sig, known, frozenset(tree))
            first = self._first[index] = fill(tree, known, FIRST_BYTES_MAX)
        return first

    async def crate(self, index: int) -> Crate:
        """Return what is left to send of a value. Raises `MissingBlocksError`."""
        return Crate(await self.tree(index), self._first.get(index, ()), lean=self.lean)

    async def frames(
        self, indexes: Sequence[int]
    ) -> AsyncIterator[tuple[list[int], list[PutValue]]]:
        """Cut a share into what fits a frame, by bytes and by count."""
        part: list[int] = []
        puts: list[PutValue] = []
        size = 0
        for index in indexes:
            put, more = await self.dressed(index)
            if part and (size + more > BATCH_BYTES_MAX or len(part) == BATCH_ITEMS_MAX):
                yield part, puts
                part, puts, size = [], [], 0
            part.append(index)
            puts.append(put)
            size += more
        if part:
            yield part, puts

    def single(self, put: PutValue) -> bytes:
        """Return the frame of one put: one encoding serves twenty nodes."""
        if self._frame is None or self._frame[0] is not put:
            frame = self.node.client.frame(DhtMethod.PUT_VALUE, put)
            if len(self.loads) > 1:
                return frame
            self._frame = (put, frame)
        return self._frame[1]


def _slot(item: MutableItem) -> Slot:
    return item.target, item.signer


class _Delivery:
    """A cargo's share on its way to one node."""

    def __init__(self, cargo: Cargo, contact: Contact, told: Told, meter: Meter) -> None:
        self._cargo = cargo
        self._contact = contact
        self._tell = told
        self._open: dict[int, None] = {}
        """Those of which nothing was told yet."""
        self._meter = meter
        self._trouble: Stored | None = None
        """What ended it: a node that fails once gets no more messages."""
        self._not_held: list[int] = []

    async def run(self, indexes: Sequence[int]) -> None:
        """Send all of it, and tell of each item once, also where our own store fails."""
        self._open = dict.fromkeys(indexes)
        try:
            await self._run(indexes)
        except StoreError as trouble:
            text = f"not sent, our own store failed: {trouble}"[:TEXT_MAX]
            for index in list(self._open):
                self._told(index, Stored(ErrorCode.NO_ANSWER, 0, text))

    def _told(self, index: int, said: Stored) -> None:
        self._open.pop(index, None)
        self._tell(index, said)

    async def _run(self, indexes: Sequence[int]) -> None:
        if len(indexes) == 1:
            await self._run_one(indexes[0])
            return
        async for part, puts in self._cargo.frames(indexes):
            for index, put, said in zip(part, puts, await self._ask(puts), strict=True):
                await self._follow(index, put, said)
        if self._not_held:
            await self._bring_items()

    async def _run_one(self, index: int) -> None:
        """Send a single one: most puts, twenty times each."""
        put = self._cargo.loads[index]
        if put.item is not None and put.item.kind == Kind.MANIFEST:
            put, _ = await self._cargo.dressed(index)
        (said,) = await self._ask((put,))
        if said.code in _UNFINISHED:
            await self._follow(index, put, said)
            if self._not_held:
                await self._bring_items()
        else:
            self._told(index, said)

    async def _follow(self, index: int, put: PutValue, said: Stored) -> None:
        if said.code == Outcome.MISSING_BLOCKS and put.item is not None:
            said = await self._bring_blocks(index, put, said)
        elif said.code == Outcome.NOT_HELD and put.item is None:
            self._not_held.append(index)
            return
        self._told(index, said)

    async def _ask(self, puts: Sequence[PutValue]) -> Sequence[Stored]:
        """Send one message, and return an answer for each put, whatever happens."""
        if self._trouble is None:
            try:
                return await self._exchange(puts)
            except ReplyError as refused:
                code = max(refused.code, ErrorCode.GENERIC)
                self._trouble = Stored(code, 0, str(refused)[:TEXT_MAX])
            except (TransportError, ProtocolError) as failed:
                text = str(failed)[:TEXT_MAX] or "failed"
                self._trouble = Stored(ErrorCode.NO_ANSWER, 0, text)
        return [self._trouble] * len(puts)

    async def _exchange(self, puts: Sequence[PutValue]) -> Sequence[Stored]:
        node = self._cargo.node
        plain = len(puts) == 1 and not puts[0].blocks
        method = DhtMethod.PUT_VALUE if len(puts) == 1 else DhtMethod.PUT_BATCH
        if len(puts) == 1:
            frame = self._cargo.single(puts[0])
        else:
            frame = node.client.frame(method, Batch(tuple(puts)))
        reply = await node.send(
            self._contact,
            method,
            frame,
            timeout_s=CALL_TIMEOUT_S if plain else PAGE_TIMEOUT_S,
            meter=self._meter,
        )
        assert isinstance(reply, Outcomes | Stored)
        answers = reply.outcomes if isinstance(reply, Outcomes) else (reply,)
        if len(answers) != len(puts):
            raise RemoteProtocolError(f"{len(answers)} outcomes for {len(puts)} items")
        return [said if not (said.text or said.missing) else _bounded(said) for said in answers]

    async def _bring_blocks(self, index: int, put: PutValue, said: Stored) -> Stored:
        """Send what the node names, with what is below that, until it has the whole or refuses."""
        try:
            crate = await self._cargo.crate(index)
            for _ in range(ROUNDS_MAX):
                async with self._cargo.heavy:
                    blocks = tuple(crate.next(said.missing, BLOCKS_BYTES_MAX))
                    (said,) = await self._ask([msgspec.structs.replace(put, blocks=blocks)])
                if said.code != Outcome.MISSING_BLOCKS:
                    return said
            text = "it asks for blocks without end"
        except (RemoteProtocolError, ItemError) as bad:
            text = str(bad)
        return Stored(Outcome.MISSING_BLOCKS, said.seq, f"not stored: {text}"[:TEXT_MAX])

    async def _bring_items(self) -> None:
        """Where a lease is for what the node has not, send the item too, if we hold it."""
        revived: dict[int, PutValue] = {}
        for index in self._not_held:
            lease = self._cargo.loads[index].lease
            item = await _held(self._cargo.node, lease) if lease else None
            if item is None:
                self._told(index, Stored(Outcome.NOT_HELD))
            else:
                revived[index] = PutValue(item, lease=lease)
        cargo = Cargo(self._cargo.node, list(revived.values()))
        order = list(revived)
        more = _Delivery(cargo, self._contact, lambda at, s: self._told(order[at], s), self._meter)
        more._trouble = self._trouble
        await more.run(range(len(order)))


def _bounded(said: Stored) -> Stored:
    return Stored(said.code, said.seq, said.text[:TEXT_MAX], said.missing[:MISSING_MAX])


async def _held(node: Kademlia, lease: Lease) -> MutableItem | None:
    for stored in await node.items.get(lease.target):
        if stored.item_class == lease.item_class and stored.digest == lease.digest:
            return stored.item
    return None


def carry(
    cargo: Cargo,
    contact: Contact,
    indexes: Sequence[int],
    told: Told,
    meter: Meter = lambda count: None,
) -> Coroutine[Any, Any, None]:
    """Bring a share of a cargo to one node; `told` hears of each of these once."""
    return _Delivery(cargo, contact, told, meter).run(indexes)


async def push(
    node: Kademlia,
    contact: Contact,
    loads: Sequence[PutValue],
    *,
    blocks: Mapping[bytes, bytes] | None = None,
    lean: bool = False,
    meter: Meter = lambda count: None,
) -> Sequence[Stored]:
    """Bring items or leases to one node; one answer each, in order. Raises nothing remote.

    `blocks` are those of the loads' manifests, by hash; what is not in it comes from our own store.
    `lean`: only the blocks that the node names, for one that holds an older version of most. A node
    that does not answer has code NO_ANSWER from there on, with the reason as text.
    """
    said: dict[int, Stored] = {}
    cargo = Cargo(node, loads, blocks, lean=lean)
    await carry(cargo, contact, range(len(loads)), said.__setitem__, meter)
    return [said[index] for index in range(len(loads))]

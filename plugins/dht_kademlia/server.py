"""Answering other nodes: streams in, replies out, and no peer that can stop it for the others.

Why bounds everywhere: in the original, 129 silent connections made a node deaf (O04). Here every
peer has few streams, silent ones are closed, the longest idle makes room for a newcomer, a request
has a deadline, and answers are paid for from a byte budget per peer (C9, G1). Who asks is the
stream's authenticated key; nothing in a request names its sender (C4).
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Final

import anyio
from anyio.abc import TaskGroup

from dht_kademlia.core.budget import Budget
from dht_kademlia.core.codec import Codec, UnsupportedMethodError
from dht_kademlia.core.messages import (
    FEATURES,
    VERSION,
    Batch,
    ErrorCode,
    ErrorReply,
    FindNode,
    GetItems,
    GetValue,
    ItemLease,
    Message,
    Nodes,
    Outcomes,
    Page,
    Pong,
    PutValue,
    Stored,
    Value,
    known_rank,
)
from dht_kademlia.core.unsent import Unsent
from dht_kademlia.node import Kademlia
from skycore.contracts.store import ChangeFilter, PutOutcome
from skycore.contracts.streams import Stream, StreamListener
from skycore.errors import (
    CursorInvalidError,
    ItemError,
    NotClosestError,
    RemoteProtocolError,
    StoreError,
    TransportError,
)
from skycore.frames import FrameReader
from skycore.logs import LimitedLog
from skycore.model.items import Cursor, Lease, MutableItem
from skycore.model.keys import short
from skycore.model.limits import (
    DHT_FRAME_MAX,
    PAGE_BYTES_MAX,
    PAGE_ITEMS_MAX,
    PAGE_TIMEOUT_S,
    SEQ_MAX,
)
from skycore.model.numbers import DhtMethod

__all__ = ["Server"]

log = logging.getLogger(__name__)

BUDGET_WAIT_MAX_S: Final = 5.0
REAP_S: Final = 5.0
LARGE: Final = 65_536
"""Answers from here on count on `unsent_bytes_max`, bytes."""
REQUEST_S: Final = PAGE_TIMEOUT_S
"""For a whole request: waiting for the budget, the work, and a peer that reads slowly."""


class _Serving:
    """One open stream: until when it may do what it is doing, and how to end it.

    Why a deadline that a reaper looks at, and no time limit around each await: a limit per request
    costs more than a short request itself.
    """

    __slots__ = ("busy", "deadline", "scope", "why")

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.deadline = 0.0
        self.busy = False
        self.why = ""

    def end(self, why: str) -> None:
        """Close the stream."""
        self.why = why
        self.scope.cancel()


class Server:
    """Serves a node's share of the DHT."""

    def __init__(self, node: Kademlia, codec: Codec) -> None:
        self._node = node
        self._codec = codec
        self._budget = Budget(node.settings.peer_bytes_per_s)
        self._unsent: Unsent[_Serving] = Unsent(node.settings.unsent_bytes_max)
        self._open: dict[_Serving, bytes] = {}
        self._by_peer: Counter[bytes] = Counter()
        self._malformed = LimitedLog(log, node.clock.now)

    async def accept(self, listener: StreamListener, tasks: TaskGroup) -> None:
        """Take streams for as long as the node lives."""
        while True:
            stream = await listener.accept()
            tasks.start_soon(self.serve, stream)

    # --- streams ---------------------------------------------------------------------------------

    async def serve(self, stream: Stream) -> None:
        """Answer the requests of one stream until it ends, breaks a rule or falls silent."""
        peer = bytes(stream.remote)
        settings = self._node.settings
        if self._by_peer[peer] >= settings.peer_streams_max:
            log.debug("too many streams peer=%s", short(peer))
            await stream.aclose()
            return
        if len(self._open) >= settings.streams_max:
            self._make_room()
        serving = _Serving()
        self._open[serving] = peer
        self._by_peer[peer] += 1
        try:
            with serving.scope:
                await self._requests(stream, peer, serving)
            if serving.why:
                log.debug("closed a stream peer=%s why=%s", short(peer), serving.why)
        except TransportError as gone:
            log.debug("stream ended peer=%s error=%r", short(peer), str(gone))
        finally:
            self._open.pop(serving, None)
            self._by_peer[peer] -= 1
            if not self._by_peer[peer]:
                del self._by_peer[peer]
            with anyio.CancelScope(shield=True):
                await stream.aclose()

    def _make_room(self) -> None:
        idle = [s for s in self._open if not s.busy]
        if idle:
            victim = min(idle, key=lambda s: s.deadline)
            del self._open[victim]  # now: its task ends only when it is next run
            victim.end("another peer needed the room")

    async def reap(self) -> None:
        """Close the streams that were silent, or took for an answer, longer than they may."""
        while True:
            await anyio.sleep(min(REAP_S, self._node.settings.stream_idle_s))
            now = self._node.clock.now()
            for serving in list(self._open):
                if serving.deadline <= now:
                    serving.end("too slow" if serving.busy else "idle")

    async def _requests(self, stream: Stream, peer: bytes, serving: _Serving) -> None:
        reader = FrameReader(stream, DHT_FRAME_MAX)
        clock, idle_s = self._node.clock, self._node.settings.stream_idle_s
        going_on = True
        while going_on:
            serving.busy, serving.deadline = False, clock.now() + idle_s
            try:
                body = await reader.read()
            except RemoteProtocolError as bad:
                self._bad(peer, bad)
                return
            if body is None:
                return
            serving.busy, serving.deadline = True, clock.now() + REQUEST_S
            self._node.heard(peer)
            reply, going_on = await self._answer(peer, body)
            self._budget.spend(peer, len(body) + len(reply), clock.now())
            if len(reply) < LARGE:
                await stream.send(reply)
            else:
                await self._send_large(stream, peer, serving, reply)

    async def _send_large(
        self, stream: Stream, peer: bytes, serving: _Serving, reply: bytes
    ) -> None:
        """Send what the node must hold until the peer has read it."""
        for slow in self._unsent.add(serving, peer, len(reply)):
            slow.end("it did not read, and memory ran short")
        try:
            await stream.send(reply)
        finally:
            self._unsent.remove(serving)

    async def _answer(self, peer: bytes, body: bytes) -> tuple[bytes, bool]:
        """Return the reply's frame, and whether the stream may go on."""
        self._node.stats.calls_served += 1
        going_on = True
        try:
            wait = self._budget.wait_s(peer, self._node.clock.now())
            if wait > BUDGET_WAIT_MAX_S:
                raise ItemError("your byte budget is used up; come back later")
            if wait:
                await anyio.sleep(wait)
            method, request = self._codec.decode_request(body)
            return self._codec.encode(method, await self._handle(peer, request)), True
        except UnsupportedMethodError as old:
            error = ErrorReply(ErrorCode.METHOD_UNKNOWN, str(old))
        except RemoteProtocolError as bad:
            self._bad(peer, bad)
            error, going_on = ErrorReply(ErrorCode.PROTOCOL, str(bad)), False
        except CursorInvalidError as foreign:
            error = ErrorReply(ErrorCode.CURSOR_INVALID, str(foreign))
        except ItemError as refused:
            error = ErrorReply(ErrorCode.BUSY, str(refused))
        except StoreError as broken:
            error = ErrorReply(ErrorCode.SERVER, str(broken))
        return self._codec.encode(DhtMethod.ERROR, error), going_on

    def _bad(self, peer: bytes, bad: RemoteProtocolError) -> None:
        self._node.stats.malformed += 1
        self._malformed.warning("closed a stream peer=%s error=%r", short(peer), str(bad))

    # --- methods ---------------------------------------------------------------------------------

    async def _handle(self, peer: bytes, request: Message) -> Message:
        match request:
            case GetValue():
                return await self._get_value(request)
            case FindNode():
                return Nodes(self._node.near(_number(request.target)))
            case PutValue():
                return (await self._put(peer, (request,)))[0]
            case Batch():
                return Outcomes(tuple(await self._put(peer, request.puts)))
            case GetItems():
                return await self._get_items(request)
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
        return Value(tuple(items), self._node.near(target), held, tuple(leases))

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
            blocks = {hashlib.sha256(b).digest(): b for put in puts for b in put.blocks}
            outcomes = await self._node.items.admit(
                [item for _, item in items],
                sender=peer,
                cas=[puts[index].cas for index, _ in items],
                blocks=blocks or None,
                leases=[puts[index].lease for index, _ in items],
            )
            for (index, _), outcome in zip(items, outcomes, strict=True):
                answers[index] = self._stored(outcome)
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


def _number(target: bytes) -> int:
    if len(target) != 32:
        raise RemoteProtocolError(f"a target has 32 bytes, this has {len(target)}")
    return int.from_bytes(target, "big")

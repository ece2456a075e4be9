"""Answering other nodes: streams in, replies out, and no peer that can stop it for the others.

Why bounds everywhere: in the original, 129 silent connections made a node deaf (O04). Here every
peer has few streams, silent ones are closed, the longest idle makes room for a newcomer, a request
has a deadline, and answers are paid for from a byte budget per peer (C9, G1).
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from contextlib import suppress
from typing import Final

import anyio
from anyio.abc import TaskGroup

from dht_kademlia.core.budget import Budget
from dht_kademlia.core.codec import Codec, UnsupportedMethodError
from dht_kademlia.core.messages import ErrorCode, ErrorReply, Message, Page, Watch
from dht_kademlia.core.unsent import Unsent
from dht_kademlia.node import Kademlia
from dht_kademlia.serve.answers import Answers
from dht_kademlia.serve.watches import Watches
from skycore.contracts.streams import Stream, StreamListener
from skycore.errors import (
    CursorInvalidError,
    ItemError,
    RemoteProtocolError,
    SkycoreError,
    StoreError,
    TransportError,
)
from skycore.frames import FrameReader
from skycore.logs import LimitedLog
from skycore.model.keys import short
from skycore.model.limits import DHT_FRAME_MAX, PAGE_TIMEOUT_S
from skycore.model.numbers import DhtMethod

__all__ = ["Server"]

log = logging.getLogger(__name__)

_ANSWERED: Final = (RemoteProtocolError, CursorInvalidError, ItemError, StoreError)
"""What is answered by an error reply."""
BUDGET_WAIT_MAX_S: Final = 5.0
REAP_S: Final = 5.0
LARGE: Final = 65_536
"""Answers from here on count on `unsent_bytes_max`, requests on UNREAD_BYTES_MAX, bytes."""
UNREAD_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes of all requests that are under way: over it, the peer that has most loses its oldest."""
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
        self._answers = Answers(node)
        self._watches = Watches(node)
        self._budget = Budget(node.settings.peer_bytes_per_s)
        self._unsent: Unsent[_Serving] = Unsent(node.settings.unsent_bytes_max)
        self._unread: Unsent[_Serving] = Unsent(UNREAD_BYTES_MAX)
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
            self._unread.remove(serving)
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
        def begun(size: int) -> None:
            if size >= LARGE:
                for slow in self._unread.add(serving, peer, size):
                    slow.end("its request took long, and memory ran short")

        reader = FrameReader(stream, DHT_FRAME_MAX, begun)
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
            if body[0] == DhtMethod.WATCH:
                await self._watch(stream, peer, serving, body)
                return
            reply, going_on = await self._answer(peer, body)
            self._budget.spend(peer, len(body) + len(reply), clock.now())
            self._unread.remove(serving)
            await self._send(stream, peer, serving, reply)

    async def _send(self, stream: Stream, peer: bytes, serving: _Serving, reply: bytes) -> None:
        """Send; a large reply is counted while the node must hold it for a peer that reads."""
        if len(reply) < LARGE:
            await stream.send(reply)
            return
        for slow in self._unsent.add(serving, peer, len(reply)):
            slow.end("it did not read, and memory ran short")
        try:
            await stream.send(reply)
        finally:
            self._unsent.remove(serving)

    async def _answer(self, peer: bytes, body: bytes) -> tuple[bytes, bool]:
        """Return the reply's frame, and whether the stream may go on."""
        self._node.stats.calls_served += 1
        try:
            wait = self._budget.wait_s(peer, self._node.clock.now())
            if wait > BUDGET_WAIT_MAX_S:
                raise ItemError("your byte budget is used up; come back later")
            if wait:
                await anyio.sleep(wait)
            method, request = self._codec.decode_request(body)
            return self._codec.encode(method, await self._answers.to(peer, request)), True
        except _ANSWERED as trouble:
            return self._refusal(peer, trouble)

    def _refusal(self, peer: bytes, trouble: SkycoreError) -> tuple[bytes, bool]:
        """Return an error reply's frame, and whether the stream may go on."""
        going_on = True
        match trouble:
            case UnsupportedMethodError():
                code = ErrorCode.METHOD_UNKNOWN
            case RemoteProtocolError():
                self._bad(peer, trouble)
                code, going_on = ErrorCode.PROTOCOL, False
            case CursorInvalidError():
                code = ErrorCode.CURSOR_INVALID
            case ItemError():
                code = ErrorCode.BUSY
            case _:
                code = ErrorCode.SERVER
        return self._codec.encode(DhtMethod.ERROR, ErrorReply(code, str(trouble))), going_on

    # --- watches ---------------------------------------------------------------------------------

    async def _watch(self, stream: Stream, peer: bytes, serving: _Serving, body: bytes) -> None:
        """Send changes until the peer hangs up, reads too slowly, or says anything at all."""
        self._node.stats.calls_served += 1
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._until_hung_up, stream, tasks.cancel_scope)
            try:
                await self._pages(stream, peer, serving, body)
            except _ANSWERED as trouble:
                reply, _ = self._refusal(peer, trouble)
                serving.deadline = self._node.clock.now() + REQUEST_S
                with suppress(TransportError):
                    await stream.send(reply)
            except TransportError as gone:
                log.debug("a watch ended peer=%s error=%r", short(peer), str(gone))
            tasks.cancel_scope.cancel()

    async def _pages(self, stream: Stream, peer: bytes, serving: _Serving, body: bytes) -> None:
        async def send(page: Page) -> None:
            serving.deadline = math.inf  # whoever waits for changes, or for its budget, is not slow
            if wait := self._budget.wait_s(peer, self._node.clock.now()):
                await anyio.sleep(wait)
            frame = self._codec.encode(DhtMethod.WATCH, page)
            now = self._node.clock.now()
            self._budget.spend(peer, len(frame), now)
            serving.deadline = now + REQUEST_S
            await self._send(stream, peer, serving, frame)
            serving.deadline = math.inf

        request: Message = self._codec.decode_request(body)[1]
        assert isinstance(request, Watch)
        with self._watches.place(peer):
            await self._watches.run(peer, request, send)

    async def _until_hung_up(self, stream: Stream, scope: anyio.CancelScope) -> None:
        with suppress(TransportError):
            await stream.receive()  # a whole frame is not waited for: it may never come
        scope.cancel()

    def _bad(self, peer: bytes, bad: RemoteProtocolError) -> None:
        self._node.stats.malformed += 1
        self._malformed.warning("closed a stream peer=%s error=%r", short(peer), str(bad))

"""Answering other nodes: streams in, replies out, and no peer that can stop it for the others.

Why bounds everywhere: in the original, 129 silent connections made a node deaf (O04). Here every
peer has few streams, silent ones are closed, the longest idle makes room for a newcomer, a request
has a deadline, and answers are paid for from a byte budget per peer (C9, G1).
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Final

import anyio
from anyio.abc import TaskGroup

from dht_kademlia.answers import Answers
from dht_kademlia.core.budget import Budget
from dht_kademlia.core.codec import Codec, UnsupportedMethodError
from dht_kademlia.core.messages import (
    ErrorCode,
    ErrorReply,
)
from dht_kademlia.core.unsent import Unsent
from dht_kademlia.node import Kademlia
from skycore.contracts.streams import Stream, StreamListener
from skycore.errors import (
    CursorInvalidError,
    ItemError,
    RemoteProtocolError,
    StoreError,
    TransportError,
)
from skycore.frames import FrameReader
from skycore.logs import LimitedLog
from skycore.model.keys import short
from skycore.model.limits import (
    DHT_FRAME_MAX,
    PAGE_TIMEOUT_S,
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
        self._answers = Answers(node)
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
            return self._codec.encode(method, await self._answers.to(peer, request)), True
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

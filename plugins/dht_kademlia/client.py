"""Calling other nodes: one request at a time on a stream, streams pooled and used again.

Why a pool: opening a stream costs a round trip of its own, and a put speaks to twenty nodes. Why
bounded: every stream is memory at both ends. A stream that failed or timed out is closed, never
used again: its next bytes could be the answer to the question before.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from dht_kademlia.core.codec import Codec
from dht_kademlia.core.messages import REPLY_MAX, Message
from skycore.contracts.runtime import Clock
from skycore.contracts.streams import Service, Stream, Streams
from skycore.errors import DialError, RemoteProtocolError, ReplyError, StreamError, TransportError
from skycore.frames import FrameReader
from skycore.jsonrpc.turns import Turns
from skycore.model.keys import PubKey, short
from skycore.model.limits import CALL_TIMEOUT_S
from skycore.model.numbers import PacketType, Port

__all__ = ["DHT_SERVICE", "Client", "Meter", "Subscription"]

log = logging.getLogger(__name__)

DHT_SERVICE = Service("dht", int(PacketType.DHT), int(Port.DHT), looks_up=True)
PEERS_MAX = 512
IDLE_S = 30.0
"""Half of what servers allow, so that a pooled stream is closed by us and not under us."""


@dataclass(eq=False, slots=True)
class _Line:
    """One stream, and when it was last used."""

    stream: Stream
    used_s: float = 0.0


@dataclass(eq=False, slots=True)
class _Peer:
    turns: Turns
    idle: deque[_Line] = field(default_factory=deque)
    users: int = 0


LENGTH_BYTES = 4
Meter = Callable[[int], None]


def _unmetered(count: int) -> None:
    """Most callers do not ask what a call costs."""


class Subscription:
    """Replies that keep coming on a stream of their own. Made by `Client.subscribe`."""

    def __init__(
        self, stream: Stream, codec: Codec, method: int, peer: bytes, silence_s: float
    ) -> None:
        self._reader = FrameReader(stream, REPLY_MAX[method])
        self._codec = codec
        self._method = method
        self._peer = peer
        self._silence_s = silence_s
        self.meter: Meter = _unmetered
        """Told the bytes of each reply's frame."""

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Message:
        """Return the next reply.

        Raises `StreamError` where the stream ended or was silent for too long, `ReplyError` for an
        error reply and `RemoteProtocolError` for what is no reply.
        """
        with anyio.move_on_after(self._silence_s):
            body = await self._reader.read()
            if body is None:
                raise StreamError(f"{short(self._peer)} ended the stream")
            self.meter(LENGTH_BYTES + len(body))
            return self._codec.decode_reply(self._method, body)
        raise StreamError(f"{short(self._peer)} was silent for {self._silence_s:g} s")


class Client:
    """Calls to any peer over whichever carrier reaches it."""

    def __init__(
        self, streams: Sequence[Streams], codec: Codec, clock: Clock, *, per_peer_max: int
    ) -> None:
        self._streams = streams
        self._codec = codec
        self._clock = clock
        self._per_peer_max = per_peer_max
        self._peers: OrderedDict[bytes, _Peer] = OrderedDict()

    def frame(self, method: int, request: Message) -> bytes:
        """Return a request's frame, for `exchange`."""
        return self._codec.encode(method, request)

    async def exchange(
        self,
        peer: bytes,
        method: int,
        frame: bytes,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
        again: bool = True,
        meter: Meter = _unmetered,
    ) -> Message:
        """Send a ready frame (one encoding serves twenty peers) and return the reply.

        `again`: on a pooled stream that turns out to be closed, try once more on a new one.
        `meter` is told the bytes of the frames both ways. Raises
        `DialError`, `StreamError` (no answer in time included), `ReplyError` for an error reply
        and `RemoteProtocolError` for what is none at all.
        """
        with anyio.move_on_after(timeout_s):
            held = self._peer(peer)
            held.users += 1
            try:
                await held.turns.take()
                try:
                    return await self._exchange(held, peer, method, frame, again, meter)
                finally:
                    held.turns.give_back()
            finally:
                held.users -= 1
        raise StreamError(f"no answer from {short(peer)} in {timeout_s:g} s")

    @asynccontextmanager
    async def subscribe(
        self, peer: bytes, method: int, request: Message, *, silence_s: float
    ) -> AsyncIterator[Subscription]:
        """Send a request whose replies keep coming, and read them while the context lasts.

        On a stream of its own, which is closed at the end: that is how the peer learns of it.
        Raises `DialError`, `StreamError`.
        """
        stream: Stream | None = None
        with anyio.move_on_after(CALL_TIMEOUT_S):
            stream = await self._dial(PubKey(peer))
        if stream is None:
            raise StreamError(f"no stream to {short(peer)} in {CALL_TIMEOUT_S:g} s")
        try:
            with anyio.move_on_after(CALL_TIMEOUT_S) as limit:
                await stream.send(self._codec.encode(method, request))
            if limit.cancelled_caught:
                raise StreamError(f"{short(peer)} takes no request")
            yield Subscription(stream, self._codec, method, peer, silence_s)
        finally:
            with anyio.CancelScope(shield=True):
                await stream.aclose()

    async def _exchange(
        self, held: _Peer, peer: bytes, method: int, frame: bytes, again: bool, meter: Meter
    ) -> Message:
        line = held.idle.pop() if again and held.idle else None
        if line is not None:
            try:
                return await self._talk(held, line, method, frame, meter)
            except TransportError as stale:
                log.debug("pooled stream was closed peer=%s error=%r", short(peer), str(stale))
        stream = await self._dial(PubKey(peer))
        return await self._talk(held, _Line(stream), method, frame, meter)

    async def _talk(
        self, held: _Peer, line: _Line, method: int, frame: bytes, meter: Meter
    ) -> Message:
        sound = False
        try:
            await line.stream.send(frame)
            body = await FrameReader(line.stream, REPLY_MAX.get(method, 65_536)).read()
            if body is None:
                raise StreamError("the peer ended the stream without an answer")
            meter(len(frame) + LENGTH_BYTES + len(body))
            try:
                reply = self._codec.decode_reply(method, body)
            except ReplyError:
                sound = True
                raise
            sound = True
            return reply
        finally:
            if sound:
                line.used_s = self._clock.now()
                held.idle.append(line)
            else:
                with anyio.CancelScope(shield=True):
                    await line.stream.aclose()

    async def _dial(self, peer: PubKey) -> Stream:
        trouble: TransportError = DialError("no carrier of streams is active")
        for carrier in self._streams:
            try:
                stream = await carrier.dial(peer, DHT_SERVICE)
            except TransportError as failed:
                trouble = failed
                continue
            if stream.remote != peer:
                await stream.aclose()
                raise RemoteProtocolError(f"dialled {short(peer)}, reached {short(stream.remote)}")
            return stream
        raise trouble

    def _peer(self, peer: bytes) -> _Peer:
        held = self._peers.get(peer)
        if held is None:
            held = self._peers[peer] = _Peer(Turns(self._per_peer_max))
        self._peers.move_to_end(peer)
        return held

    async def reap(self) -> None:
        """Close streams that were idle for long, and those of peers beyond PEERS_MAX."""
        late = self._clock.now() - IDLE_S
        for key, held in list(self._peers.items()):
            crowded = len(self._peers) > PEERS_MAX
            while held.idle and (crowded or held.idle[0].used_s < late):
                await held.idle.popleft().stream.aclose()
            if not held.idle and not held.users:
                self._peers.pop(key, None)

    async def aclose(self) -> None:
        """Close every idle stream."""
        for held in self._peers.values():
            while held.idle:
                await held.idle.popleft().stream.aclose()
        self._peers.clear()

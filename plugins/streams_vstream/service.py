"""The part: packet types are claimed, peers' streams are queued, streams are dialled."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from skycore.contracts.runtime import Clock
from skycore.contracts.streams import Service, Stream, StreamListener, Streams
from skycore.contracts.transport import Transport, Transports
from skycore.errors import (
    DialError,
    PluginConflictError,
    RemoteProtocolError,
    StreamError,
)
from skycore.model.keys import PubKey, short
from streams_vstream.core.budget import Pool
from streams_vstream.core.channel import Channel, What
from streams_vstream.core.frames import GO_AWAY_PROTOCOL
from streams_vstream.core.own import Limits
from streams_vstream.link import Carrier, Flusher, Link
from streams_vstream.settings import VStreamSettings
from streams_vstream.stream import VStream

__all__ = ["VStreams", "open_vstream"]

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_vstream(
    settings: VStreamSettings, transports: Transports, clock: Clock
) -> AsyncIterator[Streams]:
    """Carry streams over this node's transports for as long as the context lasts."""
    async with anyio.create_task_group() as tasks:
        with ExitStack() as claims:
            streams = VStreams(settings, transports, clock, tasks, claims)
            tasks.start_soon(streams.flusher.run)
            try:
                yield streams
            finally:
                streams.shut()
                tasks.cancel_scope.cancel()


class _Listener:
    """What peers opened for a service, over all transports, first come first served."""

    def __init__(self, queue_max: int) -> None:
        self._queue: deque[VStream] = deque()
        self._queue_max = queue_max
        self._some: anyio.Event | None = None
        self._closed = False

    async def accept(self) -> Stream:
        while True:
            while self._queue:
                stream = self._queue.popleft()
                if not stream.failed:
                    stream.taken()
                    return stream
            if self._closed:
                raise StreamError("this service is not listened for any more")
            if self._some is None:
                self._some = anyio.Event()
            await self._some.wait()

    def put(self, stream: VStream) -> bool:
        """Queue a stream; False where there is no room."""
        if len(self._queue) >= self._queue_max:
            self.prune()
            if len(self._queue) >= self._queue_max:
                return False
        self._queue.append(stream)
        self._wake()
        return True

    def prune(self) -> None:
        """Drop those that failed before anybody took them."""
        self._queue = deque(stream for stream in self._queue if not stream.failed)

    def close(self) -> None:
        """Refuse what is queued, and let those who wait for more go."""
        self._closed = True
        for stream in self._queue:
            stream.refuse()
        self._queue.clear()
        self._wake()

    def _wake(self) -> None:
        if self._some is not None:
            self._some.set()
            self._some = None


class _Claim:
    """One packet type: the handler of its packets, and who listens."""

    def __init__(self, service: Service, streams: VStreams, now: Callable[[], float]) -> None:
        self.service = service
        self.listener: _Listener | None = None
        self._streams = streams
        self._now = now

    def packet(self, transport: Transport, payload: bytes) -> None:
        if transport.closed:
            return
        link = self._streams.link(transport, self.service.packet_type)
        session = link.session
        if session.problem:
            return
        link.refused_until = 0.0
        try:
            events = session.receive(payload, self._now())
        except RemoteProtocolError as broken:
            session.go_away(GO_AWAY_PROTOCOL)
            link.flush()
            link.carrier.lose(str(broken))
            raise
        for what, channel in events:
            if what is What.OPENED:
                self._opened(link, channel)
            elif channel.tag is not None:
                _wake(channel.tag, what)
        if session.waiting:
            link.flush_soon()
        if link.dialling:
            link.wake_diallers()

    def _opened(self, link: Link, channel: Channel) -> None:
        if not channel.pending:  # reset within the same packet
            return
        stream = VStream(link, channel)
        if self.listener is None or not self.listener.put(stream):
            stream.refuse()

    def closed(self, transport: Transport) -> None:
        self._streams.lost(transport)

    def refused(self, transport: Transport, reason: str) -> None:
        if not transport.closed:
            link = self._streams.link(transport, self.service.packet_type)
            link.refuse(reason, self._now())


class VStreams:
    """Streams of all services over all transports."""

    name = "transport"

    def __init__(
        self,
        settings: VStreamSettings,
        transports: Transports,
        clock: Clock,
        tasks: TaskGroup,
        claims: ExitStack,
    ) -> None:
        self.flusher = Flusher()
        self._limits = Limits(settings.streams_max, settings.unread_bytes_max, settings.stalled_s)
        self._pool = Pool(settings.unread_bytes_node_max)
        self._queue_max = settings.accept_queue_max
        self._transports = transports
        self._clock = clock
        self._tasks = tasks
        self._stack = claims
        self._claims: dict[int, _Claim] = {}
        self._carriers: dict[int, Carrier] = {}

    async def dial(self, remote: PubKey, service: Service) -> Stream:
        """Open a stream; makes a transport where there is none. Raises `DialError`.

        Where the transport dies in between, or has no stream ids left, another one is tried once.
        """
        self._claim(service)
        trouble: StreamError | None = None
        for _ in range(2):
            transport = await self._transports.ensure(remote, look_up=not service.looks_up)
            if transport.closed:
                trouble = StreamError(f"the transport closed: {transport.closed}")
                continue
            link = self.link(transport, service.packet_type)
            if link.refused_until > self._clock.now():
                raise DialError(link.refusal)
            try:
                return VStream(link, await _open(link))
            except StreamError as error:
                trouble = error
            if link.session.spent and link.session.idle:
                await transport.aclose("its stream ids are used up")
            elif not link.session.problem:
                break
        hint = trouble.hint if trouble else ""
        raise DialError(f"no stream to {short(remote)}: {trouble}", hint=hint) from trouble

    @asynccontextmanager
    async def listen(self, service: Service) -> AsyncIterator[StreamListener]:
        """Take streams for a service. Raises `PluginConflictError` where it is taken."""
        claim = self._claim(service)
        if claim.listener is not None:
            raise PluginConflictError(
                f"{claim.service.name} already takes streams of type {service.packet_type}"
            )
        listener = claim.listener = _Listener(self._queue_max)
        try:
            yield listener
        finally:
            claim.listener = None
            listener.close()

    # --- for the handlers ------------------------------------------------------------------------

    def link(self, transport: Transport, packet_type: int) -> Link:
        """Return the session of a packet type over a transport.

        Kept by the object and not by its id: a new connection of a pair has the id of the old.
        """
        carrier = self._carriers.get(id(transport))
        if carrier is None:
            carrier = self._carriers[id(transport)] = Carrier(transport, self._tasks)
        link = carrier.links.get(packet_type)
        if link is None:
            link = Link(carrier, packet_type, self._limits, self._pool, self.flusher)
            carrier.links[packet_type] = link
        return link

    def lost(self, transport: Transport) -> None:
        """Fail the streams of a transport that is gone, and forget it."""
        carrier = self._carriers.pop(id(transport), None)
        if carrier is not None:
            carrier.lose(transport.closed)
            for claim in self._claims.values():
                if claim.listener is not None:
                    claim.listener.prune()

    def shut(self) -> None:
        """Reset every stream, so that no peer waits for a node that is stopping."""
        for carrier in self._carriers.values():
            for link in carrier.links.values():
                for channel in list(link.session.channels.values()):
                    link.session.reset(channel, "this node is stopping")
                link.session.go_away()
                link.flush()
            carrier.lose("this node is stopping")
        self._carriers.clear()

    def _claim(self, service: Service) -> _Claim:
        claim = self._claims.get(service.packet_type)
        if claim is None:
            claim = _Claim(service, self, self._clock.now)
            self._stack.enter_context(self._transports.claim(service.packet_type, claim))
            self._claims[service.packet_type] = claim
        return claim


def _wake(stream: VStream, what: What) -> None:
    if what is not What.WRITABLE:
        stream.wake_reader()
    if what is not What.READABLE:
        stream.wake_writer()


async def _open(link: Link) -> Channel:
    """Open a stream once fewer than the backlog are unacknowledged, so that none is refused."""
    session = link.session
    while session.opening >= session.limits.backlog_max and not session.problem:
        event = anyio.Event()
        link.dialling.append(event)
        try:
            await event.wait()
        except BaseException:
            if event.is_set():
                link.wake_diallers()  # our turn goes to the next
            else:
                link.dialling.remove(event)
            raise
    return session.open()

"""One transport and its sessions: who may send now, and what wakes whom.

Why no task per stream: a stream that waits holds one event, made when it begins to wait. The part
has one task that flushes what gathered in a turn of the loop, and a transport has one more only
while it is congested.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from skycore.contracts.transport import Transport
from skycore.errors import TransportClosedError
from skycore.model.keys import short
from skycore.model.limits import STREAM_CHUNK_MAX, TRANSPORT_QUEUE_MAX
from streams_vstream.core.budget import Pool
from streams_vstream.core.channel import Channel
from streams_vstream.core.own import Limits
from streams_vstream.core.yamux import Session

__all__ = ["QUEUED_MAX", "Carrier", "Flusher", "Link"]

log = logging.getLogger(__name__)

QUEUED_MAX = TRANSPORT_QUEUE_MAX // 4
TURNS = QUEUED_MAX // STREAM_CHUNK_MAX
BUSY_STREAMS = 4
BULK_BYTES = 4_096
REFUSAL_S = 4.0
"""A little more than the pause between two Error packets of one link."""


class Flusher:
    """Sends, once in a turn of the loop, what many streams of a session wrote in it."""

    def __init__(self) -> None:
        self._links: list[Link] = []
        self._some: anyio.Event | None = None

    def add(self, link: Link) -> None:
        """Flush a link soon."""
        self._links.append(link)
        if self._some is not None:
            self._some.set()
            self._some = None

    async def run(self) -> None:
        """Flush for ever."""
        while True:
            if not self._links:
                self._some = anyio.Event()
                await self._some.wait()
            links, self._links = self._links, []
            for link in links:
                link.flush()


class Carrier:
    """One transport as all its sessions share it: senders take turns once its queue is long.

    Between two drains no more than QUEUED_MAX bytes are handed over, whatever the number of
    streams, so the transport never closes for a full queue while its peer reads.
    """

    def __init__(self, transport: Transport, tasks: TaskGroup) -> None:
        self.transport = transport
        self.links: dict[int, Link] = {}
        self.queued = 0
        self.waiters: deque[anyio.Event] = deque()
        self._tasks = tasks
        self._draining = False

    async def turn(self) -> None:
        """Wait until this sender may hand bytes to the transport, in order of asking."""
        event = anyio.Event()
        self.waiters.append(event)
        if not self._draining:
            self._draining = True
            self._tasks.start_soon(self._drain)
        try:
            await event.wait()
        finally:
            if not event.is_set():
                self.waiters.remove(event)

    async def _drain(self) -> None:
        try:
            while self.waiters:
                try:
                    await self.transport.drain()
                except TransportClosedError as gone:
                    self.lose(str(gone))
                self.queued = 0
                for _ in range(min(TURNS, len(self.waiters))):
                    self.waiters.popleft().set()
                await anyio.lowlevel.checkpoint()  # those woken come first
        finally:
            self._draining = False

    def lose(self, why: str) -> None:
        """Fail every stream, as the transport is gone."""
        for link in self.links.values():
            link.lose(why)
        while self.waiters:
            self.waiters.popleft().set()


class Link:
    """One session of one transport, and the streams that users hold of it."""

    def __init__(
        self,
        carrier: Carrier,
        packet_type: int,
        limits: Limits,
        pool: Pool,
        flusher: Flusher,
    ) -> None:
        self.carrier = carrier
        dialled = carrier.transport.dialled
        self.session = Session(dialled=dialled, limits=limits, pool=pool)
        self.remote = carrier.transport.remote
        self.dialling: deque[anyio.Event] = deque()
        """Who waits for the peer to acknowledge earlier streams."""
        self.refusal = ""
        """What the peer said when it did not serve this packet type."""
        self.refused_until = 0.0
        self._packet_type = packet_type
        self._flusher = flusher
        self._marked = False

    def write(self, channel: Channel, data: bytes | memoryview) -> None:
        """Send data that fits.

        Few streams: at once, for the shortest delay. Many: with whatever else this turn of the
        loop brings, in one packet.
        """
        self.session.send(channel, data)
        self.carrier.queued += len(data)
        if len(data) >= BULK_BYTES or len(self.session.channels) <= BUSY_STREAMS:
            self.flush()
        elif not self._marked:
            self._marked = True
            self._flusher.add(self)

    def flush_soon(self) -> None:
        """Have what waits sent in this turn of the loop, or with the next data."""
        if not self._marked and self.session.waiting:
            self._marked = True
            self._flusher.add(self)

    def flush(self) -> None:
        """Hand all that waits to the transport."""
        self._marked = False
        for payload in self.session.outgoing():
            try:
                self.carrier.transport.send(self._packet_type, payload)
            except TransportClosedError as gone:
                self.carrier.lose(str(gone))
                return

    def wake_diallers(self) -> None:
        """Let those go on who waited to open a stream."""
        room = self.session.limits.backlog_max - self.session.opening
        while self.dialling and (room > 0 or self.session.problem):
            self.dialling.popleft().set()
            room -= 1

    def lose(self, why: str) -> None:
        """Fail every stream at once."""
        session = self.session
        if session.problem:
            return
        reason = f"the transport to {short(self.remote)} is gone: {why or 'closed'}"
        lost = session.lose(reason)
        log.debug("session ended peer=%s streams=%d", short(self.remote), len(lost))
        if session.counters:
            log.info("session had trouble peer=%s counts=%s", short(self.remote), session.counters)
        self._wake(lost)

    def refuse(self, reason: str, now: float) -> None:
        """Fail what we opened: the peer does not serve this packet type.

        It says so once in a few seconds at most, so those who dial meanwhile are told by us.
        """
        self.refusal = f"{short(self.remote)} does not serve this: {reason}"
        self.refused_until = now + REFUSAL_S
        self._wake(self.session.unserved(self.refusal))

    def _wake(self, channels: Sequence[Channel]) -> None:
        for channel in channels:
            if channel.tag is not None:
                channel.tag.wake()
        self.wake_diallers()

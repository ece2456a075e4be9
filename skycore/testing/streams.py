"""Streams in memory: many nodes in one process, no sockets, no handshakes, and trouble on demand.

Why beside the simulated network: a part that speaks over streams can be tested without transports,
security and multiplexing below it. Who is at the other end is what the exchange says, as a
transport's handshake would.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio

from skycore.contracts.streams import Service
from skycore.errors import DialError, PluginConflictError, StreamError
from skycore.model.addresses import Address, Contact
from skycore.model.keys import PubKey, short

__all__ = ["MemoryAddresses", "MemoryExchange", "MemoryStream", "MemoryStreams", "MemoryTransports"]

BUFFER_MAX = 1024 * 1024


class MemoryStream:
    """One end of a stream. `contracts.streams.Stream`."""

    def __init__(self, exchange: MemoryExchange, local: bytes, remote: PubKey) -> None:
        self.remote = remote
        self.other: MemoryStream
        self._exchange = exchange
        self._local = local
        self._held: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._broken = ""
        self._reader: anyio.Event | None = None
        self._writer: anyio.Event | None = None

    async def send(self, data: bytes) -> None:
        """Send all; waits while a megabyte is unread."""
        await self._exchange.delay(self._local, self.remote)
        self._check()
        other = self.other
        if other._ended:
            raise StreamError("our side of the stream was ended")
        if self._exchange.swallows(self._local, self.remote):
            return
        other._held.append(bytes(data))
        other._size += len(data)
        self._exchange.bytes_moved += len(data)
        if other._reader:
            other._reader.set()
        while other._size > BUFFER_MAX:
            self._writer = anyio.Event()
            await self._writer.wait()
            self._check()

    def _check(self) -> None:
        if self._broken:
            raise StreamError(self._broken)

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Return what is there, b"" at the end."""
        while not self._held:
            self._check()
            if self._ended:
                return b""
            self._reader = anyio.Event()
            await self._reader.wait()
        data = self._held.popleft()
        if len(data) > max_bytes:
            self._held.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        self._size -= len(data)
        if self.other._writer:
            self.other._writer.set()
        return data

    async def send_eof(self) -> None:
        """End our side."""
        self.other._ended = True
        if self.other._reader:
            self.other._reader.set()

    async def aclose(self) -> None:
        """End both sides."""
        self.fail("the stream is closed")
        self.other._ended = True
        self.other._wake()

    def fail(self, why: str) -> None:
        """Break this end, as a lost transport does."""
        self._broken = self._broken or why
        self._held.clear()
        self._size = 0
        self._wake()
        if self.other._writer:
            self.other._writer.set()

    def _wake(self) -> None:
        for waiting in (self._reader, self._writer):
            if waiting:
                waiting.set()


class MemoryListener:
    """Streams that were dialled to one node and service."""

    def __init__(self) -> None:
        self.waiting: deque[MemoryStream] = deque()
        self.some = anyio.Event()

    async def accept(self) -> MemoryStream:
        """Return the next one."""
        while not self.waiting:
            self.some = anyio.Event()
            await self.some.wait()
        return self.waiting.popleft()


class MemoryExchange:
    """Where nodes meet. `down` nodes cannot be dialled, `deaf` ones never see a byte."""

    def __init__(self, latency_s: float = 0.0) -> None:
        self.latency_s = latency_s
        self.down: set[bytes] = set()
        self.deaf: set[bytes] = set()
        self.cut: set[frozenset[bytes]] = set()
        """Pairs that cannot reach each other."""
        self.bytes_moved = 0
        self.dials = 0
        self._listeners: dict[tuple[bytes, int], MemoryListener] = {}
        self._open: list[MemoryStream] = []

    def swallows(self, local: bytes, remote: bytes) -> bool:
        """Tell whether what is sent here is lost in silence."""
        return remote in self.deaf or local in self.deaf or frozenset((local, remote)) in self.cut

    async def delay(self, local: bytes, remote: bytes) -> None:
        """Wait as long as a packet travels."""
        if self.latency_s:
            await anyio.sleep(self.latency_s)

    def stop(self, public: bytes) -> None:
        """Take a node off: its streams break, and nobody can dial it."""
        self.down.add(public)
        for stream in [s for s in self._open if public in (s._local, s.remote)]:
            stream.fail("the transport is lost")
        self._open = [s for s in self._open if not s._broken]

    def count_open(self) -> int:
        """Return how many ends of streams are neither closed nor broken; the others are let go."""
        self._open = [s for s in self._open if not s._broken]
        return len(self._open)

    async def dial(self, local: PubKey, remote: PubKey, service: Service) -> MemoryStream:
        """Open a stream."""
        self.dials += 1
        await self.delay(local, remote)
        listener = self._listeners.get((bytes(remote), service.packet_type))
        cut = frozenset((local, remote)) in self.cut
        if listener is None or remote in self.down or local in self.down or cut:
            raise DialError(f"{short(remote)} cannot be reached")
        near, far = MemoryStream(self, local, remote), MemoryStream(self, remote, local)
        near.other, far.other = far, near
        if self.dials % 256 == 0:
            self.count_open()
        self._open += (near, far)
        listener.waiting.append(far)
        listener.some.set()
        return near


class MemoryStreams:
    """One node's carrier. `contracts.streams.Streams`."""

    name = "memory"

    def __init__(self, exchange: MemoryExchange, own: PubKey) -> None:
        self._exchange = exchange
        self._own = own

    async def dial(self, remote: PubKey, service: Service) -> MemoryStream:
        """Open a stream to a key."""
        return await self._exchange.dial(self._own, remote, service)

    @asynccontextmanager
    async def listen(self, service: Service) -> AsyncIterator[MemoryListener]:
        """Take streams for a service."""
        key = (bytes(self._own), service.packet_type)
        if key in self._exchange._listeners:
            raise PluginConflictError(f"the service {service.name!r} is taken")
        listener = self._exchange._listeners[key] = MemoryListener()
        try:
            yield listener
        finally:
            del self._exchange._listeners[key]


class MemoryAddresses:
    """An address book that keeps all. `contracts.transport.Addresses`."""

    def __init__(self) -> None:
        self.known: dict[bytes, tuple[Address, ...]] = {}
        self.pinned: set[bytes] = set()

    def learn(self, contact: Contact, *, pinned: bool = False) -> None:
        """Remember."""
        self.known[contact.public] = contact.addresses
        if pinned:
            self.pinned.add(contact.public)

    def find(self, public: bytes) -> tuple[Address, ...]:
        """Return what is known."""
        return self.known.get(public, ())

    def forget(self, public: bytes) -> None:
        """Drop what is known."""
        self.known.pop(public, None)


class MemoryTransports:
    """As much of `contracts.transport.Transports` as a part above streams looks at."""

    def __init__(self) -> None:
        self.addresses = MemoryAddresses()

    def find(self, remote: bytes, kind: str | None = None) -> None:
        """Return no transport: there are none."""

    def all(self) -> Sequence[object]:
        """Return none."""
        return ()

    @property
    def counters(self) -> Mapping[str, int]:
        """Count nothing."""
        return {}

    def listening(self) -> Sequence[Address]:
        """Return nowhere."""
        return ()

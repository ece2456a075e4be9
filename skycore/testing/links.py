"""Transports in memory: nodes that reach each other without sockets, handshakes or a manager.

Why: whoever builds on `Transports` (streams, RPC) is tested against the contract alone, and fast.
The real manager closes, dispatches and bounds in the same way; its own suite shows that.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from skycore.contracts.security import Hello
from skycore.contracts.transport import PacketHandler, RefusalHandler, Transport
from skycore.errors import (
    DialError,
    PluginConflictError,
    RemoteProtocolError,
    TransportClosedError,
)
from skycore.model.addresses import Address, Contact
from skycore.model.keys import PubKey, short
from skycore.model.limits import PACKET_PAYLOAD_MAX, TRANSPORT_QUEUE_MAX
from skycore.model.packets import transport_id

__all__ = ["MemoryTransport", "MemoryTransports", "linked_transports"]

TURN_BYTES = 262_144
CHANGE = Callable[[Transport, bool], None]


class _NoAddresses:
    """An address book that needs none: everybody is known."""

    def learn(self, contact: Contact, *, pinned: bool = False) -> None:
        """Ignore it."""

    def find(self, public: bytes) -> tuple[Address, ...]:
        """Return nothing."""
        return ()

    def forget(self, public: bytes) -> None:
        """Ignore it."""


class MemoryTransport:
    """One end of a link. Set `held` to keep what we sent from arriving; `release` goes on."""

    type = "memory"

    def __init__(self, here: MemoryTransports, remote: PubKey, dialled: bool, label: str) -> None:
        self.id: uuid.UUID = transport_id(here.public, remote, self.type)
        self.remote = remote
        self.dialled = dialled
        self.label = label
        self.peer_keeps = False
        self.remote_hello = Hello(1, (), remote, 0, bytes(16))
        self.host = ""
        self.opened_at = 0.0
        self.rtt_s: float | None = None
        self.is_silent = False
        self.loss: float | None = None
        self.bytes_sent = 0
        self.bytes_received = 0
        self.packets_sent = 0
        self.held = False
        self.here = here
        self.other: MemoryTransport
        self._queue: deque[tuple[int, bytes]] = deque()
        self._queued = 0
        self._closed = ""
        self._changed = anyio.Event()

    @property
    def closed(self) -> str:
        """Why it is closed; empty while it is open."""
        return self._closed

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def release(self) -> None:
        """Let what was held arrive."""
        self.held = False
        self._wake()

    def send(self, packet_type: int, payload: bytes) -> None:
        """Queue one packet."""
        if self._closed:
            raise TransportClosedError(self._closed)
        if len(payload) > PACKET_PAYLOAD_MAX:
            raise ValueError("a packet's size has 16 bits")
        self._queue.append((packet_type, payload))
        self._queued += len(payload)
        self.bytes_sent += len(payload)
        self.packets_sent += 1
        if self._queued > TRANSPORT_QUEUE_MAX:
            self._close("the peer does not read")
        elif len(self._queue) == 1:
            self._wake()

    async def wait_silent(self) -> None:
        """Wait until it is closed, or `is_silent` was set and something moved."""
        while not (self._closed or self.is_silent):
            await self._changed.wait()

    async def drain(self) -> None:
        """Wait until less than a quarter of TRANSPORT_QUEUE_MAX is unsent."""
        while self._queued >= TRANSPORT_QUEUE_MAX // 4 and not self._closed:
            await self._changed.wait()

    async def aclose(self, reason: str) -> None:
        """Close both ends."""
        self._close(reason)

    def _close(self, reason: str) -> None:
        for end in (self, self.other):
            if not end._closed:
                end._closed = reason
                end._queue.clear()
                end._wake()
                end.here.gone(end)

    async def deliver(self) -> None:
        """Carry packets to the other end, some at a time, until the link closes."""
        while not self._closed:
            if self.held or not self._queue:
                await self._changed.wait()
                continue
            size = 0
            while self._queue and size < TURN_BYTES:
                packet_type, payload = self._queue.popleft()
                size += len(payload)
                self.other.arrive(packet_type, payload)
            self._queued -= size
            if self._queued < TRANSPORT_QUEUE_MAX // 4:
                self._wake()
            await anyio.lowlevel.checkpoint()

    def arrive(self, packet_type: int, payload: bytes) -> None:
        """Dispatch a packet as if the peer had sent it."""
        if self._closed:
            return
        self.bytes_received += len(payload)
        handler = self.here.handlers.get(packet_type)
        if handler is None:
            self.here.unclaimed += 1
            there = self.other.here.handlers.get(packet_type)
            if isinstance(there, RefusalHandler):
                there.refused(self.other, f"packet type {packet_type} is not served here")
            return
        try:
            handler.packet(self, payload)
        except RemoteProtocolError as broken:
            self._close(str(broken))


class MemoryTransports:
    """One node's transports; `ensure` links it to any other node of the same call."""

    def __init__(
        self, public: PubKey, nodes: dict[bytes, MemoryTransports], tasks: TaskGroup
    ) -> None:
        self.public = public
        self.addresses = _NoAddresses()
        self.handlers: dict[int, PacketHandler] = {}
        self.unclaimed = 0
        self.reachable = True
        self.dials = 0
        self._nodes = nodes
        self._tasks = tasks
        self._live: dict[bytes, MemoryTransport] = {}
        self._callbacks: list[CHANGE] = []

    def all(self) -> Sequence[MemoryTransport]:
        """Return the live transports."""
        return tuple(self._live.values())

    def find(self, remote: bytes, kind: str | None = None) -> MemoryTransport | None:
        """Return the live transport to a key; its one type is direct."""
        return self._live.get(remote)

    @property
    def counters(self) -> Mapping[str, int]:
        """Count nothing."""
        return {}

    def listening(self) -> Sequence[Address]:
        """Return nothing: there are no addresses in memory."""
        return ()

    @property
    def types(self) -> tuple[str, ...]:
        """Return the one type."""
        return (MemoryTransport.type,)

    async def ensure(
        self,
        remote: PubKey,
        label: str = "ephemeral",
        *,
        look_up: bool = True,
        kind: str | None = None,
    ) -> MemoryTransport:
        """Return the live transport to a key, or make one."""
        live = self._live.get(remote)
        if live is not None:
            return live
        await anyio.lowlevel.checkpoint()
        there = self._nodes.get(remote)
        if there is None or not there.reachable:
            raise DialError(f"{short(remote)} could not be reached")
        if remote not in self._live:
            self.dials += 1
            self._link(there, label)
        return self._live[remote]

    def _link(self, there: MemoryTransports, label: str) -> None:
        near = MemoryTransport(self, there.public, True, label)
        far = MemoryTransport(there, self.public, False, label)
        near.other, far.other = far, near
        for node, end in ((self, near), (there, far)):
            node._live[end.remote] = end
            node._tasks.start_soon(end.deliver)
            for callback in tuple(node._callbacks):
                callback(end, True)

    def gone(self, end: MemoryTransport) -> None:
        """Tell everybody that a transport has closed."""
        if self._live.get(end.remote) is end:
            del self._live[end.remote]
        for handler in tuple(self.handlers.values()):
            handler.closed(end)
        for callback in tuple(self._callbacks):
            callback(end, False)

    async def close(self, transport_id: uuid.UUID, reason: str) -> bool:
        """Close a transport by its id."""
        for end in self.all():
            if end.id == transport_id:
                await end.aclose(reason)
                return True
        return False

    @contextmanager
    def claim(self, packet_type: int, handler: PacketHandler) -> Iterator[None]:
        """Receive a packet type while the context lasts."""
        if packet_type in self.handlers:
            raise PluginConflictError(f"packet type {packet_type} is claimed")
        self.handlers[packet_type] = handler
        try:
            yield
        finally:
            del self.handlers[packet_type]

    @contextmanager
    def on_change(self, callback: CHANGE) -> Iterator[None]:
        """Be told of transports that come and go."""
        self._callbacks.append(callback)
        try:
            yield
        finally:
            self._callbacks.remove(callback)


@asynccontextmanager
async def linked_transports(*keys: PubKey) -> AsyncIterator[tuple[MemoryTransports, ...]]:
    """Give each key its `Transports`; they reach each other while the context lasts."""
    nodes: dict[bytes, MemoryTransports] = {}
    async with anyio.create_task_group() as tasks:
        for key in keys:
            nodes[key] = MemoryTransports(key, nodes, tasks)
        try:
            yield tuple(nodes.values())
        finally:
            tasks.cancel_scope.cancel()

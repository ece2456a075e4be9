"""One TCP connection as anyio's ByteStream, read by the event loop itself.

Why not a readiness wait for each read: registering a socket, failing to read it, waiting, reading
and taking it off again costs a small message more than sealing it does. Here the loop's own
transport reads into one buffer of the node's, for the life of the connection. This module and its
neighbours are the only ones that name asyncio; above them everything is anyio.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, cast

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.lowlevel import checkpoint

from skycore.contracts.transport import LineAttribute

__all__ = ["READ_BYTES", "TcpStream"]

READ_BYTES = 120 * 1024
"""One read at most. From 128 KiB on, malloc would map fresh memory for each."""
HELD_MAX = 512 * 1024
"""Unread bytes at which the loop stops reading: then the kernel's window closes."""
TURNS_MAX = 16
"""Calls that succeed at once before the task lets others run: nobody starves beside a busy link."""


class TcpStream(ByteStream):
    """A connected TCP socket.

    Raises anyio's `EndOfStream`, `BrokenResourceError` and `ClosedResourceError`, like its own
    streams. One reader and one writer at a time; closing wakes both. `buffer` may be shared by all
    streams of one event loop: it is filled and emptied within one call of the loop.
    """

    def __init__(self, sock: socket.socket, buffer: bytearray | None = None) -> None:
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # a connection that is gone already says so when read
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._link = _link(buffer)
        self._attaching: asyncio.Task[None] | None = None
        self._turns = 0
        self._closed = False
        self._local: Any = None
        self._remote: Any = None
        with contextlib.suppress(OSError):
            self._local, self._remote = sock.getsockname(), sock.getpeername()

    async def _attach(self) -> None:
        """Hand the socket to the loop, once. Reader and writer may come here together."""
        if self._attaching is None:
            self._attaching = asyncio.get_running_loop().create_task(self._hand_over())
        await asyncio.shield(self._attaching)

    async def _hand_over(self) -> None:
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: self._link, self._socket)
        except OSError as bad:
            self._link.connection_lost(bad)
        if self._closed and self._link.transport:
            self._link.transport.abort()

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Return at least one byte."""
        await self._turn()
        link = self._link
        while True:
            if link.held:
                return link.take(max_bytes)
            if self._closed:
                raise anyio.ClosedResourceError
            if link.lost is not None:
                raise anyio.BrokenResourceError(str(link.lost)) from link.lost
            if link.ended:
                raise anyio.EndOfStream
            if link.transport is None:
                await self._attach()
                continue
            self._turns = 0
            await link.wait_readable()

    async def send(self, item: bytes) -> None:
        """Send all of it: returns when the kernel has it."""
        await self._turn()
        link = self._link
        if link.transport is None and not self._closed:
            await self._attach()
        self._check_writable()
        assert link.transport is not None
        link.transport.write(item)
        while link.is_full:
            self._turns = 0
            await link.wait_writable()
            self._check_writable()

    def _check_writable(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError
        if self._link.is_gone:
            raise anyio.BrokenResourceError(str(self._link.lost or "the connection was lost"))

    async def _turn(self) -> None:
        """Let others run now and then: before the call, for a cancelled one must lose no bytes."""
        self._turns += 1
        if self._turns >= TURNS_MAX:
            self._turns = 0
            await checkpoint()

    async def send_eof(self) -> None:
        """End our direction."""
        if self._link.transport is None and not self._closed:
            await self._attach()
        self._check_writable()
        assert self._link.transport is not None
        self._link.transport.write_eof()
        await checkpoint()

    async def aclose(self) -> None:
        """Close at once. Whoever waits on it is woken; the kernel still sends what it holds."""
        if not self._closed:
            self._closed = True
            if self._link.transport is not None:
                self._link.transport.abort()
            elif self._attaching is None:
                self._socket.close()
            self._link.wake()
        await checkpoint()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Return anyio's typed attributes: both addresses as (host, port); whether it ended."""
        return {
            LineAttribute.ended: lambda: self._link.ended,
            SocketAttribute.local_address: lambda: self._local[:2],
            SocketAttribute.remote_address: lambda: _plain(self._remote),
        }


class _Link(asyncio.BaseProtocol):
    """What the loop tells of a connection: bytes, room, the end."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.held: deque[bytes] = deque()
        self._held_bytes = 0
        self._taken = 0
        """How much of the oldest chunk has been handed out."""
        self._paused = False
        self.ended = False
        self.is_gone = False
        self.is_full = False
        self.lost: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    # --- told by the loop ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=0)  # full means: the kernel has not taken it

    def data_received(self, data: bytes) -> None:
        self.held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes >= HELD_MAX and not self._paused and self.transport:
            self._paused = True
            self.transport.pause_reading()
        _wake(self._reader)

    def eof_received(self) -> bool:
        self.ended = True
        _wake(self._reader)
        return True  # the other direction stays open

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        _wake(self._writer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_gone = True
        self.is_full = False
        self.ended = True
        self.lost = exc
        self.wake()

    # --- asked by the stream ---------------------------------------------------------------------

    def wake(self) -> None:
        """Let whoever waits look again."""
        _wake(self._reader)
        _wake(self._writer)

    def take(self, max_bytes: int) -> bytes:
        """Return the oldest bytes that are held."""
        data = self.held[0]
        if self._taken or len(data) > max_bytes:
            stop = self._taken + max_bytes
            data, whole = data[self._taken : stop], len(data)
            self._taken = stop
            if stop >= whole:
                self._taken = 0
                self.held.popleft()
        else:
            self.held.popleft()
        self._held_bytes -= len(data)
        if self._paused and self._held_bytes < HELD_MAX // 2 and self.transport:
            self._paused = False
            if not self.is_gone:
                self.transport.resume_reading()
        return data

    async def wait_readable(self) -> None:
        """Return when there is something to look at."""
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    async def wait_writable(self) -> None:
        """Return when the kernel may have taken all."""
        self._writer = asyncio.get_running_loop().create_future()
        try:
            await self._writer
        finally:
            self._writer = None


class _PlainLink(_Link, asyncio.Protocol):
    """For uvloop, which hands out right-sized bytes by itself."""


class _BufferedLink(_Link, asyncio.BufferedProtocol):
    """For asyncio, which would map fresh memory for each read: one buffer, one copy."""

    def __init__(self, buffer: bytearray) -> None:
        super().__init__()
        self._buffer = buffer
        self._view = memoryview(buffer)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._view[:nbytes]))


def _link(buffer: bytearray | None) -> _Link:
    if isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        return _BufferedLink(buffer if buffer is not None else bytearray(READ_BYTES))
    return _PlainLink()


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _plain(address: Any) -> tuple[str, int]:
    """Return (host, port), an IPv4 peer of a dual-stack socket under its IPv4 name.

    A connection that was reset before we took it has no address any more: then both are empty.
    """
    if not address:
        return "", 0
    host, port = address[:2]
    if host.startswith("::ffff:") and "." in host:
        host = host.removeprefix("::ffff:")
    return host, port

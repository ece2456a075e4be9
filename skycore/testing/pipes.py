"""Pipes: the two directions of a simulated connection, with what TCP does to them.

Why no task per message: one timer a direction, set for the next arrival, delivers in order. A
thousand nodes cost what they send, not what they keep open.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.abc import ByteStream, SocketAttribute

from skycore.testing.trace import Dice, Trace

if TYPE_CHECKING:
    from skycore.testing.loop import SimLoop

__all__ = ["LOOPBACK", "Link", "Path", "Pipe", "SimStream", "wake"]

GIVE_UP_S: Final = 924.6
"""How long TCP repeats itself before it calls a connection dead: Linux, tcp_retries2 = 15."""
REPEAT_S: Final = 0.2
"""Shortest wait before lost data is sent again: Linux, TCP_RTO_MIN."""
REPEAT_MAX_S: Final = 60.0
"""Longest wait, after a cut is mended, until the next repetition comes through."""
FIN: Final = b""
RST: Final = None


@dataclass(frozen=True)
class Link:
    """What a way between two hosts is like, one direction of it."""

    latency_s: float = 0.02
    jitter_s: float = 0.005
    """Added to the latency, drawn evenly from 0 to this."""
    bytes_per_s: float = 12_500_000.0
    loss: float = 0.0
    """Share of sends that must be repeated (TCP turns loss into delay), of datagrams lost."""
    split: float = 0.0
    """Share of sends that arrive in two parts: finds code that takes a read for a message."""
    reorder: float = 0.0
    """Share of datagrams that come up to `reorder_s` late, so that later ones overtake them."""
    reorder_s: float = 0.02
    duplicate: float = 0.0
    """Share of datagrams that arrive twice."""
    corrupt: float = 0.0
    """Share of datagrams with one bit turned over, and a checksum that does not show it."""
    mtu: int = 1_500
    """Largest IPv4 packet that passes, headers included. Larger datagrams vanish silently."""
    queue_s: float = 0.5
    """Datagrams that would wait longer for their turn at `bytes_per_s` are lost."""


LOOPBACK: Final = Link(latency_s=0.00002, jitter_s=0.0, bytes_per_s=1e9, mtu=65_535)


class Path:
    """The way from one host to another, which all their connections share."""

    __slots__ = ("_datagram_at", "free_at", "link", "open", "stalled")

    def __init__(self, link: Link, is_open: bool) -> None:
        self.link = link
        self.open = is_open
        self.free_at = 0.0
        self._datagram_at = 0.0
        self.stalled: dict[Pipe, None] = {}

    def delay_s(self, size: int, now: float, dice: Dice) -> float:
        """Return how long a send takes from now until it is there, and take its bandwidth."""
        link = self.link
        begins = self.free_at if self.free_at > now else now
        self.free_at = begins + size / link.bytes_per_s
        delay = self.free_at - now + link.latency_s + link.jitter_s * dice.random()
        if link.loss:
            repeat = max(REPEAT_S, 2 * link.latency_s)
            while dice.random() < link.loss and repeat < REPEAT_MAX_S:
                delay += repeat
                repeat *= 2
        return delay

    def datagram_delay_s(self, size: int, now: float, dice: Dice) -> float | None:
        """Return how long a datagram takes, and take its bandwidth; None where there is no room.

        Jitter delays, it does not reorder: that is what `reorder` is for.
        """
        link = self.link
        begins = self.free_at if self.free_at > now else now
        if begins - now > link.queue_s:
            return None
        self.free_at = begins + size / link.bytes_per_s
        arrives = self.free_at + link.latency_s + link.jitter_s * dice.random()
        self._datagram_at = max(self._datagram_at, arrives)
        return self._datagram_at - now

    def set_open(self, is_open: bool, *, gently: bool) -> None:
        """Cut or mend. What was sent meanwhile comes through when TCP repeats it; gently: now."""
        self.open = is_open
        if is_open:
            stalled, self.stalled = self.stalled, {}
            for pipe in stalled:
                pipe.resume(gently=gently)


class Pipe:
    """One direction of a connection: what was sent, in order, and when it arrives."""

    __slots__ = (
        "_dice", "_flying", "_last", "_loop", "_name", "_stalled_at", "_timer", "_trace",
        "arrived", "bytes_held", "ended", "path", "reader", "sink", "writer",
    )  # fmt: skip

    def __init__(self, loop: SimLoop, path: Path, dice: Dice, trace: Trace, name: str) -> None:
        self._loop, self._dice, self._trace, self._name = loop, dice, trace, name.encode()
        self.path = path
        self._flying: deque[tuple[float, bytes | None]] = deque()
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._stalled_at: float | None = None
        self.arrived: deque[bytes] = deque()
        self.bytes_held = 0
        self.ended = False
        self.reader: asyncio.Future[None] | None = None
        self.writer: asyncio.Future[None] | None = None
        self.sink: SimStream
        """The end that reads from here."""

    def push(self, data: bytes | None) -> None:
        """Send bytes, FIN or RST."""
        if data and len(data) > 1 and self._dice.random() < self.path.link.split:
            cut = 1 + int(self._dice.random() * (len(data) - 1))
            self._push(data[:cut])
            data = data[cut:]
        self._push(data)

    def _push(self, data: bytes | None) -> None:
        now = self._loop.time()
        size = len(data) if data else 0
        arrives = max(self._last, now + self.path.delay_s(size, now, self._dice))
        self._last = arrives
        self._flying.append((arrives, data))
        self.bytes_held += size
        if self._timer is None and self._stalled_at is None:
            self._timer = self._loop.call_at(arrives, self._arrive)

    def _arrive(self) -> None:
        self._timer = None
        if not self.path.open:
            self._stall()
            return
        now = self._loop.time() + 1e-9
        while self._flying and self._flying[0][0] <= now:
            self._deliver(self._flying.popleft()[1])
        if self._flying:
            self._timer = self._loop.call_at(self._flying[0][0], self._arrive)

    def _deliver(self, data: bytes | None) -> None:
        self._trace.arrived(self._loop.time(), self._name, data)
        if data is RST:
            self.sink.broken("the connection was reset")
        elif data == FIN:
            self.ended = True
        elif self.sink.is_closed:
            self.sink.refuse()
        else:
            self.arrived.append(data)
        wake(self.reader)

    def _stall(self) -> None:
        self._stalled_at = self._loop.time()
        self.path.stalled[self] = None
        self._timer = self._loop.call_later(GIVE_UP_S, self._give_up)

    def _give_up(self) -> None:
        self._timer = None
        self.path.stalled.pop(self, None)
        self.drop()
        self.sink.peer.broken("the connection timed out")

    def resume(self, *, gently: bool) -> None:
        """Go on after a cut: at once, or when a sender that backs off tries again."""
        if self._timer is not None:
            self._timer.cancel()
        now = self._loop.time()
        waited = now - (self._stalled_at or now)
        wait = 0.0 if gently else self._dice.random() * min(waited, REPEAT_MAX_S)
        self._stalled_at = None
        self._timer = self._loop.call_at(now + wait + self.path.link.latency_s, self._arrive)

    def drop(self) -> None:
        """Forget what is on its way."""
        self._flying.clear()
        self.bytes_held = sum(map(len, self.arrived))

    def take(self, max_bytes: int) -> bytes:
        """Return arrived bytes, at least one, and let the writer go on."""
        arrived = self.arrived
        data = arrived.popleft()
        if len(data) > max_bytes:
            arrived.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        elif arrived and len(data) + len(arrived[0]) <= max_bytes:
            parts, size = [data], len(data)
            while arrived and size + len(arrived[0]) <= max_bytes:
                size += len(arrived[0])
                parts.append(arrived.popleft())
            data = b"".join(parts)
        self.bytes_held -= len(data)
        wake(self.writer)
        return data


def wake(waiter: asyncio.Future[None] | None) -> None:
    """Let a waiting task look again."""
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


class SimStream(ByteStream):
    """One end of a simulated TCP connection, as anyio's own socket stream behaves."""

    def __init__(
        self,
        incoming: Pipe,
        outgoing: Pipe,
        addresses: tuple[tuple[str, int], tuple[str, int]],
        buffer_max: int,
        forget: Callable[[SimStream], None],
    ) -> None:
        self._in, self._out = incoming, outgoing
        self._local, self._remote = addresses
        self._buffer_max = buffer_max
        self._forget = forget
        self._why_broken = ""
        self._eof_sent = False
        self.is_closed = False
        self.peer: SimStream
        incoming.sink = self

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The addresses of both ends."""
        return {
            SocketAttribute.local_address: lambda: self._local,
            SocketAttribute.remote_address: lambda: self._remote,
            SocketAttribute.local_port: lambda: self._local[1],
            SocketAttribute.remote_port: lambda: self._remote[1],
        }

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return arrived bytes. Raises as anyio's sockets do: EndOfStream, BrokenResourceError."""
        pipe = self._in
        if pipe.reader is not None:
            raise anyio.BusyResourceError("receiving from")
        if pipe.arrived:
            await asyncio.sleep(0)
        while not self.is_closed:
            if pipe.arrived:
                return pipe.take(max_bytes)
            if self._why_broken:
                raise anyio.BrokenResourceError(self._why_broken)
            if pipe.ended:
                raise anyio.EndOfStream
            pipe.reader = asyncio.get_running_loop().create_future()
            try:
                await pipe.reader
            finally:
                pipe.reader = None
        raise anyio.ClosedResourceError

    async def send(self, item: bytes) -> None:
        """Send; waits while more than the buffer is unread at the other end."""
        pipe = self._out
        if pipe.writer is not None:
            raise anyio.BusyResourceError("sending to")
        await asyncio.sleep(0)
        self._check_writable()
        if item:
            pipe.push(bytes(item))
        while pipe.bytes_held > self._buffer_max:
            pipe.writer = asyncio.get_running_loop().create_future()
            try:
                await pipe.writer
            finally:
                pipe.writer = None
            self._check_writable()

    def _check_writable(self) -> None:
        if self.is_closed:
            raise anyio.ClosedResourceError
        if self._why_broken or self._eof_sent:
            raise anyio.BrokenResourceError(self._why_broken or "the stream was ended")

    async def send_eof(self) -> None:
        """End our side."""
        if not self._eof_sent and not self._why_broken:
            self._eof_sent = True
            self._out.push(FIN)

    async def aclose(self) -> None:
        """Close both sides, at once; unread data resets the connection, as TCP does."""
        if not self.is_closed:
            self._close(reset=bool(self._in.arrived))
        await asyncio.sleep(0)

    def kill(self) -> None:
        """End as the socket of a process that died: the peer sees a reset."""
        if not self.is_closed:
            self._close(reset=True)

    def _close(self, *, reset: bool) -> None:
        self.is_closed = True
        if not self._why_broken:
            if reset:
                self._out.push(RST)
            elif not self._eof_sent:
                self._out.push(FIN)
        self._in.arrived.clear()
        self._in.bytes_held = 0
        self._wake_all()
        self._forget(self)

    def broken(self, why: str) -> None:
        """Be told that the connection is dead. What has arrived can still be read."""
        if self._why_broken or self.is_closed:
            return
        self._why_broken = why
        self._out.drop()
        self._wake_all()
        self._forget(self)

    def refuse(self) -> None:
        """Answer data for a closed end, with a reset."""
        if not self.peer.is_closed:
            self._out.push(RST)

    def _wake_all(self) -> None:
        wake(self._in.reader)
        wake(self._in.writer)
        wake(self._out.reader)
        wake(self._out.writer)

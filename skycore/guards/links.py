"""One live link: a reader, a writer, pings, counters, and one reason for its end.

Why a writer task: packets of many streams share a link. `send` only queues; the writer joins what
gathered since its last turn into one write, so sixty-four small answers cost one sealed frame and
one system call. Pings and their answers overtake queued data, which the packet format allows:
packets of different types have no order between them.

What silence means: `guards.pulse`.

Why a tick and no timers: one task of the manager looks at all links three times per ping interval.
A timer per link cost the original network half a core at 460 links.

Why a ping is left out where the peer was just heard: its ping says that it is there as well as its
answer to ours. Two idle ends so take turns, and a busy link is pinged once a minute, for its time.
"""

from __future__ import annotations

import logging
import struct
import uuid
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import anyio

from skycore.contracts.runtime import Clock
from skycore.contracts.security import Hello, SecureChannel
from skycore.contracts.transport import PacketHandler, RefusalHandler
from skycore.errors import RemoteProtocolError, TransportClosedError
from skycore.guards.pulse import PING_TICKS, Pulse
from skycore.guards.refusals import Refusals
from skycore.guards.sendqueue import SendQueue
from skycore.model.keys import PubKey, short
from skycore.model.numbers import PacketType
from skycore.model.packets import PacketParser

__all__ = ["LABELS", "PING_TICKS", "Link", "LinkOwner"]

log = logging.getLogger(__name__)

LABELS: Final = ("ephemeral", "automatic", "user")
"""Weakest first."""
FLUSH_S: Final = 0.05
"""How long a closing link may still send: closing never waits for the peer."""
GOODBYE_S: Final = 1.0
STALLED_TICKS: Final = 18
"""Ticks (60 s) in which not one write finished, although there is something to send."""
ERROR_TEXT_MAX: Final = 200
WHOLE_LINK: Final = 0
"""First byte of an Error packet that is about the link, not about one packet type."""

_PING = struct.Struct(">QB")
_PING_ECHO: Final = 8


class LinkOwner(Protocol):
    """What a link needs of its manager. All of it is synchronous."""

    clock: Clock
    refusals: Refusals

    @property
    def handlers(self) -> Mapping[int, PacketHandler]:
        """Who claimed which packet type."""
        ...

    def link_closed(self, link: Link) -> None:
        """Take it out of the tables, at once."""
        ...

    def link_ended(self, link: Link) -> None:
        """Tell everybody, from the link's own task."""
        ...


class Link:
    """An authenticated link. `contracts.transport.Transport`; `run` is its life."""

    def __init__(
        self,
        owner: LinkOwner,
        channel: SecureChannel,
        *,
        link_id: uuid.UUID,
        transport_type: str,
        dialled: bool,
        label: str,
        first_ping_s: float,
        ping_interval_s: float,
        host: str = "",
        loss: Callable[[], float | None] = lambda: None,
        is_watched: bool = False,
    ) -> None:
        now = owner.clock.now()
        self.id = link_id
        self.remote: PubKey = channel.remote
        self.type = transport_type
        self.dialled = dialled
        self.label = label
        self.remote_hello: Hello = channel.hello
        self.host = host
        self.is_watched = is_watched
        """Whether the type ends it by itself once the other end is gone."""
        self.opened_at = now
        self.rtt_s: float | None = None
        self.bytes_sent = 0
        self.bytes_received = 0
        self.packets_received = 0
        self.packets_dropped = 0
        """Unclaimed types and foreign route ids."""
        self.announced = False
        """Whether the manager said that it is up."""
        self.drains_since: float | None = None
        """Since when another link has its place; it ends once it is idle."""
        self.used_at = now
        self.peer_keeps = False
        """Whether the peer's last ping said that it wants this link for more than a lookup."""

        self._owner = owner
        self._channel = channel
        self._loss = loss
        self._closed = ""
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()
        self._parser = PacketParser()

        self._queue = SendQueue()
        self._pulse = Pulse(
            now, first_ping_s=first_ping_s, interval_s=ping_interval_s, is_watched=is_watched
        )
        self._silence = anyio.Event()
        self._used = False
        self._told_keeps: bool | None = None
        self._sent_last_tick = 0
        self._stalled = 0
        self._refused_types: set[int] = set()

    def __repr__(self) -> str:
        way = "to" if self.dialled else "from"
        return f"<Link {self.type} {way} {short(self.remote)} {self._closed or 'open'}>"

    # --- what everybody may do ---------------------------------------------------------------

    @property
    def loss(self) -> float | None:
        """Share of what was sent that was lost on the way; None where the type does not know."""
        return self._loss()

    @property
    def heard_at(self) -> float:
        """When something came, to a tick."""
        return self._pulse.heard_at

    @property
    def is_silent(self) -> bool:
        """Whether three pings are unanswered, and nothing else came."""
        return self._pulse.is_silent

    @property
    def closed(self) -> str:
        """Why it is closed; empty while it is open."""
        return self._closed

    def send(self, packet_type: int, payload: bytes) -> None:
        """Queue one packet on route 0. Raises `TransportClosedError`."""
        if self._closed:
            raise TransportClosedError(self._closed)
        self._used = True
        if not self._queue.put(packet_type, payload):
            self._overflow()
            raise TransportClosedError(self._closed)

    async def drain(self) -> None:
        """Wait until less than a quarter of TRANSPORT_QUEUE_MAX is unsent. Or closed."""
        if not self._closed:
            await self._queue.wait_calm()

    async def wait_silent(self) -> None:
        """Wait until it is silent, or closed."""
        while not (self._closed or self.is_silent):
            self._silence = anyio.Event() if self._silence.is_set() else self._silence
            await self._silence.wait()

    async def aclose(self, reason: str) -> None:
        """Close: what is queued has FLUSH_S to go, and the peer is told the reason."""
        self.close(reason)
        with anyio.move_on_after(FLUSH_S + GOODBYE_S):
            await self._ended.wait()

    # --- what the manager may do -------------------------------------------------------------

    @property
    def unsent(self) -> int:
        """Bytes queued or being written."""
        return self._queue.unsent

    def close(self, reason: str, *, tell: bool = True) -> None:
        """Begin the end, without waiting; `tell` sends the peer the reason, if it takes it now."""
        if self._closed:
            return
        self._closed = reason or "closed"
        self._silence.set()
        self._owner.link_closed(self)
        if tell:
            self._queue.put(PacketType.ERROR, _error(WHOLE_LINK, self._closed))  # after the rest
            self._scope.deadline = anyio.current_time() + FLUSH_S
        else:
            self._scope.cancel()
        self._queue.release()

    def strengthen(self, label: str) -> None:
        """Take a stronger label, and let the peer know with the next ping."""
        if LABELS.index(label) > LABELS.index(self.label):
            self.label = label
            self._pulse.hurry(self._owner.clock.now())

    def probe(self) -> None:
        """Ask now whether the peer is still there."""
        if not self._pulse.is_asked:
            self._ping(self._owner.clock.now())

    def tick(self, now: float) -> None:
        """Look after the link; called PING_TICKS times per ping interval."""
        if self._closed:
            return
        self._refused_types.clear()
        if self._used:
            self._used, self.used_at = False, now
        over = self._pulse.tick(now)
        if over:
            self.close(over, tell=False)
            return
        if self._pulse.is_silent:
            self._silence.set()
        idle = self.bytes_sent != self._sent_last_tick or not self._queue.unsent
        self._stalled = 0 if idle else self._stalled + 1
        self._sent_last_tick = self.bytes_sent
        if self._stalled >= STALLED_TICKS:
            self.close("peer does not read: nothing could be sent for a minute", tell=False)
            return
        if self._pulse.wants_ping(now, has_news=self._told_keeps is not self._keeps):
            self._ping(now)

    @property
    def _keeps(self) -> bool:
        return self.label != LABELS[0]

    # --- its life ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read and write until it is closed; then tell the manager."""
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._write)
                    await self._read()
        finally:
            self.close("this node stops", tell=False)
            with anyio.CancelScope(shield=True), anyio.move_on_after(GOODBYE_S):
                await self._channel.aclose()
            self._queue.clear()
            self._ended.set()
            self._owner.link_ended(self)

    async def _read(self) -> None:
        channel = self._channel
        try:
            while not self._closed:
                data = await channel.receive()
                self.bytes_received += len(data)
                self._pulse.heard()
                if not self._closed:
                    self._take(data)
        except TransportClosedError as end:
            self.close(
                f"closed by the peer: {end}" if str(end) else "closed by the peer", tell=False
            )
        except RemoteProtocolError as bad:
            self._broken(bad)
        except Exception:
            log.exception("reading failed pk=%s type=%s", short(self.remote), self.type)
            self.close("reading failed", tell=False)

    def _take(self, data: bytes) -> None:
        handlers = self._owner.handlers
        handler: PacketHandler | None = None
        try:
            for packet_type, route_id, payload in self._parser.feed(data):
                self.packets_received += 1
                handler = None if route_id else handlers.get(packet_type)
                if handler is not None:
                    self._used = True
                    handler.packet(self, payload)
                elif route_id:
                    self.packets_dropped += 1
                else:
                    self._control(packet_type, payload)
                if self._closed:
                    return
        except RemoteProtocolError as bad:
            self._broken(bad)
        except TransportClosedError as end:
            self.close(f"the answer to a packet could not be sent: {end}")
        except Exception:
            name = type(handler).__qualname__
            log.exception("packet handler failed handler=%s pk=%s", name, short(self.remote))
            self.close(f"the packet handler {name} failed")

    async def _write(self) -> None:
        channel, queue = self._channel, self._queue
        try:
            while queue.unsent or not self._closed:
                await queue.wait_some()
                batch = queue.take()
                await channel.send(batch)
                self.bytes_sent += len(batch)
                queue.sent(len(batch))
        except TransportClosedError as end:
            self.close(
                f"closed by the peer: {end}" if str(end) else "closed by the peer", tell=False
            )
        except Exception:
            log.exception("writing failed pk=%s type=%s", short(self.remote), self.type)
            self.close("writing failed", tell=False)
        self._scope.cancel()

    # --- the link itself: ping, pong, error -------------------------------------------------------

    def _broken(self, bad: RemoteProtocolError) -> None:
        self._owner.refusals.broken(self.remote, self.type, bad)
        self.close(f"the peer broke the protocol: {bad}")

    def _control_out(self, packet_type: int, payload: bytes) -> None:
        if not self._closed and not self._queue.put_urgent(packet_type, payload):
            self._overflow()

    def _overflow(self) -> None:
        self.close(f"peer does not read: {self._queue.unsent} bytes are unsent", tell=False)

    def _ping(self, now: float) -> None:
        stamp = self._owner.clock.wall_ns()
        self._pulse.asked(now, stamp)
        self._told_keeps = self._keeps
        self._control_out(PacketType.TRANSPORT_PING, _PING.pack(stamp, self._keeps))

    def _control(self, packet_type: int, payload: bytes) -> None:
        if packet_type == PacketType.TRANSPORT_PING:
            self._on_ping(payload)
        elif packet_type == PacketType.TRANSPORT_PONG:
            self._on_pong(payload)
        elif packet_type == PacketType.ERROR:
            self._on_error(payload)
        else:
            self.packets_dropped += 1
            if packet_type not in self._refused_types:  # once a tick: no answer to a flood
                self._refused_types.add(packet_type)
                text = f"packet type {packet_type} is not served here"
                self._control_out(PacketType.ERROR, _error(packet_type, text))

    def _on_ping(self, payload: bytes) -> None:
        if not _PING_ECHO <= len(payload) <= 64:
            raise RemoteProtocolError(f"a transport ping of {len(payload)} bytes")
        if len(payload) > _PING_ECHO:
            self.peer_keeps = bool(payload[_PING_ECHO])
        self._control_out(PacketType.TRANSPORT_PONG, payload[:_PING_ECHO])

    def _on_pong(self, payload: bytes) -> None:
        if len(payload) != _PING_ECHO:
            raise RemoteProtocolError(f"a transport pong of {len(payload)} bytes")
        self._pulse.answered(self._owner.clock.now(), int.from_bytes(payload, "big"))
        self.rtt_s = self._pulse.rtt_s

    def _on_error(self, payload: bytes) -> None:
        """Hear why. Never answered: two nodes must not argue for ever."""
        about = payload[0] if payload else WHOLE_LINK
        text = payload[1 : 1 + ERROR_TEXT_MAX].decode("utf-8", "replace")
        text = "".join(c if c.isprintable() else "?" for c in text)
        if about == WHOLE_LINK:
            self.close(f"closed by the peer: {text}", tell=False)
            return
        handler = self._owner.handlers.get(about)
        log.debug("peer refuses packet_type=%d pk=%s reason=%r", about, short(self.remote), text)
        if isinstance(handler, RefusalHandler):
            handler.refused(self, text)


def _error(about: int, text: str) -> bytes:
    return bytes((about,)) + text.encode()[:ERROR_TEXT_MAX]

"""The one UDP socket, and the connections on it. Moves datagrams and timers, decides nothing.

Why one socket: a NAT's mapping belongs to a socket. What a resolver sees of this one is where
peers can reach every connection on it, dialled and accepted alike.
"""

from __future__ import annotations

import heapq
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import anyio

from skycore.contracts.runtime import Clock, DatagramSocket, Endpoint, Entropy
from skycore.errors import DialError
from skycore.model.limits import HANDSHAKE_TIMEOUT_S
from transport_sudph.core.kinds import CID_BYTES, Kind, connection_id, kind_of
from transport_sudph.seat import Seat
from transport_sudph.settings import SudphSettings
from transport_sudph.stream import SudphStream

if TYPE_CHECKING:
    from transport_sudph.core.link import QuicLink
    from transport_sudph.quic import Quic

__all__ = ["UdpEndpoint"]

log = logging.getLogger(__name__)

ROUNDING_S: Final = 1e-6
LINGER_S: Final = 5.0
"""How long what was written before a close is still sent."""
BACKLOG_MAX: Final = 64
GONE_MAX: Final = 256
"""Closed connections whose last word is kept, to be said again."""
GONE_S: Final = 60.0
WARN_S: Final = 60.0
LAST_WORDS_MAX: Final = 10


class UdpEndpoint:
    """Every connection of one socket. `run` moves it; all else is called between its turns."""

    def __init__(
        self, socket: DatagramSocket, settings: SudphSettings, clock: Clock, entropy: Entropy
    ) -> None:
        self._socket = socket
        self._settings = settings
        self._clock = clock
        self._entropy = entropy
        self._loaded: Quic | None = None
        self._seats: dict[QuicLink, Seat] = {}
        self._by_cid: dict[bytes, Seat] = {}
        self._gone: OrderedDict[bytes, list[object]] = OrderedDict()
        self._timers: list[tuple[float, int, Seat]] = []
        self._timer_count = 0
        self._sooner = anyio.Event()
        self._sleeps_until = self._warn_at = 0.0
        self.control: Callable[[bytes, Endpoint], None] | None = None
        """Takes resolver messages and punches."""
        self.backlog: deque[SudphStream] = deque()
        self.is_accepting = False
        self._arrived = anyio.Event()
        self.counters: Counter[str] = Counter()
        """Refused and ignored datagrams by reason, connections by fate."""
        self.local: Endpoint = (socket.host, socket.port)

    def __len__(self) -> int:
        return len(self._seats)

    @property
    def _quic(self) -> Quic:
        if self._loaded is None:
            from transport_sudph.quic import Quic

            self._loaded = Quic(self._entropy.bytes(32), self._settings)
        return self._loaded

    # --- the two loops ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Move datagrams and timers, for ever."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._receive, name="sudph receive")
            tasks.start_soon(self._keep_time, name="sudph timers")

    async def _receive(self) -> None:
        while True:
            touched: dict[Seat, None] = {}
            try:
                batch = await self._socket.receive()
            except anyio.ClosedResourceError:  # as when this machine is cut off: nothing comes
                log.warning("sudph receives no more: its socket is closed")
                return
            for data, sender in batch:
                seat = self._deliver(data, sender)
                if seat is not None:
                    touched[seat] = None
            for seat in touched:
                if seat.link in self._seats:
                    self._turn(seat)

    async def _keep_time(self) -> None:
        while True:
            now = self._clock.now() + ROUNDING_S  # what is due at a time is due when it has come
            due: list[Seat] = []
            while self._timers and self._timers[0][0] <= now:
                when, _, seat = heapq.heappop(self._timers)
                if when == seat.timer_at and seat.link in self._seats:
                    seat.timer_at = float("inf")
                    due.append(seat)
            for seat in due:  # each once: what is due again at once lets others have their turn
                if seat.link in self._seats:
                    self._tick(seat, now)
            self._sleeps_until = self._timers[0][0] if self._timers else float("inf")
            self._sooner = anyio.Event()
            with anyio.move_on_after(self._sleeps_until - self._clock.now()):
                await self._sooner.wait()

    # --- datagrams -------------------------------------------------------------------------------

    def send(self, data: bytes, to: Endpoint) -> bool:
        """Send a datagram that is none of QUIC's."""
        return self._socket.send(data, to)

    def _deliver(self, data: bytes, sender: Endpoint) -> Seat | None:
        kind = kind_of(data)
        if kind is Kind.CONTROL:
            if self.control is not None:
                self.control(data, sender)
            return None
        if kind is Kind.NOISE:
            self.counters["datagram_malformed"] += 1
            return None
        cid = connection_id(data, kind)
        seat = self._by_cid.get(cid)
        if seat is None:
            if kind is Kind.SHORT or cid in self._gone:
                self._say_again(cid, sender)
                return None
            seat = self._open(data, sender)
        if seat is not None:
            self._feed(seat, data, sender)
        return seat

    def _feed(self, seat: Seat, data: bytes, sender: Endpoint) -> None:
        try:
            if not seat.link.receive(data, sender, self._clock.now()):
                self.counters["datagram_ignored"] += 1  # broken, forged, or here already
        except self._quic.trouble as bad:
            self._broken(seat, bad)
            return
        if not seat.link.has_begun:
            self._leave(seat)

    def _open(self, data: bytes, sender: Endpoint) -> Seat | None:
        if not self.is_accepting:  # nor is QUIC loaded for a stranger's datagram
            self.counters["connection_refused"] += 1
            return None
        now = self._clock.now()
        opening = self._quic.door.open(data, sender, now, self._entropy.bytes(CID_BYTES))
        if isinstance(opening, bytes):
            self.counters["datagram_retry"] += 1
            self._socket.send(opening, sender)
            return None
        if isinstance(opening, str):
            self.counters[f"datagram_{opening}"] += 1
            return None
        if len(self._seats) >= self._settings.connections_max:
            self.counters["connection_refused"] += 1
            return None
        seat = self._sit(self._quic.accepted(opening), sender[0], None)
        self._quic.door.begun(sender[0])
        self._name(seat, opening.destination)
        return seat

    def _say_again(self, cid: bytes, sender: Endpoint) -> None:
        """Repeat why a connection was closed: the first time may have been lost."""
        gone = self._gone.get(cid)
        self.counters["datagram_unknown"] += 1
        if gone is not None:
            last, peer, until, left = gone
            if peer == sender and left and self._clock.now() < until:  # type: ignore[operator]
                gone[3] = left - 1  # type: ignore[operator]
                self._socket.send(last, sender)  # type: ignore[arg-type]

    # --- connections -----------------------------------------------------------------------------

    def _sit(self, link: QuicLink, host: str, up: Callable[[], None] | None) -> Seat:
        seat = self._seats[link] = Seat(link, host, self._clock.now(), up)
        self._name(seat, link.host_cid)
        return seat

    def _name(self, seat: Seat, cid: bytes) -> None:
        seat.cids.add(cid)
        self._by_cid[cid] = seat

    async def dial(self, to: Endpoint) -> SudphStream:
        """Open a connection to an address. The caller sets the time limit. Raises `DialError`."""
        if len(self._seats) >= self._settings.connections_max:
            raise DialError("this node has as many sudph connections as it may")
        link = self._quic.dialled(to, self._clock.now())
        done = anyio.Event()
        seat = self._sit(link, to[0], done.set)
        try:
            self._turn(seat)
            await done.wait()
        except BaseException:
            self._finish(seat, "the dial was given up")
            raise
        if not link.is_up or link.closed is not None:
            raise DialError(f"{to[0]} port {to[1]}: {link.closed or 'no answer'}")
        self.counters["connection_dialled"] += 1
        seat.stream = SudphStream(self, link)
        return seat.stream

    async def accept(self) -> SudphStream:
        """Return the next connection that somebody made."""
        while not self.backlog:
            self._arrived = anyio.Event()
            await self._arrived.wait()
        return self.backlog.popleft()

    def stop_accepting(self) -> None:
        """Take nobody any more, and close what nobody accepted."""
        self.is_accepting = False
        while self.backlog:
            self.let_go(self.backlog.popleft().link)

    def flush(self, link: QuicLink) -> None:
        """Send what a connection has to send."""
        seat = self._seats.get(link)
        if seat is not None:
            self._turn(seat)

    def let_go(self, link: QuicLink) -> None:
        """Close a connection once its peer has everything, or does not take it."""
        seat = self._seats.get(link)
        if seat is None:
            return
        link.refuse()
        link.end()
        seat.lingers = self._clock.now() + LINGER_S
        self._turn(seat)

    def close_all(self, reason: str) -> None:
        """Tell every peer that this node goes."""
        for seat in list(self._seats.values()):
            self._finish(seat, reason)

    def _turn(self, seat: Seat) -> None:
        """Look at a connection after anything happened to it."""
        link = seat.link
        try:
            for datagram, to in link.outgoing(self._clock.now()):
                self._socket.send(datagram, to)
        except self._quic.trouble as bad:
            self._broken(seat, bad)
            return
        self._take_names(seat)
        if seat.waits and (link.is_up or link.closed is not None):
            self._handshake_over(seat)
        if seat.stream is not None:
            seat.stream.wake()
        if link.closed is not None or link.is_draining:
            self._leave(seat)
        elif seat.lingers < float("inf") and link.is_delivered:
            self._finish(seat, "")
        else:
            self._set_timer(seat)

    def _take_names(self, seat: Seat) -> None:
        link = seat.link
        for cid in link.issued:
            self._name(seat, cid)
        for cid in link.retired:
            seat.cids.discard(cid)
            self._by_cid.pop(cid, None)
        link.issued.clear()
        link.retired.clear()

    def _handshake_over(self, seat: Seat) -> None:
        seat.waits = False
        if seat.up is not None:
            seat.up()
            return
        self._quic.door.done(seat.host)
        if not seat.link.is_up:
            self.counters["handshake_failed"] += 1
        elif not self.is_accepting or len(self.backlog) >= BACKLOG_MAX:
            self.counters["connection_refused"] += 1
            seat.link.finish("too many connections wait here")
        else:
            self.counters["connection_accepted"] += 1
            seat.stream = SudphStream(self, seat.link)
            self.backlog.append(seat.stream)
            self._arrived.set()

    def _tick(self, seat: Seat, now: float) -> None:
        link = seat.link
        if seat.waits and seat.up is None and now - seat.began >= HANDSHAKE_TIMEOUT_S:
            self._leave(seat)  # without a word: its address may be anybody's
            return
        if now >= seat.lingers:
            self._finish(seat, "closed")
            return
        try:
            due = link.get_timer()
            if due is not None and due <= now:
                link.tick(now)
            if link.is_up and now - link.sent_at >= self._settings.keepalive_s:
                link.keep_alive(now)
        except self._quic.trouble as bad:
            self._broken(seat, bad)
            return
        self._turn(seat)

    def _set_timer(self, seat: Seat) -> None:
        when = seat.link.get_timer()
        when = float("inf") if when is None else when
        if seat.link.is_up:
            when = min(when, seat.link.sent_at + self._settings.keepalive_s)
        elif seat.up is None:
            when = min(when, seat.began + HANDSHAKE_TIMEOUT_S)
        when = min(when, seat.lingers)
        if when == seat.timer_at:
            return
        seat.timer_at = when
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, seat))
        if when < self._sleeps_until:
            self._sooner.set()
        if len(self._timers) > 64 + 8 * len(self._seats):
            self._timers = [t for t in self._timers if t[0] == t[2].timer_at]
            heapq.heapify(self._timers)

    # --- ends ------------------------------------------------------------------------------------

    def _broken(self, seat: Seat, bad: BaseException) -> None:
        self.counters["connection_broken"] += 1
        now = self._clock.now()
        if now >= self._warn_at:  # strangers must not fill the log
            self._warn_at = now + WARN_S
            log.warning("sudph connection dropped error=%r peer=%s", bad, seat.link.peer)
        seat.link._over("the peer sent what cannot be handled")
        self._leave(seat)

    def _finish(self, seat: Seat, reason: str) -> None:
        """Close, say so, and forget the connection but for that word."""
        link = seat.link
        if link not in self._seats:
            return
        try:
            link.finish(reason)
            last = link.outgoing(self._clock.now())
        except self._quic.trouble:
            last = []
        for datagram, to in last:
            self._socket.send(datagram, to)
        if last:
            until = self._clock.now() + GONE_S
            for cid in seat.cids:
                self._gone[cid] = [*last[-1], until, LAST_WORDS_MAX]
            while len(self._gone) > GONE_MAX:
                self._gone.popitem(last=False)
        self._leave(seat)

    def _leave(self, seat: Seat) -> None:
        if self._seats.pop(seat.link, None) is None:
            return
        for cid in seat.cids:
            self._by_cid.pop(cid, None)
        seat.timer_at = float("inf")
        if seat.link.closed is None:
            seat.link._over("closed")
        if seat.waits:
            self._handshake_over(seat)
        if seat.stream is not None:
            seat.stream.wake()

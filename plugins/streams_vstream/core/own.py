"""Our own side of a session: its streams, what is asked of them, and the frames that leave.

Why apart from `yamux.py`: nothing here reads what a peer sent, so nothing here can be attacked.
Two habits make small requests cheap. SYN and ACK ride on the first frame that a side sends anyway,
FIN on the last data frame that has not left. And frames gather until `outgoing` is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skycore.errors import LocalProtocolError, StreamError
from skycore.model.limits import (
    STREAM_BACKLOG_MAX,
    STREAM_CHUNK_MAX,
    STREAM_ID_MAX,
    STREAM_WINDOW,
)
from streams_vstream.core.budget import Pool
from streams_vstream.core.channel import Channel
from streams_vstream.core.frames import (
    DATA,
    FIN,
    GO_AWAY,
    GO_AWAY_NORMAL,
    HEADER,
    HEADER_BYTES,
    RST,
    SYN,
    WINDOW_UPDATE,
    header,
)

__all__ = ["PAYLOAD_MAX", "POOL_BYTES_MAX", "Limits", "OwnSide"]

PAYLOAD_MAX = STREAM_CHUNK_MAX + HEADER_BYTES
HALF_WINDOW = STREAM_WINDOW // 2
ACKS_HELD_MAX = 32
POOL_BYTES_MAX = 256 * 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """What one session may hold. Both directions have `streams_max` each."""

    streams_max: int = 1_024
    unread_bytes_max: int = 16 * 1024 * 1024
    """Over this, streams that nobody reads go, and all others count on the node's pool."""
    stalled_s: float = 10.0
    """After how long without a read a stream is one that nobody reads."""
    backlog_max: int = STREAM_BACKLOG_MAX


class OwnSide:
    """The table of streams, the operations of our users, and the frames that wait to leave."""

    def __init__(
        self,
        *,
        dialled: bool,
        limits: Limits,
        pool: Pool | None = None,
        first_id: int | None = None,
    ) -> None:
        self.channels: dict[int, Channel] = {}
        self.limits = limits
        self.problem = ""
        """Why the session is over; empty while it lives."""
        self.remote_away = False
        """The peer takes no more streams."""
        self.opening = 0
        """Ours that the peer has not acknowledged; those not yet sent count too."""
        self.backlog = 0
        """Theirs that nobody has accepted yet."""
        self.unread_bytes = 0
        self.counters: dict[str, int] = {}
        """How often something happened that an honest, unhurried peer never causes."""
        self._pool = pool or Pool(POOL_BYTES_MAX)
        self._now = 0.0
        self._next_id = first_id or (1 if dialled else 2)
        self._ids_left = (STREAM_ID_MAX - self._next_id) // 2 + 1
        self._ours = 0
        self._theirs = 0
        self._lingering: dict[int, Channel] = {}
        self._acks: list[Channel] = []
        self._out: list[bytes | memoryview] = []
        self._out_size = 0
        self._payloads: list[bytes] = []
        self._tail: Channel | None = None
        self._tail_at = 0

    @property
    def spent(self) -> bool:
        """Whether no stream can be opened any more: ids used up, or the peer is going away."""
        return self._ids_left == 0 or self.remote_away

    @property
    def idle(self) -> bool:
        """Whether nobody holds a stream of this session."""
        return self._ours + self._theirs == len(self._lingering)

    @property
    def waiting(self) -> bool:
        """Whether frames wait to be taken by `outgoing`."""
        return bool(self._out or self._payloads)

    def open(self) -> Channel:
        """Return a new stream; its SYN rides on its first frame. Raises `StreamError`."""
        if self.problem:
            raise StreamError(self.problem)
        if self.remote_away:
            raise StreamError("StreamsRefused: the peer takes no more streams on this transport")
        if self._ids_left == 0:
            raise StreamError("StreamsExhausted: this session has used all its stream ids")
        if self._ours >= self.limits.streams_max and not self._evict(ours=True):
            raise StreamError(
                f"TooManyStreams: {self._ours} streams to this peer are open",
                hint="close streams that are done; `streams_max` bounds them",
            )
        self._ids_left -= 1
        self._ours += 1
        self.opening += 1
        return Channel(0, ours=True, due=SYN)

    def send(self, channel: Channel, data: bytes | memoryview) -> None:
        """Send data that fits the window and STREAM_CHUNK_MAX."""
        size = len(data)
        if size > channel.send_window or size > STREAM_CHUNK_MAX:
            raise LocalProtocolError(f"{size} bytes do not fit the stream's window")
        self.check(channel)
        channel.send_window -= size
        self._emit(DATA, channel, 0, size, data)
        if size:
            self._tail, self._tail_at = channel, len(self._out) - 2

    def announce(self, channel: Channel) -> None:
        """Send the SYN or ACK that is due, without data."""
        if channel.due:
            self.check(channel)
            self._emit(WINDOW_UPDATE, channel, 0, 0)

    def read(self, channel: Channel, max_bytes: int) -> bytes:
        """Take what came; gives the peer credit once half a window has been read."""
        data = channel.take(max_bytes)
        size = len(data)
        self.unread_bytes -= size
        self._pool.held -= size
        channel.since = self._now
        if not (channel.ended_there or channel.problem or self.problem):
            channel.credit += size
            if channel.credit >= HALF_WINDOW:
                channel.receive_window += channel.credit
                self._emit(WINDOW_UPDATE, channel, 0, channel.credit)
                channel.credit = 0
        return data

    def end(self, channel: Channel) -> None:
        """Send FIN; twice is once."""
        if channel.ended_here:
            return
        self.check(channel)
        self._fin(channel)
        if channel.ended_there:
            self._forget(channel)

    def close(self, channel: Channel) -> None:
        """End both sides for our user. Never fails, and once is enough.

        A peer that may be blocked on our window is told at once by RST; another by FIN, and by RST
        only if it sends on.
        """
        self._drop_unread(channel)
        if channel.problem or self.problem:
            channel.problem = channel.problem or self.problem
            return
        channel.problem = "the stream was closed on this side"
        if channel.due & SYN:  # the peer never heard of it
            self._ids_left += 1
            self._forget(channel)
        elif channel.id in self.channels:
            if not channel.ended_here:
                self._fin(channel)
            if channel.ended_there:
                self._forget(channel)
            elif channel.receive_window < HALF_WINDOW:
                self._reset(channel)
            else:
                channel.abandoned = True
                self._lingering[channel.id] = channel

    def reset(self, channel: Channel, why: str) -> None:
        """Break a stream off on both sides."""
        self._drop_unread(channel)
        if not (channel.problem or self.problem):
            channel.problem = why
            if channel.due & SYN:
                self._ids_left += 1
                self._forget(channel)
            elif channel.id in self.channels:
                self._reset(channel)

    def accept(self, channel: Channel) -> None:
        """Take a stream that the peer opened.

        Its ACK rides on what we send first. A few may stay unacknowledged: fewer than would keep
        the peer, which has STREAM_BACKLOG_MAX unacknowledged at most, from opening more.
        """
        if channel.pending:
            channel.pending = False
            self.backlog -= 1
        self._acks.append(channel)
        if len(self._acks) >= ACKS_HELD_MAX:
            for held in self._acks:
                if held.due and held.id in self.channels and not self.problem:
                    self._emit(WINDOW_UPDATE, held, 0, 0)
            self._acks.clear()

    def lose(self, why: str) -> Sequence[Channel]:
        """End everything, as the transport is gone; return the streams that failed by it.

        What had already come stays readable.
        """
        lost = list(self.channels.values())
        self.problem = why
        self._pool.held -= self.unread_bytes  # what users still read is theirs
        self._pool = Pool(0)
        for channel in lost:
            channel.problem = channel.problem or why
            channel.pending = False
        self.channels.clear()
        self._lingering.clear()
        self._acks.clear()
        self._out.clear()
        self._payloads.clear()
        self._tail = None
        self._out_size = self.opening = self.backlog = self._ours = self._theirs = 0
        return lost

    def unserved(self, why: str) -> Sequence[Channel]:
        """Fail the streams that we opened, as the peer throws this packet type away unread.

        Nothing is sent: there is nobody who would read it. The session lives on, for the peer may
        begin to serve.
        """
        failed = [channel for channel in self.channels.values() if channel.ours]
        for channel in failed:
            channel.problem = channel.problem or why
            self._forget(channel)
        self.outgoing()
        return failed

    def go_away(self, code: int = GO_AWAY_NORMAL) -> None:
        """Tell the peer that no more streams are taken, and why (a GO_AWAY code)."""
        self._frame(header(GO_AWAY, 0, 0, code))

    def outgoing(self) -> list[bytes]:
        """Take what waits to be sent, as payloads of PAYLOAD_MAX bytes at most."""
        payloads, self._payloads = self._payloads, []
        if self._out:
            payloads.append(b"".join(self._out))
            self._out.clear()
            self._out_size = 0
            self._tail = None
        return payloads

    # --- helpers ---------------------------------------------------------------------------------

    def check(self, channel: Channel) -> None:
        """Raise `StreamError` unless this side may still send."""
        if channel.problem or self.problem:
            raise StreamError(channel.problem or self.problem)
        if channel.ended_here:
            raise StreamError("this side of the stream has been ended")

    def _fin(self, channel: Channel) -> None:
        channel.ended_here = True
        if self._tail is channel:  # its last data has not left: the flag goes on that
            version, kind, flags, stream_id, length = HEADER.unpack(self._out[self._tail_at])
            self._out[self._tail_at] = HEADER.pack(version, kind, flags | FIN, stream_id, length)
        else:
            self._emit(DATA, channel, FIN, 0)

    def _reset(self, channel: Channel) -> None:
        if channel.pending:
            channel.pending = False
            self.backlog -= 1
        self._emit(WINDOW_UPDATE, channel, RST, 0)
        self._forget(channel)

    def _forget(self, channel: Channel) -> None:
        """Take a stream out of every table and count."""
        if channel.unacked:
            channel.unacked = False
            self.opening -= 1
        if channel.ours:
            self._ours -= 1
        else:
            self._theirs -= 1
        if channel.id:
            del self.channels[channel.id]
            self._lingering.pop(channel.id, None)
        channel.abandoned = False

    def _evict(self, *, ours: bool) -> bool:
        """Make room: a stream that our user closed and the peer never ended is reset."""
        for channel in self._lingering.values():
            if channel.ours == ours:
                self._count("evicted")
                self._reset(channel)
                return True
        return False

    def _drop_unread(self, channel: Channel) -> None:
        self.unread_bytes -= channel.unread_bytes
        self._pool.held -= channel.unread_bytes
        channel.unread.clear()
        channel.unread_bytes = 0

    def _emit(
        self, kind: int, channel: Channel, flags: int, length: int, body: bytes | memoryview = b""
    ) -> None:
        due = channel.due
        if due:
            if due & SYN:
                channel.id = self._next_id
                self._next_id += 2
                self.channels[channel.id] = channel
            flags |= due
            channel.due = 0
        self._frame(HEADER.pack(0, kind, flags, channel.id, length), body)

    def _frame(self, head: bytes, body: bytes | memoryview = b"") -> None:
        size = HEADER_BYTES + len(body)
        if self._out_size + size > PAYLOAD_MAX:
            self._payloads.append(b"".join(self._out))
            self._out.clear()
            self._out_size = 0
            self._tail = None
        self._out.append(head)
        if size > HEADER_BYTES:
            self._out.append(body)
        self._out_size += size

    def _count(self, what: str) -> None:
        self.counters[what] = self.counters.get(what, 0) + 1

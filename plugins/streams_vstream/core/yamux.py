"""A yamux session without I/O: payloads in and events out, calls in and payloads out.

Source: the public yamux specification, version 0; its use here and every bound are in
docs/protocols/vstream.md. Every rule that a peer breaks raises `RemoteProtocolError`, named by the
first word of its message; the session is over then.
"""

from __future__ import annotations

from skycore.errors import RemoteProtocolError
from skycore.model.limits import STREAM_WINDOW
from streams_vstream.core.budget import Allowance, Pool
from streams_vstream.core.channel import Channel, Event, What
from streams_vstream.core.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER,
    HEADER_BYTES,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    header,
)
from streams_vstream.core.own import Limits, OwnSide

__all__ = ["Session"]

CREDIT_SMALL = 1_024
LOOK_S = 1.0
FLAGS_MAX = SYN | ACK | FIN | RST
_unpack = HEADER.unpack_from


class Session(OwnSide):
    """The streams of one packet type over one transport."""

    def __init__(
        self,
        *,
        dialled: bool,
        limits: Limits,
        pool: Pool | None = None,
        first_id: int | None = None,
    ) -> None:
        super().__init__(dialled=dialled, limits=limits, pool=pool, first_id=first_id)
        self._their_parity = 0 if dialled else 1
        self._their_last = 0
        self._events: list[Event] = []
        self._looked_at = 0.0
        self._rest = b""
        self._body_left = 0
        self._body_of: Channel | None = None
        self._body_ends = 0
        self._junk = Allowance(4_096, 512)
        self._pings = Allowance(64, 16)
        self._resets = Allowance(1_024, 256)
        self._refusals = Allowance(16_384, 1_024)

    def receive(self, payload: bytes, now: float) -> list[Event]:
        """Take one packet's payload at `now` (monotonic seconds); frames may cross packets.

        Raises `RemoteProtocolError`.
        """
        self._now = now
        events: list[Event] = []
        self._events = events
        if self._rest:
            payload = self._rest + payload
            self._rest = b""
        at, end = 0, len(payload)
        if self._body_left:
            at = self._body(payload, at, end)
        while end - at >= HEADER_BYTES:
            version, kind, flags, stream_id, length = _unpack(payload, at)
            if version or flags > FLAGS_MAX:
                raise RemoteProtocolError(f"BadFrame: yamux version {version}, flags {flags:#x}")
            at += HEADER_BYTES
            if kind == DATA:
                self._data(flags, stream_id, length)
                at = self._body(payload, at, end)
            elif kind == WINDOW_UPDATE:
                self._credit(flags, stream_id, length)
            else:
                self._about_session(kind, flags, stream_id, length)
        if at < end:
            self._rest = payload[at:]
        return events

    def _data(self, flags: int, stream_id: int, length: int) -> None:
        if length > STREAM_WINDOW:  # before anything is kept for the stream
            raise _exceeded(stream_id, length, STREAM_WINDOW)
        channel = self._channel(flags, stream_id)
        self._body_left = length
        self._body_of = channel
        self._body_ends = flags & (FIN | RST)
        if channel is None:
            return
        if channel.ended_there:
            self._waste("after_fin")
            self._body_of = None
            if flags & RST:
                self._reset_by_peer(channel)
        elif length > channel.receive_window:
            raise _exceeded(stream_id, length, channel.receive_window)
        else:
            channel.receive_window -= length
            if not length and not flags:
                self._waste("empty_data")

    def _body(self, payload: bytes, at: int, end: int) -> int:
        stop = min(at + self._body_left, end)
        self._body_left -= stop - at
        channel = self._body_of
        if channel is not None:
            if stop > at:
                self._arrived(channel, payload[at:stop])
            if self._body_ends and not self._body_left:
                self._ended(channel, self._body_ends)
        return stop

    def _arrived(self, channel: Channel, chunk: bytes) -> None:
        if channel.problem:
            if channel.abandoned:
                self._reset(channel)
            return
        if not channel.unread:
            channel.since = self._now
        channel.put(chunk)
        self.unread_bytes += len(chunk)
        self._pool.held += len(chunk)
        self._events.append((What.READABLE, channel))
        if self.unread_bytes > self.limits.unread_bytes_max:
            self._relieve()

    def _relieve(self) -> None:
        """Take memory back from a peer that holds more than its share.

        Windows alone would let it hold 256 KiB a stream. A thousand streams whose readers are busy
        may, while the node has room: then only those that nobody reads go. Once the node has none,
        the stream furthest behind goes.
        """
        if self._pool.held > self._pool.held_max:
            worst = max(self.channels.values(), key=lambda c: c.unread_bytes)
            if not (worst.unread and self._resets.spend(self._now)):
                raise RemoteProtocolError("MemoryExceeded: too much unread data, again and again")
            self._take_back(worst)
        elif self._now - self._looked_at >= LOOK_S:
            self._looked_at = self._now
            before = self._now - self.limits.stalled_s
            for channel in [c for c in self.channels.values() if c.unread and c.since <= before]:
                self._take_back(channel)

    def _take_back(self, channel: Channel) -> None:
        self._count("reset_for_memory")
        if channel.id in self.channels:
            self.reset(channel, "the stream was reset: it was not read, and memory ran short")
            self._events.append((What.FAILED, channel))

    def _credit(self, flags: int, stream_id: int, delta: int) -> None:
        if flags & SYN and delta:
            raise _overflow(stream_id, STREAM_WINDOW + delta)
        if not flags and stream_id and stream_id not in self.channels:
            return  # an honest peer's last credit may cross the end of the stream
        channel = self._channel(flags, stream_id)
        if channel is None:
            return
        if delta:
            if channel.send_window + delta > STREAM_WINDOW:
                raise _overflow(stream_id, channel.send_window + delta)
            channel.send_window += delta
            self._events.append((What.WRITABLE, channel))
        if not flags and delta < CREDIT_SMALL:
            self._waste("small_credit")
        if flags & (FIN | RST):
            self._ended(channel, flags)

    def _about_session(self, kind: int, flags: int, stream_id: int, number: int) -> None:
        if kind == PING and flags in (SYN, ACK):
            if flags == ACK or stream_id:  # we never ask, so no answer is one of ours
                self._waste("stray_ping")
                return
            if not self._pings.spend(self._now):
                raise RemoteProtocolError("PingFlood: more pings than a peer may send")
            self._count("pings")
            self._frame(header(PING, ACK, 0, number))
        elif kind == GO_AWAY and not flags and not stream_id:
            self._waste("go_away")
            self.remote_away = True
        else:
            raise RemoteProtocolError(f"BadFrame: type {kind}, flags {flags:#x}, id {stream_id}")

    def _channel(self, flags: int, stream_id: int) -> Channel | None:
        if flags & SYN:
            return self._opened(stream_id)
        channel = self.channels.get(stream_id)
        if channel is None:
            if not stream_id:
                raise RemoteProtocolError("StreamIdInvalid: no stream has the id 0")
            self._count("unknown_stream")
            return None
        if channel.unacked:  # any frame shows that the peer took it
            channel.unacked = False
            self.opening -= 1
        elif flags & ACK:
            self._waste("stray_ack")
        return channel

    def _opened(self, stream_id: int) -> Channel | None:
        if not stream_id or stream_id & 1 != self._their_parity or stream_id <= self._their_last:
            raise RemoteProtocolError(
                f"StreamIdInvalid: the peer opened {stream_id} after {self._their_last}"
            )
        self._their_last = stream_id
        limits = self.limits
        if self.backlog >= limits.backlog_max:
            self._refuse(stream_id, "StreamBacklogFull")
            return None
        if self.remote_away:
            self._refuse(stream_id, "StreamsRefused")
            return None
        if self._theirs >= limits.streams_max and not self._evict(ours=False):
            self._refuse(stream_id, "TooManyStreams")
            return None
        channel = self.channels[stream_id] = Channel(stream_id, ours=False, due=ACK)
        self._theirs += 1
        self.backlog += 1
        self._events.append((What.OPENED, channel))
        return channel

    def _refuse(self, stream_id: int, why: str) -> None:
        self._count(why)
        if not self._refusals.spend(self._now):
            raise RemoteProtocolError(f"OpenFlood: streams are refused ({why}) and still come")
        self._frame(header(WINDOW_UPDATE, RST, stream_id, 0))

    def _ended(self, channel: Channel, flags: int) -> None:
        if channel.id not in self.channels:
            return
        if flags & RST:
            self._reset_by_peer(channel)
        elif channel.ended_there:
            self._waste("after_fin")
        else:
            channel.ended_there = True
            self._events.append((What.READABLE, channel))
            if channel.ended_here:
                self._forget(channel)

    def _reset_by_peer(self, channel: Channel) -> None:
        if not channel.ours and not self._resets.spend(self._now):
            raise RemoteProtocolError("ResetFlood: the peer opens and resets too fast")
        self._count("resets")
        if channel.pending or not channel.ended_there:
            self._drop_unread(channel)  # what was accepted and had its end stays readable
        if channel.pending:
            channel.pending = False
            self.backlog -= 1
        channel.problem = channel.problem or "the peer reset the stream"
        self._forget(channel)
        self._events.append((What.FAILED, channel))

    def _waste(self, what: str) -> None:
        """Count a frame that does nothing; a flood of them ends the session."""
        self._count(what)
        if not self._junk.spend(self._now):
            raise RemoteProtocolError(f"FlowAbuse: too many frames that do nothing ({what})")


def _exceeded(stream_id: int, size: int, window: int) -> RemoteProtocolError:
    return RemoteProtocolError(f"WindowExceeded: {size} bytes on {stream_id}, {window} granted")


def _overflow(stream_id: int, window: int) -> RemoteProtocolError:
    return RemoteProtocolError(f"WindowOverflow: a window of {window} bytes on {stream_id}")

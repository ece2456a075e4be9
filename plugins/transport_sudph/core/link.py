"""One QUIC connection that carries one byte stream: aioquic's state machine, held in check.

Why a subclass, and why it touches what aioquic calls private: six things that a byte stream
between two nodes behind NATs needs have no public switch there. Each is one method here, and a test
of its own shows that it works with the installed release:

- back-pressure (`_write_stream_limits`): aioquic doubles its windows whatever the reader does;
- a stream that both ends have from the start, so that the listener may speak first;
- loss detection that learns how much a way reorders (`core.recovery`);
- retries that never lie further apart than `RETRY_MAX_S`, so that a healed way is noticed;
- datagrams of the size that the way carries (`core.sizing`);
- a dialler that follows a listener whose NAT gave it another address (`_follow`).
"""

from __future__ import annotations

from collections import deque
from typing import Final

from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    END_STATES,
    MAX_STREAM_DATA_FRAME_CAPACITY,
    QuicConnectionState,
    QuicNetworkPath,
)
from aioquic.quic.packet import QuicFrameType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from skycore.contracts.runtime import Endpoint
from transport_sudph.core.certificate import ALPN
from transport_sudph.core.kinds import Datagram
from transport_sudph.core.recovery import PatientRecovery
from transport_sudph.core.sizing import SizedConnection

__all__ = ["QuicLink"]

STREAM: Final = 0
RETRY_MAX_S: Final = 2.0
HANDSHAKE_RETRY_MAX_S: Final = 0.4
"""A dialler's first datagrams also find the moment at which the other side's NAT opens."""
FIRST_WINDOW: Final = 64 * 1024
"""Bytes that a peer may send before anything of it was read."""
ROUNDING_S: Final = 1e-6
IDLE: Final = "Idle timeout"
"""aioquic's words for the end of a silent connection."""
ACK_AT_ONCE: Final = 4
"""Packets in one go that are acknowledged without waiting for more."""
ACK_DELAY_S: Final = 0.004
"""How long an acknowledgement waits for an answer that would carry it; peers expect 25 ms."""


class QuicLink(SizedConnection):
    """A connection. Feed it with `receive`, `tick` and `write`; empty it with `outgoing`.

    A dialler calls `connect(address, now)` first. All times are monotonic seconds.
    """

    def __init__(
        self,
        configuration: QuicConfiguration,
        *,
        original: bytes | None = None,
        retry_source: bytes | None = None,
    ) -> None:
        super().__init__(configuration, original=original, retry_source=retry_source)
        self.window_bytes = configuration.max_stream_data
        self.idle_s = configuration.idle_timeout
        self.inbox: deque[bytes] = deque()
        self.inbox_bytes = 0
        self.consumed = 0
        """Bytes that the reader has taken."""
        self.is_up = False
        """Whether the handshake has ended well."""
        self.has_ended = False
        """Whether the peer has ended its side, and all of it is in the inbox."""
        self.is_refused = False
        """Whether the peer does not want to read any more."""
        self.closed: str | None = None
        """Why the connection is over; None while it is not."""
        self.issued: list[bytes] = []
        self.retired: list[bytes] = []
        self.sent_at = 0.0
        self.bytes_sent = self.bytes_lost = 0
        self._ack_delay = ACK_DELAY_S
        self._loss: PatientRecovery = PatientRecovery(
            initial_rtt=configuration.initial_rtt,
            max_datagram_size=configuration.max_datagram_size,
            peer_completed_address_validation=not configuration.is_client,
            send_probe=self._send_probe,
            next_number=lambda: self._packet_number,
        )
        self._unacked = 0
        self._local_max_stream_data_bidi_local = min(FIRST_WINDOW, self.window_bytes)
        self._local_max_stream_data_bidi_remote = min(FIRST_WINDOW, self.window_bytes)
        for limit, value in (
            (self._local_max_streams_bidi, 0 if self._is_client else 1),
            (self._local_max_streams_uni, 0),
        ):
            limit.value = limit.sent = value

    # --- what the peer and the clock do ----------------------------------------------------------

    @property
    def peer(self) -> Endpoint | None:
        """Where datagrams go now."""
        address: Endpoint | None = self.get_peer_address()
        return address

    @property
    def rtt_s(self) -> float | None:
        """The smoothed round trip."""
        return self._loss._rtt_smoothed if self._loss._rtt_initialized else None

    @property
    def loss(self) -> float:
        """Share of the packets sent that were lost; retransmissions and acknowledgements count."""
        lost = max(0, self._loss.lost_packets - self._loss.spurious_losses)
        return lost / max(1, self._packet_number)

    def receive(self, data: bytes, sender: Endpoint, now: float) -> bool:
        """Take a datagram. False where nothing in it was the peer's, or nothing was new."""
        sent_since = self._ack_eliciting_sent_since_receipt
        self._ack_eliciting_sent_since_receipt = True  # aioquic clears it for an authentic packet
        followed = self._is_client and all(path.addr != sender for path in self._network_paths)
        before = self._newest()
        self.receive_datagram(data, self.get_peer_address() if followed else sender, now)
        newest = self._newest()
        if newest > before:
            self.heard_at = now
            self._unacked += 1
            if followed:
                self._follow(sender)
        if self._loss._pto_count == 0:
            self._silences = 0
        self._check_size(now)
        self._take_events()
        was_authentic = not self._ack_eliciting_sent_since_receipt
        if not was_authentic:
            self._ack_eliciting_sent_since_receipt = sent_since
        return was_authentic or self._close_pending or self.closed is not None

    @property
    def has_begun(self) -> bool:
        """Whether any packet of the peer was authentic; always so for a dialler."""
        return self._is_client or self._state is not QuicConnectionState.FIRSTFLIGHT

    def _newest(self) -> int:
        """Return the highest number of an authenticated packet; -1 before there is one."""
        space = self._spaces.get(tls.Epoch.ONE_RTT)
        return space.largest_received_packet if space else -1

    def _follow(self, sender: Endpoint) -> None:
        """Try whether a listener can be reached where a new packet of its own came from.

        aioquic moves a dialler only to the address that a listener prefers; this is the same
        way: a challenge goes there on a connection id of its own, and its answer moves us.
        """
        if self._handshake_confirmed and self._peer_cid_available:
            path = QuicNetworkPath(sender)
            path.peer_cid = self._peer_cid_available.pop(0)
            self._add_network_path(path)

    def tick(self, now: float) -> None:
        """Do what is due.

        A microsecond late: sent + delay, the loss timer, and now - delay, what aioquic compares
        it with, may differ in the last bit, and then nothing would be due for ever.
        """
        self.handle_timer(now + ROUNDING_S)
        self._take_events()

    def _send_probe(self) -> None:
        super()._send_probe()
        self._silences += 1
        longest = RETRY_MAX_S if self._handshake_confirmed else HANDSHAKE_RETRY_MAX_S
        step = self._loss.get_probe_timeout(include_max_ack_delay=self._handshake_confirmed)
        while self._loss._pto_count > 0 and step * 2**self._loss._pto_count > longest:
            self._loss._pto_count -= 1
        self._check_size(self.heard_at)

    def _take_events(self) -> None:
        while (event := self.next_event()) is not None:
            if isinstance(event, events.StreamDataReceived):
                self._take_data(event)
            elif isinstance(event, events.ConnectionIdIssued):
                self.issued.append(event.connection_id)
            elif isinstance(event, events.ConnectionIdRetired):
                self.retired.append(event.connection_id)
            elif isinstance(event, events.HandshakeCompleted):
                self._come_up(event.alpn_protocol)
            elif isinstance(event, events.StopSendingReceived | events.StreamReset):
                self.is_refused = True
        if self._close_event is not None:  # aioquic tells it as an event when all is forgotten
            said = self._close_event.reason_phrase or "closed"
            self._over(f"nothing came for {self.idle_s:g} s" if said == IDLE else said)

    def _take_data(self, event: events.StreamDataReceived) -> None:
        if event.data:
            self.inbox.append(event.data)
            self.inbox_bytes += len(event.data)
        if event.end_stream:
            self.has_ended = True

    def _come_up(self, alpn: str | None) -> None:
        if alpn != ALPN:
            self.close(reason_phrase="another protocol")
            return
        if not self._is_client:
            self._get_or_create_stream(QuicFrameType.STREAM_BASE, STREAM)
        # 48 KiB that only the handshake needed; nothing is written after it
        self._crypto_buffers = {tls.Epoch.ONE_RTT: Buffer(capacity=1)}
        self.is_up = True

    def _over(self, reason: str) -> None:
        if self.closed is None:
            self.closed = reason

    # --- what we do ------------------------------------------------------------------------------

    def connect(self, addr: Endpoint, now: float) -> None:
        """Begin, as the dialler."""
        super().connect(addr, now)
        self.send_stream_data(STREAM, b"")  # makes the stream: the listener may speak first
        self.heard_at = now

    @property
    def unsent_bytes(self) -> int:
        """What was written and is not acknowledged yet."""
        stream = self._streams.get(STREAM)
        return len(stream.sender._buffer) if stream else 0

    @property
    def is_ending(self) -> bool:
        """Whether our side was ended."""
        stream = self._streams.get(STREAM)
        return stream is None or stream.sender._buffer_fin is not None

    @property
    def is_delivered(self) -> bool:
        """Whether the peer has all that was written, and its end."""
        stream = self._streams.get(STREAM)
        return stream is None or stream.sender.is_finished

    def write(self, data: bytes) -> None:
        """Queue bytes."""
        self.send_stream_data(STREAM, data)

    def take(self, max_bytes: int) -> bytes:
        """Return the oldest bytes of the inbox, at least one."""
        inbox = self.inbox
        data = inbox.popleft()
        if len(data) < max_bytes and inbox:
            parts, size = [data], len(data)
            while inbox and size + len(inbox[0]) <= max_bytes:
                size += len(inbox[0])
                parts.append(inbox.popleft())
            data = b"".join(parts)
        elif len(data) > max_bytes:
            inbox.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        self.inbox_bytes -= len(data)
        self.consumed += len(data)
        return data

    @property
    def owes_window(self) -> bool:
        """Whether the reader took so much that the peer should be told."""
        stream = self._streams.get(STREAM)
        return stream is not None and self._granted(stream) > stream.max_stream_data_local

    def end(self) -> None:
        """End our side, once."""
        stream = self._streams.get(STREAM)
        if stream is not None and stream.sender._buffer_fin is None and not self.is_refused:
            self.send_stream_data(STREAM, b"", end_stream=True)

    def refuse(self) -> None:
        """Tell the peer that nobody reads any more."""
        stream = self._streams.get(STREAM)
        if stream is not None and not stream.receiver.is_finished:
            self.stop_stream(STREAM, 0)
        self.inbox.clear()
        self.inbox_bytes = 0

    def finish(self, reason: str) -> None:
        """Close the connection: the next `outgoing` tells the peer why."""
        self.close(reason_phrase=reason)
        self._over(reason)

    def keep_alive(self, now: float) -> None:
        """Send something that wants an answer; where there is no room it counts as sent, too."""
        self.sent_at = now
        if not self._ping_pending:
            self.send_ping(0)

    def outgoing(self, now: float) -> list[Datagram]:
        """Return the datagrams to send now."""
        if not self._network_paths:
            return []
        if self._handshake_confirmed:
            self._hurry_ack(now)
        datagrams: list[Datagram] = self.datagrams_to_send(now)
        if datagrams:
            self._unacked = 0
            self.sent_at = now
            self.bytes_sent += sum(len(data) for data, _ in datagrams)
        if self._handshake_confirmed and self.closed is None:
            size = self.mtu.probe(now, self.bytes_sent)
            if size:
                datagrams += self._mtu_probe(size, now)
        return datagrams

    def _hurry_ack(self, now: float) -> None:
        """Acknowledge now what else would wait: after many packets, or beside our own data."""
        space = self._spaces[tls.Epoch.ONE_RTT]
        if space.ack_at is not None and space.ack_at > now:
            stream = self._streams.get(STREAM)
            speaks = stream is not None and not stream.sender.buffer_is_empty
            if speaks or self._unacked >= ACK_AT_ONCE:
                space.ack_at = now

    @property
    def is_draining(self) -> bool:
        """Whether nothing more will come of this connection."""
        return self._state in END_STATES

    # --- windows ---------------------------------------------------------------------------------

    def _granted(self, stream: QuicStream) -> int:
        """Return up to which offset the peer may send: small until somebody reads."""
        window = min(self.window_bytes, max(FIRST_WINDOW, 4 * self.consumed))
        offset = self.consumed + window
        return offset if offset - stream.max_stream_data_local >= window // 2 else 0

    def _write_stream_limits(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream
    ) -> None:
        """Let the peer send as much as the reader has taken, and a window more."""
        stream.max_stream_data_local = max(stream.max_stream_data_local, self._granted(stream))
        if stream.max_stream_data_local_sent != stream.max_stream_data_local:
            frame = builder.start_frame(
                QuicFrameType.MAX_STREAM_DATA,
                capacity=MAX_STREAM_DATA_FRAME_CAPACITY,
                handler=self._on_max_stream_data_delivery,
                handler_args=(stream,),
            )
            frame.push_uint_var(stream.stream_id or 0)
            frame.push_uint_var(stream.max_stream_data_local)
            stream.max_stream_data_local_sent = stream.max_stream_data_local

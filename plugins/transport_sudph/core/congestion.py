"""How fast a connection may send: a window that shrinks by as much as is lost.

Why not Reno or CUBIC: they halve the window for one lost datagram, so 1 % of loss on a radio link
or a policed line leaves a tenth of the rate. Here a round trip's share of lost datagrams is the
strength of the signal, as marks are in DCTCP (RFC 8257), and only a loss that comes with a longer
round trip, which is a queue that filled, takes CUBIC's cut (RFC 9438, beta 0.7). A share under
3 % without a queue is outgrown. Windows never exceed what flow control lets fly anyway.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aioquic.quic.congestion.base import QuicCongestionControl, register_congestion_control
from aioquic.quic.packet_builder import QuicSentPacket

from skycore.model.limits import SUDPH_DATAGRAM_MIN

__all__ = ["CONGESTION_CONTROL", "LossShare"]

CONGESTION_CONTROL: Final = "skycore-loss-share"
WINDOW_MAX: Final = 4 * 1024 * 1024
MINIMUM: Final = 4
"""Datagrams that always may fly: with two, heavy loss leaves nothing but probes."""
CUT: Final = 0.7
GROWTH: Final = 64
"""Growth of a round trip is 1/64 of the window: loss of up to 1/32 is outgrown."""
START_LOSS_MAX: Final = 0.05
"""Share of loss in one round trip that ends the doubling at the start."""
QUEUE_FACTOR: Final = 1.25
QUEUE_S: Final = 0.005
"""A round trip over 1.25 of the shortest plus 5 ms has a queue in it."""
MIN_RTT_AGE_S: Final = 30.0
"""After so long the shortest round trip is learnt anew: the way may have changed."""


class LossShare(QuicCongestionControl):
    """The controller of one connection, in aioquic's terms."""

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.datagram_size = max_datagram_size
        self.is_starting = True
        self._round_began = 0.0
        self._acked = self._lost = 0
        self._min_rtt, self._min_rtt_at, self._rtt = 0.0, 0.0, 0.0
        self._share = 0.0
        self._was_full = self._was_full_before = False
        self.large_lost = 0
        """Datagrams over the smallest size that were lost since the last one that arrived."""

    @property
    def minimum(self) -> int:
        """What always may fly."""
        return MINIMUM * self.datagram_size

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        """Count it; note whether the window, not the sender, is the limit."""
        self.bytes_in_flight += packet.sent_bytes
        if self.bytes_in_flight + 2 * self.datagram_size > self.congestion_window:
            self._was_full = True

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        """Forget packets of which nobody knows whether they arrived."""
        for packet in packets:
            self.bytes_in_flight -= packet.sent_bytes
            self.large_lost += packet.sent_bytes > SUDPH_DATAGRAM_MIN

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        """Take an acknowledgement; the first of a packet of this round ends the round."""
        self.bytes_in_flight -= packet.sent_bytes
        self._acked += packet.sent_bytes
        if packet.sent_bytes > SUDPH_DATAGRAM_MIN:
            self.large_lost = 0
        if self.is_starting and (self._was_full or self._was_full_before):
            self._set(self.congestion_window + packet.sent_bytes)
        if packet.sent_time is not None and packet.sent_time >= self._round_began:
            self._end_round(now)

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        """Take losses; they count when the round ends."""
        for packet in packets:
            self.bytes_in_flight -= packet.sent_bytes
            self._lost += packet.sent_bytes
            self.large_lost += packet.sent_bytes > SUDPH_DATAGRAM_MIN

    def forgive(self, size: int) -> None:
        """What was called lost has arrived after all."""
        self._lost = max(0, self._lost - size)

    def on_persistent_congestion(self) -> None:
        """Nothing came through for long: begin anew, carefully."""
        self._set(self.minimum)
        self.is_starting = False

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        """Learn a round trip."""
        if not self._min_rtt or rtt <= self._min_rtt or now - self._min_rtt_at > MIN_RTT_AGE_S:
            self._min_rtt, self._min_rtt_at = rtt, now
        self._rtt = rtt

    def _end_round(self, now: float) -> None:
        total = self._acked + self._lost
        share = self._lost / total if total else 0.0
        self._share += (share - self._share) / 4
        has_queue = self._rtt > QUEUE_FACTOR * self._min_rtt + QUEUE_S
        if self.is_starting and (share > START_LOSS_MAX or has_queue):
            self.is_starting = False
        if self._lost and not self.is_starting:
            cut = CUT if has_queue else 1 - max(share, self._share) / 2
            self._set(int(self.congestion_window * cut))
        if self._was_full and not self.is_starting and not (self._lost and has_queue):
            step = max(self.datagram_size, self.congestion_window // GROWTH)
            self._set(self.congestion_window + step)
        self._round_began = now
        self._acked = self._lost = 0
        self._was_full, self._was_full_before = False, self._was_full

    def _set(self, window: int) -> None:
        self.congestion_window = max(self.minimum, min(WINDOW_MAX, window))


register_congestion_control(CONGESTION_CONTROL, LossShare)

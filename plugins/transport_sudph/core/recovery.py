"""Loss detection that learns how much a way reorders, and believes no lies.

Why: aioquic calls a datagram lost when three later ones arrived. On a way with several paths that
is often wrong, and each mistake costs a retransmission and some window. RFC 9002, 6.1.1, lets an
endpoint raise the threshold: here an acknowledgement of what was called lost raises it to the
distance that was seen, and the wait to what was too short.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from aioquic.quic.connection import QuicConnectionError
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import QuicPacketRecovery, QuicPacketSpace

from transport_sudph.core.congestion import CONGESTION_CONTROL, LossShare

__all__ = ["PatientRecovery"]

FIRST_DISTANCE: Final = 3
DISTANCE_MAX: Final = 256
FIRST_FACTOR: Final = 9 / 8
FACTOR_MAX: Final = 2.0
REMEMBERED: Final = 256
"""Lost packets whose late acknowledgement would be noticed."""


class PatientRecovery(QuicPacketRecovery):
    """aioquic's recovery with thresholds that adapt."""

    def __init__(
        self,
        *,
        initial_rtt: float,
        max_datagram_size: int,
        peer_completed_address_validation: bool,
        send_probe: Callable[[], None],
        next_number: Callable[[], int],
    ) -> None:
        super().__init__(
            congestion_control_algorithm=CONGESTION_CONTROL,
            initial_rtt=initial_rtt,
            max_datagram_size=max_datagram_size,
            peer_completed_address_validation=peer_completed_address_validation,
            send_probe=send_probe,
        )
        self._next_number = next_number
        self.distance = FIRST_DISTANCE
        self.factor = FIRST_FACTOR
        self.lost_packets = self.spurious_losses = 0
        self._remembered: OrderedDict[int, QuicSentPacket] = OrderedDict()

    def on_ack_received(
        self, *, ack_rangeset: RangeSet, ack_delay: float, now: float, space: QuicPacketSpace
    ) -> None:
        """Take an acknowledgement; first look whether it is of something called lost.

        Raises `QuicConnectionError` for one of a packet that was never sent, as RFC 9000, 13.1,
        asks for. aioquic believes it, takes everything that it sends from then on for lost, and
        sends again without end.
        """
        if ack_rangeset.bounds().stop > self._next_number():
            raise QuicConnectionError(
                error_code=QuicErrorCode.PROTOCOL_VIOLATION,
                frame_type=QuicFrameType.ACK,
                reason_phrase="acknowledges what was never sent",
            )
        if self._remembered and space.is_application_data:
            numbers = sorted(self._remembered)
            for acked in ack_rangeset:  # as many as the peer likes: each is looked up once
                start, stop = (bisect_left(numbers, n) for n in (acked.start, acked.stop))
                for number in numbers[start:stop]:
                    self._was_not_lost(self._remembered.pop(number), now, space)
        super().on_ack_received(
            ack_rangeset=ack_rangeset, ack_delay=ack_delay, now=now, space=space
        )

    def _was_not_lost(self, packet: QuicSentPacket, now: float, space: QuicPacketSpace) -> None:
        self.spurious_losses += 1
        distance = space.largest_acked_packet - packet.packet_number + 1
        self.distance = min(DISTANCE_MAX, max(self.distance, distance))
        if self._rtt_smoothed and packet.sent_time is not None:
            took = (now - packet.sent_time) / self._rtt_smoothed
            self.factor = min(FACTOR_MAX, max(self.factor, 1.05 * took))
        if isinstance(self._cc, LossShare):
            self._cc.forgive(packet.sent_bytes)

    def _detect_loss(self, *, now: float, space: QuicPacketSpace) -> None:
        """Call lost what is further behind, or older, than what arrives late on this way."""
        rtt = max(self._rtt_latest, self._rtt_smoothed)
        delay = self.factor * (rtt if self._rtt_initialized else self._rtt_initial)
        lost = []
        space.loss_time = None
        for number, packet in space.sent_packets.items():
            if number > space.largest_acked_packet:
                break
            if packet.sent_time is None:
                continue
            behind = space.largest_acked_packet - number
            if behind >= self.distance or packet.sent_time + delay <= now:
                lost.append(packet)
            elif space.loss_time is None or packet.sent_time + delay < space.loss_time:
                space.loss_time = packet.sent_time + delay
        if space.is_application_data:
            self._remember(lost)
        self._on_packets_lost(
            now=now,
            packets=lost,
            persistent_congestion=self._in_persistent_congestion(packets=lost),
            space=space,
        )

    def _remember(self, lost: list[QuicSentPacket]) -> None:
        self.lost_packets += len(lost)
        for packet in lost:
            self._remembered[packet.packet_number] = packet
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

"""A connection whose datagrams have the size that its way carries (`core.mtu` decides)."""

from __future__ import annotations

from aioquic import tls
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder

from transport_sudph.core.congestion import LossShare
from transport_sudph.core.kinds import Datagram
from transport_sudph.core.mtu import MtuSearch

__all__ = ["SizedConnection"]


class SizedConnection(QuicConnection):
    """aioquic's connection, which sends probes and follows what becomes of them."""

    def __init__(
        self,
        configuration: QuicConfiguration,
        *,
        original: bytes | None = None,
        retry_source: bytes | None = None,
    ) -> None:
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original,
            retry_source_connection_id=retry_source,
        )
        self.mtu = MtuSearch()
        self.heard_at = 0.0
        self._silences = 0
        """Probes for a sign of life that were unanswered in a row."""

    def _check_size(self, now: float) -> None:
        lost = self._loss._cc.large_lost if isinstance(self._loss._cc, LossShare) else 0
        if self.mtu.is_black_hole(now, self._silences, lost):
            self._resize()

    def _mtu_probe(self, size: int, now: float) -> list[Datagram]:
        """Return a padded PING of a size; not in flight, so that its loss slows nothing."""
        builder = QuicPacketBuilder(
            host_cid=self.host_cid,
            peer_cid=self._peer_cid.cid,
            version=self._version or 1,
            is_client=self._is_client,
            max_datagram_size=size,
            packet_number=self._packet_number,
            spin_bit=self._spin_bit,
        )
        builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[tls.Epoch.ONE_RTT])
        frame = builder.start_frame(
            QuicFrameType.PING, handler=self._on_mtu_probe, handler_args=(size,)
        )
        frame.push_bytes(bytes(builder.remaining_flight_space))
        if builder._packet is not None:
            builder._packet.in_flight = False
        path = self._network_paths[0]
        return self._flush_builder(builder, path, self._peer_cid.cid, now)

    def _on_mtu_probe(self, delivery: QuicDeliveryState, size: int) -> None:
        if delivery == QuicDeliveryState.ACKED:
            self.mtu.answered(size)
            self._resize()
        else:
            self.mtu.lost(self.heard_at, size)

    def _resize(self) -> None:
        size = self._max_datagram_size = self.mtu.size
        self._loss._pacer._max_datagram_size = size
        if isinstance(self._loss._cc, LossShare):
            self._loss._cc.datagram_size = size

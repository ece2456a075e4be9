"""Whether a stranger may begin a connection.

Why so much care before the first connection object: whoever sends here may be nobody. Until an
address has shown that it receives what is sent to it, it costs a bounded piece of memory, no more
handshakes than `STRANGERS_PER_S`, and is sent at most three times what it sent (aioquic's part).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from aioquic._buffer import Buffer
from aioquic.quic.packet import (
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler

from skycore.contracts.runtime import Endpoint
from skycore.model.addresses import host_group
from skycore.model.limits import SUDPH_DATAGRAM_MIN
from transport_sudph.core.kinds import CID_BYTES

__all__ = ["Door", "Opening"]

VERSIONS: Final = (1, 0x6B3343CF)
STRANGERS_PER_S: Final = 50
"""Handshakes begun in a second for addresses that have shown nothing; the rest is told to retry."""
PENDING_MAX: Final = 64
PENDING_PER_HOST: Final = 8
RETRY_FROM: Final = PENDING_MAX // 2
"""Unfinished handshakes from which on every stranger has to show its address first."""


@dataclass(frozen=True)
class Opening:
    """A connection that may begin."""

    original: bytes
    retry_source: bytes | None
    destination: bytes


class Door:
    """Decides what the first datagram of an unknown connection leads to."""

    def __init__(self) -> None:
        self._tokens = QuicRetryTokenHandler()
        self._pending: OrderedDict[str, int] = OrderedDict()
        """By host; of IPv6 by /64, which is one host's."""
        self.pending = 0
        self._second, self._begun = 0, 0

    def open(
        self, data: bytes, sender: Endpoint, now: float, source: bytes
    ) -> Opening | bytes | str:
        """Return an opening, a datagram to answer with, or why it is ignored.

        `source` are CID_BYTES random bytes for a Retry. Answers are smaller than the question.
        """
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=CID_BYTES)
        except ValueError:
            return "malformed"
        if header.packet_type == QuicPacketType.VERSION_NEGOTIATION:
            return "unknown"
        if len(data) < SUDPH_DATAGRAM_MIN:
            return "small"
        if header.version not in VERSIONS:
            return encode_quic_version_negotiation(
                source_cid=header.destination_cid,
                destination_cid=header.source_cid,
                supported_versions=list(VERSIONS),
            )
        if header.packet_type != QuicPacketType.INITIAL:
            return "unknown"
        of_host = self._pending.get(host_group(sender[0]), 0)
        if of_host >= PENDING_PER_HOST or self.pending >= PENDING_MAX:
            return "crowded"
        if header.token:
            try:
                original = self._tokens.validate_token(
                    address=sender,
                    destination_cid=header.destination_cid,
                    token=header.token,
                    now=now,
                )
            except ValueError:
                return "token"
            return Opening(original, header.destination_cid, header.destination_cid)
        if self._is_busy(now):
            return encode_quic_retry(
                version=header.version,
                source_cid=source,
                destination_cid=header.source_cid,
                original_destination_cid=header.destination_cid,
                retry_token=self._tokens.create_token(
                    address=sender,
                    original_destination_connection_id=header.destination_cid,
                    retry_source_connection_id=source,
                    now=now,
                ),
            )
        return Opening(header.destination_cid, None, header.destination_cid)

    def _is_busy(self, now: float) -> bool:
        if int(now) != self._second:
            self._second, self._begun = int(now), 0
        self._begun += 1
        return self._begun > STRANGERS_PER_S or self.pending >= RETRY_FROM

    def begun(self, host: str) -> None:
        """Count a handshake that was begun for a host."""
        self.pending += 1
        group = host_group(host)
        self._pending[group] = self._pending.get(group, 0) + 1

    def done(self, host: str) -> None:
        """Count its end, good or bad."""
        self.pending -= 1
        group = host_group(host)
        left = self._pending.get(group, 0) - 1
        if left > 0:
            self._pending[group] = left
        else:
            self._pending.pop(group, None)

"""Packets: `type u8 ‖ route id u32 ‖ size u16 ‖ payload`, big-endian.

Why this header: it is Skywire's, so a captured stream reads the same. Packets are a byte stream;
they may cross the frames of the secure channel that carries them. Pure: bytes in, packets out.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Iterator

from skycore.errors import LocalProtocolError
from skycore.model.limits import PACKET_PAYLOAD_MAX

__all__ = ["HEADER_BYTES", "PacketParser", "encode_packet", "transport_id"]

_HEADER = struct.Struct(">BIH")
HEADER_BYTES = _HEADER.size


def encode_packet(packet_type: int, payload: bytes, route_id: int = 0) -> bytes:
    """Return one packet. Raises `LocalProtocolError` over 65,535 bytes: split before."""
    if len(payload) > PACKET_PAYLOAD_MAX:
        raise LocalProtocolError(f"a packet carries {PACKET_PAYLOAD_MAX} bytes at most")
    return _HEADER.pack(packet_type, route_id, len(payload)) + payload


class PacketParser:
    """Cut a byte stream into (type, route id, payload). Holds at most one partial packet."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Yield every packet that `data` completes."""
        data = self._rest + data if self._rest else data
        at, end = 0, len(data)
        while end - at >= HEADER_BYTES:
            packet_type, route_id, size = _HEADER.unpack_from(data, at)
            stop = at + HEADER_BYTES + size
            if stop > end:
                break
            yield packet_type, route_id, data[at + HEADER_BYTES : stop]
            at = stop
        self._rest = data[at:]


def transport_id(one: bytes, other: bytes, transport_type: str) -> uuid.UUID:
    """Return the id of the transport of a type between two keys, the same from both ends.

    SHA256(16 zero bytes ‖ smaller edge ‖ larger edge ‖ type), cut to 16 bytes and made a UUID:
    version nibble 0, RFC 4122 variant. Source: Skywire's transport entries.
    """
    low, high = sorted((one, other))
    raw = bytearray(hashlib.sha256(bytes(16) + low + high + transport_type.encode()).digest()[:16])
    raw[6] &= 0x0F
    raw[8] = raw[8] & 0x3F | 0x80
    return uuid.UUID(bytes=bytes(raw))

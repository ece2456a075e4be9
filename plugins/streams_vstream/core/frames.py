"""The twelve bytes before each frame of yamux, and the numbers in them.

`version u8 ‖ type u8 ‖ flags u16 ‖ stream id u32 ‖ length u32`, big-endian. `length` is the size of
the body in a DATA frame, the credit in a WINDOW_UPDATE, the echoed number in a PING and the reason
in a GO_AWAY. Source: the public yamux specification, version 0.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = [
    "ACK",
    "DATA",
    "FIN",
    "GO_AWAY",
    "GO_AWAY_NORMAL",
    "GO_AWAY_PROTOCOL",
    "HEADER",
    "HEADER_BYTES",
    "PING",
    "RST",
    "SYN",
    "WINDOW_UPDATE",
    "header",
]

DATA: Final = 0
WINDOW_UPDATE: Final = 1
PING: Final = 2
GO_AWAY: Final = 3

SYN: Final = 1
ACK: Final = 2
FIN: Final = 4
RST: Final = 8

GO_AWAY_NORMAL: Final = 0
GO_AWAY_PROTOCOL: Final = 1

HEADER: Final = struct.Struct(">BBHII")
HEADER_BYTES: Final = HEADER.size


def header(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """Return the header of a frame."""
    return HEADER.pack(0, kind, flags, stream_id, length)

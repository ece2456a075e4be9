"""QUIC, and what is made with it once: loaded with the first connection of a node.

Why late: the library costs 7 MiB and a quarter of a second, and its keys for Retry tokens as much
again. A node that nobody dials by UDP, and that dials nobody, holds its binding without it.
"""

from __future__ import annotations

import logging
import ssl
from typing import Final

from aioquic import tls

from skycore.contracts.runtime import Endpoint
from transport_sudph.core.certificate import configurations
from transport_sudph.core.demux import Door, Opening
from transport_sudph.core.link import QuicLink
from transport_sudph.settings import SudphSettings

__all__ = ["TROUBLE", "Quic"]

TROUBLE: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    ssl.SSLError,
    tls.Alert,
)
"""What a peer's bytes might make a library raise: it ends that connection and nothing else."""


class Quic:
    """What connections of one socket are made with."""

    trouble = TROUBLE

    def __init__(self, secret: bytes, settings: SudphSettings) -> None:
        """`secret`: 32 random bytes, for the certificate."""
        # aioquic logs each connection, and each mistake of a stranger; counters tell of those here
        logging.getLogger("quic").setLevel(logging.CRITICAL)
        self._dialling, self._accepting = configurations(
            secret, idle_s=settings.idle_s, window_bytes=settings.window_bytes
        )
        self.door = Door()

    def dialled(self, to: Endpoint, now: float) -> QuicLink:
        """Begin a connection."""
        link = QuicLink(self._dialling)
        link.connect(to, now)
        return link

    def accepted(self, opening: Opening) -> QuicLink:
        """Take one that begins."""
        return QuicLink(
            self._accepting, original=opening.original, retry_source=opening.retry_source
        )

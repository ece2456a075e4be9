"""What the endpoint keeps of a connection, and what a connection may raise."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final

from aioquic import tls

from transport_sudph.core.link import QuicLink
from transport_sudph.stream import SudphStream

__all__ = ["TROUBLE", "Seat"]

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


class Seat:
    """What the endpoint keeps of a connection."""

    __slots__ = ("began", "cids", "host", "lingers", "link", "stream", "timer_at", "up", "waits")

    def __init__(
        self, link: QuicLink, host: str, now: float, up: Callable[[], None] | None
    ) -> None:
        self.link = link
        self.host = host
        self.began = now
        self.up = up
        """The dialler's callback; None for an accepted connection."""
        self.cids: set[bytes] = set()
        self.stream: SudphStream | None = None
        self.timer_at = float("inf")
        self.waits = True
        """Whether the handshake goes on."""
        self.lingers = float("inf")

"""What the endpoint keeps of a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from transport_sudph.stream import SudphStream

if TYPE_CHECKING:
    from transport_sudph.core.link import QuicLink

__all__ = ["Seat"]


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

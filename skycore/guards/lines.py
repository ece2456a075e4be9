"""What the manager keeps of a raw connection once a secure channel is around it."""

from __future__ import annotations

from typing import NamedTuple

from anyio import TypedAttributeLookupError
from anyio.abc import ByteStream, SocketAttribute

from skycore.contracts.transport import LineAttribute

__all__ = ["Line", "line_of"]


class Line(NamedTuple):
    """Where a connection leads, as the network shows it, and how well it carries."""

    host: str
    """Empty where that has no name."""
    port: int
    stream: ByteStream

    @property
    def is_watched(self) -> bool:
        """Whether the type notices by itself that the other end is gone."""
        try:
            return bool(self.stream.extra(LineAttribute.watched, False))
        except (OSError, LookupError):
            return False

    @property
    def loss(self) -> float | None:
        """Share of what was sent that was lost; None where the type does not know."""
        try:
            return float(self.stream.extra(LineAttribute.loss))
        except (TypedAttributeLookupError, OSError, TypeError, ValueError, LookupError):
            return None


def line_of(stream: ByteStream) -> Line:
    """Look at a connection."""
    try:
        address = stream.extra(SocketAttribute.remote_address, ("", 0))
        port = address[1] if isinstance(address[1], int) else 0
        return Line(str(address[0]), port, stream)
    except (OSError, TypeError, LookupError):  # it is gone already; no stranger's end
        return Line("", 0, stream)

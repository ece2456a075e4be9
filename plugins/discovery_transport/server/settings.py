"""Settings of the server role."""

from __future__ import annotations

from pydantic import Field

from skycore.discovery.desk import ServerSettings

__all__ = ["TransportServerSettings"]


class TransportServerSettings(ServerSettings):
    """Where the transport discovery serves, whom it believes, how long entries live."""

    prefix: str = "/tpd"
    """Path before all routes; "" puts them at the root, as upstream has them."""
    requests_per_minute: float = Field(30.0, ge=0)
    """Signed requests of one key; 0 for no limit. The HTTP server bounds addresses besides."""
    burst: int = Field(10, ge=1)
    """How many may come at once before the rate counts."""
    transports_max: int = Field(4_096, ge=1, le=65_536)
    """Transports in one request, and of one key."""
    body_bytes_max: int = Field(4 * 1024 * 1024, ge=1_024)
    """Bytes of a request's body: some 600 for a transport."""

"""Settings of the server role."""

from __future__ import annotations

from pydantic import Field

from skycore.discovery.callers import CallerSettings

__all__ = ["TransportServerSettings"]


class TransportServerSettings(CallerSettings):
    """Where the transport discovery serves, whom it believes, how long entries live."""

    prefix: str = "/tpd"
    """Path before all routes; "" puts them at the root, as upstream has them."""
    entry_lifetime_s: float = Field(300.0, ge=30, le=86_400)
    """How long an entry lives that its edge does not repeat: at least three times the 90 s of
    registrations."""
    sweep_s: float = Field(5.0, gt=0, le=300)
    """How often entries whose life is over are ended."""
    requests_per_minute: float = Field(30.0, ge=0)
    """Signed requests of one key; 0 for no limit. The HTTP server bounds addresses besides."""
    burst: int = Field(10, ge=1)
    """How many may come at once before the rate counts."""
    callers_remembered_max: int = Field(10_000, ge=100)
    """Keys whose rate is counted; the one seen longest ago is forgotten first."""
    transports_max: int = Field(4_096, ge=1, le=65_536)
    """Transports in one request, and of one key."""
    body_bytes_max: int = Field(4 * 1024 * 1024, ge=1_024)
    """Bytes of a request's body: some 600 for a transport."""
    feed: bool = True
    """Publish what edges list to the mirrors: into the DHT, or to its Redis."""
    take: bool = True
    """List what edges publish in the DHT themselves, while this node follows it."""
    verify_s: float = Field(60.0, ge=1)
    """How often what is listed here is compared with what stands in the DHT."""

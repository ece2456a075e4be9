"""Settings of the server role."""

from __future__ import annotations

from pydantic import Field

from skycore.discovery.callers import CallerSettings

__all__ = ["ServiceServerSettings"]


class ServiceServerSettings(CallerSettings):
    """Where the service discovery serves, whom it believes, how long services live."""

    prefix: str = "/sd"
    """Path before all routes; "" puts them at the root, as upstream has them."""
    entry_lifetime_s: float = Field(300.0, ge=30, le=86_400)
    """How long a service lives that is not repeated: at least three times the 90 s of visors."""
    sweep_s: float = Field(5.0, gt=0, le=300)
    """How often services whose life is over are ended."""
    requests_per_minute: float = Field(60.0, ge=0)
    """Signed requests of one key; 0 for no limit. The HTTP server bounds addresses besides."""
    burst: int = Field(20, ge=1)
    """How many may come at once before the rate counts."""
    callers_remembered_max: int = Field(10_000, ge=100)
    """Keys whose rate is counted; the one seen longest ago is forgotten first."""
    services_max: int = Field(64, ge=1, le=4_096)
    """Services in one request."""
    feed: bool = True
    """Publish what is listed to the mirrors: into the DHT, or to its Redis."""
    take: bool = True
    """List what visors publish of their services in the DHT, while this node follows it."""
    verify_s: float = Field(60.0, ge=1)
    """How often what is listed here is compared with what stands in the DHT."""

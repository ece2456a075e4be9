"""Settings of the server role."""

from __future__ import annotations

from pydantic import Field

from skycore.discovery.desk import ServerSettings

__all__ = ["ServiceServerSettings"]


class ServiceServerSettings(ServerSettings):
    """Where the service discovery serves, whom it believes, how long services live."""

    prefix: str = "/sd"
    """Path before all routes; "" puts them at the root, as upstream has them."""
    services_max: int = Field(64, ge=1, le=4_096)
    """Services in one request."""

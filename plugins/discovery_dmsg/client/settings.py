"""Settings of discovery_dmsg."""

from __future__ import annotations

from pydantic import Field, field_validator

from skycore.contracts.settings import PluginSettings

__all__ = ["DmsgClientSettings"]


class DmsgClientSettings(PluginSettings):
    """Where this node registers its DMSG entry and reads those of others."""

    url: str = ""
    """Base address of a DMSG discovery with its prefix, `http://host:9080/dmsgd`; empty: none."""
    client_refresh_s: float = Field(default=300.0, ge=10)
    """How often a client's entry is repeated at the latest; a discovery keeps it for an hour."""
    server_refresh_s: float = Field(default=60.0, ge=5)
    """How often a server's entry is repeated; a discovery keeps it for two minutes."""
    debounce_s: float = Field(default=1.0, ge=0)
    """Changes within so long go in one request."""
    timeout_s: float = Field(default=10.0, gt=0)
    """How long a request may take."""
    wait_s: float = Field(default=5.0, gt=0)
    """How long `dmsg servers` waits for a source."""

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        if url and not url.startswith(("http://", "https://")):
            raise ValueError("a URL begins with http:// or https://")
        return url.rstrip("/")

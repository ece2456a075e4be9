"""Settings of discovery_dmsg and discovery_dmsg_server."""

from __future__ import annotations

from pydantic import Field, field_validator

from skycore.contracts.settings import PluginSettings
from skycore.discovery.callers import CallerSettings

__all__ = ["DmsgClientSettings", "DmsgServerSettings"]


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


class DmsgServerSettings(CallerSettings):
    """The DMSG discovery service."""

    prefix: str = "/dmsgd"
    """Where its routes are; empty: at the root, as older clients expect them."""
    client_lifetime_s: float = Field(default=3_600.0, gt=0)
    """How long a client's entry is listed after it was last repeated."""
    server_lifetime_s: float = Field(default=120.0, gt=0)
    """The same for a server's entry."""
    short_lifetime_s: float = Field(default=180.0, gt=0)
    """The same for a client's entry that was sent with `?timeout=true`."""
    clock_behind_s: float = Field(default=60.0, ge=0)
    """How old a server's entry may be when it arrives."""
    clock_ahead_s: float = Field(default=5.0, ge=0)
    """How far ahead of this node's clock its timestamp may lie."""
    official: tuple[str, ...] = Field((), max_length=1024)
    """Public keys of servers that are listed as `official`; all others are `community`."""
    loopback: bool = False
    """Accept servers at loopback addresses: for tests on one machine."""
    feed: bool = True
    """Publish what is listed as records `dmsg` and `dmsg-server`."""
    take: bool = True
    """List what keys publish of themselves as records `dmsg`."""

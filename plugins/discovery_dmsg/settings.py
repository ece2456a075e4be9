"""Settings of discovery_dmsg_server."""

from __future__ import annotations

from pydantic import Field

from skycore.discovery.callers import CallerSettings

__all__ = ["DmsgServerSettings"]


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

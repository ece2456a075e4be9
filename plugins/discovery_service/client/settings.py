"""Settings of the client role."""

from __future__ import annotations

from pydantic import Field, field_validator

from skycore.contracts.settings import PluginSettings

__all__ = ["Offer", "ServiceSettings"]


class Offer(PluginSettings):
    """A service that this node offers."""

    type: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    """What it is: vpn, skysocks, visor, or a word of your own."""
    port: int = Field(ge=1, le=65_535)
    """Where: its address is this node's key and this port."""
    version: str = Field(default="", max_length=64)
    """Of the program that serves; empty: this node's."""
    country: str = Field(default="", max_length=64)
    """Where it is on the globe; nobody works it out."""
    region: str = Field(default="", max_length=64)
    """Part of the country."""
    lat: float | None = Field(default=None, ge=-90, le=90)
    """Latitude, degrees."""
    lon: float | None = Field(default=None, ge=-180, le=180)
    """Longitude, degrees."""
    local_ips: tuple[str, ...] = Field(default=(), max_length=64)
    """This machine's own addresses; a service of type visor is listed only with them."""
    display_node_ip: bool = False
    """Show them to everybody."""


class ServiceSettings(PluginSettings):
    """What this node offers, and where that is listed."""

    url: str = ""
    """The service discovery, with its prefix: "https://discovery.example.net/sd". Empty: none."""
    services: tuple[Offer, ...] = Field(default=(), max_length=64)
    """What this node offers, besides what its plugins do:
    `services = [{type = "vpn", port = 44}]`."""
    interval_s: float = Field(90.0, ge=5)
    """How often it is repeated; the server forgets it after five minutes."""
    publish_s: float = Field(60.0, ge=5)
    """How often the record is handed to the mirrors: unchanged, it is merely prolonged."""
    publish: bool = True
    """Say in the DHT what this node offers."""
    timeout_s: float = Field(10.0, gt=0)
    """How long the server may take to answer."""
    wait_s: float = Field(5.0, gt=0)
    """How long each source may take when services are listed."""

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        if url and not url.startswith(("http://", "https://")):
            raise ValueError("a URL begins with http:// or https://")
        return url.rstrip("/")

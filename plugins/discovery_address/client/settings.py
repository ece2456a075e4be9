"""Settings of the client role."""

from __future__ import annotations

from pydantic import Field, field_validator

from skycore.contracts.settings import PluginSettings

__all__ = ["AddressSettings"]


class AddressSettings(PluginSettings):
    """Which address resolver is told where this node is, and how often."""

    url: str = ""
    """The resolver, with its prefix: "https://discovery.example.net/ar". Empty: none is asked or
    told, and what this node says in the DHT is what `transport_stcpr` listens at or advertises."""
    interval_s: float = Field(90.0, ge=5)
    """How often the bind is repeated; the resolver forgets it after five minutes."""
    publish_s: float = Field(60.0, ge=5)
    """How often the address record is handed to the mirrors: unchanged, it is merely prolonged."""
    publish: bool = True
    """Say in the DHT where this node can be dialled."""
    timeout_s: float = Field(10.0, gt=0)
    """How long the resolver may take to answer a bind."""

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        if url and not url.startswith(("http://", "https://")):
            raise ValueError("a URL begins with http:// or https://")
        return url.rstrip("/")

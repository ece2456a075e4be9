"""Settings of discovery_transport."""

from __future__ import annotations

from pydantic import Field

from skycore.contracts.settings import PluginSettings

__all__ = ["TransportDiscoverySettings"]


class TransportDiscoverySettings(PluginSettings):
    """How this node's own transports are made known, and others' are looked up."""

    url: str = ""
    """The transport discovery service, with its prefix: "https://tpd.example.net/tpd"; or none."""
    timeout_s: float = Field(default=15.0, gt=0)
    """How long the service may take to answer a registration, seconds."""
    list_timeout_s: float = Field(default=30.0, gt=0)
    """How long it may take to answer with all transports, seconds."""
    register_s: float = Field(default=90.0, ge=10)
    """How often transports are registered over HTTP, while the DHT does not carry them."""
    publish_s: float = Field(default=60.0, ge=10)
    """How often the node's record is published in the DHT and read back."""
    debounce_s: float = Field(default=5.0, ge=1)
    """Changes within so many seconds are told together."""
    hand_over: bool = True
    """Let the DHT alone carry the transports once that is proven; no: always register, too."""
    full_nodes_min: int = Field(default=2, ge=2)
    """How many other full nodes must hold the record before HTTP registration rests."""
    http_check_s: float = Field(default=480.0, ge=60, le=540)
    """How often the service is asked, while the DHT carries, whether it lists everything."""

"""Settings of dmsg_client and dmsg_server."""

from __future__ import annotations

from pydantic import Field, field_validator

from skycore.contracts.settings import PluginSettings
from skycore.errors import ConfigError
from skycore.model.addresses import split_host_port

__all__ = ["DmsgClientSettings", "DmsgServerSettings"]


class DmsgClientSettings(PluginSettings):
    """By how many relays this node is reached, and which."""

    servers: tuple[str, ...] = Field(default=(), max_length=64)
    """DMSG servers to use besides those found in the DHT and in discovery, `PK@host:port` each."""
    sessions_min: int = Field(default=2, ge=0, le=64)
    """Sessions to keep while there are servers; 0 attaches to none and dials through others'."""
    sessions_max: int = Field(default=8, ge=1, le=64)
    """Sessions at most; beyond `sessions_min` only with servers from the configuration."""
    dial_timeout_s: float = Field(default=5.0, gt=0)
    """How long one server may take, to be reached and to answer a dial or an attachment."""
    lookup_s: float = Field(default=1.5, gt=0)
    """How long sources are asked by which servers a key can be reached."""
    backoff_first_s: float = Field(default=1.0, gt=0)
    """Wait after a server first failed; doubles with each further failure."""
    backoff_longest_s: float = Field(default=60.0, gt=0)
    """Longest wait before a server is tried again."""
    inbound_max: int = Field(default=64, gt=0)
    """Relayed connections that may wait to be taken at a time."""
    publish: bool = True
    """Publish a record `dmsg` with the servers by which this node can be reached."""
    client_type: str = Field(default="visor", max_length=64)
    """What this node calls itself in its record."""

    @field_validator("servers")
    @classmethod
    def _contacts(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            key, at, endpoint = text.partition("@")
            try:
                _, port = split_host_port(endpoint)
            except ConfigError as bad:
                raise ValueError(f"{bad}; {bad.hint}") from bad
            if not at or not key or not port:
                raise ValueError(f"{text!r} is no server: write PK@host:port")
        return texts


class DmsgServerSettings(PluginSettings):
    """How much this node relays, and for whom it says so."""

    advertise: str = ""
    """host:port to tell others; empty tells the first address where this node takes connections
    that has a host, and nothing while there is none."""
    sessions_max: int = Field(default=2_048, gt=0)
    """Clients that are attached at a time."""
    sessions_per_host_max: int = Field(default=128, gt=0)
    """The same from one address (of IPv6: from one /64)."""
    streams_max: int = Field(default=2_048, gt=0)
    """Relayed streams of one key at a time, both those it dialled and those to it."""
    streams_node_max: int = Field(default=65_536, gt=0)
    """Relayed streams of all keys."""
    dials_per_minute: int = Field(default=600, ge=0)
    """Dials that one key may ask for in a minute on the mean, a quarter of it at once; 0: any."""
    requests_max: int = Field(default=64, gt=0)
    """Requests of one key that may be under way at a time."""
    bytes_per_s: int = Field(default=0, ge=0)
    """Bytes that one key may send through this relay in a second on the mean; 0: any."""
    request_timeout_s: float = Field(default=5.0, gt=0)
    """How long a request may take to arrive, and the other side to answer a forwarded dial."""
    idle_s: float = Field(default=300.0, gt=0)
    """A relayed stream on which nothing moved for so long is ended."""
    publish_s: float = Field(default=300.0, ge=10)
    """How often the own record `dmsg-server` is published at the latest."""

    @field_validator("advertise")
    @classmethod
    def _dialable(cls, text: str) -> str:
        if not text:
            return text
        try:
            host, port = split_host_port(text)
        except ConfigError as bad:
            raise ValueError(f"{bad}; {bad.hint}") from bad
        if not host or not port:
            raise ValueError(f"{text!r}: others dial a host and a port")
        return text

"""Settings of http_server and http_client."""

from __future__ import annotations

from ipaddress import ip_network

from pydantic import Field, field_validator

from skycore.contracts.settings import PluginSettings

__all__ = ["HttpClientSettings", "HttpServerSettings"]

MIB = 1024 * 1024


class HttpServerSettings(PluginSettings):
    """The node's HTTP server: where it listens, and the bounds that routes may narrow or widen."""

    listen: str = "127.0.0.1:9080"
    """host:port; port 0 for any free one, an empty host for all of IPv4, empty for no port."""
    connections_max: int = Field(default=1024, ge=1)
    """Open connections of all clients together; then the longest idle one makes room."""
    client_connections_max: int = Field(default=64, ge=1)
    """Open connections of one address."""
    body_bytes_max: int = Field(default=MIB, ge=0)
    """Bytes of a request's body; 413 above."""
    bodies_bytes_max: int = Field(default=64 * MIB, ge=0)
    """Bytes of all bodies being read or worked on; 503 above."""
    head_s_max: float = Field(default=15.0, gt=0)
    """How long a connection may idle, a request's head included; then 408, or it is closed."""
    body_s_max: float = Field(default=30.0, gt=0)
    """How long a request's body may take; then 408."""
    answer_s_max: float = Field(default=30.0, gt=0)
    """How long a handler may take to begin its answer; then 504."""
    write_s_max: float = Field(default=30.0, gt=0)
    """How long a client may take to read one piece of an answer; then its connection is closed."""
    requests_per_minute: float = Field(default=600.0, ge=0)
    """Of one address (of IPv6: of one /64) and set of routes; 429 above; 0 for no limit."""
    burst: int = Field(default=120, ge=1)
    """How many requests may come at once before the rate counts."""
    clients_remembered_max: int = Field(default=10_000, ge=1)
    """Addresses whose rate is remembered, for each set of routes."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks whose X-Forwarded-For is believed: ["127.0.0.0/8"] behind a proxy on this host."""
    status_s_max: float = Field(default=2.0, gt=0, le=60)
    """How long a part may take to say how it is, for /health; then it counts as degraded."""
    stop_s_max: float = Field(default=5.0, ge=0)
    """How long requests may go on when the node stops."""

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ip_network(text)
        return value


class HttpClientSettings(PluginSettings):
    """The HTTP client that all parts of the node share."""

    timeout_s: float = Field(default=15.0, gt=0)
    """How long a request may take in all, unless its sender says otherwise."""
    body_bytes_max: int = Field(default=64 * MIB, ge=0)
    """Bytes of an answer, unpacked, unless its reader says otherwise."""
    connections_max: int = Field(default=32, ge=1)
    """Connections at once, to all servers together; further requests wait for one."""
    idle_s_max: float = Field(default=4.0, gt=0)
    """How long a connection is kept for the next request: less than servers keep theirs."""
    ca_file: str = ""
    """Certificates (PEM) that servers are checked against; empty: those of the system."""

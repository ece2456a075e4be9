"""Settings of metrics_prometheus."""

from __future__ import annotations

from ipaddress import ip_network

from pydantic import Field, field_validator

from skycore.contracts.settings import PluginSettings

__all__ = ["MetricsSettings"]


class MetricsSettings(PluginSettings):
    """Metrics for Prometheus."""

    allow: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Networks that may read them; others get 403. Behind a proxy: http_server.trusted_proxies."""
    fresh_s: float = Field(default=1.0, ge=0)
    """How long one collection serves all scrapes: it asks every part, and the store."""
    part_s_max: float = Field(default=2.0, gt=0, le=60)
    """How long a part may take to say how it is; then it counts as degraded."""
    salts_max: int = Field(default=64, ge=1)
    """Salts with a label of their own, those with most items; the rest is "other"."""
    peers_max: int = Field(default=64, ge=1)
    """Watched peers with a label of their own."""
    fields_max: int = Field(default=64, ge=0)
    """Numbers taken from each part's status, besides those that have a metric of their own."""
    process: bool = True
    """Whether memory, processor time and open files of the process are among them."""

    @field_validator("allow")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ip_network(text)
        return value

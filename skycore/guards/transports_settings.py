"""What may be set of the transport manager."""

from __future__ import annotations

from pydantic import Field

from skycore.contracts.settings import PluginSettings

__all__ = ["TransportsSettings"]


class TransportsSettings(PluginSettings):
    """Settings of the transport manager."""

    transports_max: int = Field(default=8_192, gt=0)
    """Live transports at most; when full, the one idle longest of the ephemeral ones makes room, of
    the address that has most of them."""
    handshakes_max: int = Field(default=64, gt=0)
    """Handshakes in flight per listener."""
    handshakes_per_host_max: int = Field(default=8, gt=0)
    """Handshakes in flight per listener from one source host."""
    dials_max: int = Field(default=64, gt=0)
    """Dials in flight."""
    dial_limit_s: float = Field(default=10.0, gt=0)
    """Longest that making one transport may take, over all types and addresses."""
    lookup_s: float = Field(default=1.5, gt=0)
    """How long sources are asked where a key can be dialled, when no known address works."""
    dial_backoff_first_s: float = Field(default=0.5, gt=0)
    """Wait after a first failed dial; doubles with each further one."""
    dial_backoff_longest_s: float = Field(default=20.0, gt=0)
    """Longest wait between dials: how late the return of a peer may be noticed."""
    ping_interval_s: float = Field(default=10.0, gt=0)
    """How often a link is pinged; a silent one is noticed within two of these."""
    ephemeral_idle_s: float = Field(default=60.0, gt=0)
    """After how much silence a transport that was opened for a lookup is closed."""
    addresses_max: int = Field(default=16_384, gt=0)
    """Keys in the address book."""

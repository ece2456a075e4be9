"""Settings of visor_transports."""

from __future__ import annotations

from pydantic import Field

from skycore.contracts.settings import PluginSettings

__all__ = ["TransportsByHandSettings"]


class TransportsByHandSettings(PluginSettings):
    """How transports made by hand are kept."""

    kept_max: int = Field(default=256, ge=0)
    """How many transports added by hand are remembered over restarts."""
    retry_s: float = Field(default=10.0, ge=1)
    """Pause between tries to bring a kept transport back, seconds."""

"""Settings of visor_info."""

from __future__ import annotations

from pydantic import Field

from skycore.contracts.settings import PluginSettings

__all__ = ["VisorInfoSettings"]


class VisorInfoSettings(PluginSettings):
    """What the node says of itself."""

    status_timeout_s: float = Field(default=2.0, gt=0, le=60)
    """How long a part may take to say how it is, seconds; then it counts as degraded."""

"""Settings of store_memory."""

from __future__ import annotations

from pydantic import Field

from skycore.contracts.settings import PluginSettings

__all__ = ["MemoryStoreSettings"]


class MemoryStoreSettings(PluginSettings):
    """What a store in memory keeps beside the items."""

    history_versions_max: int = Field(default=2, ge=0, le=100)
    """Replaced items kept for each slot. Memory grows up to (1 + this) times what quotas allow."""

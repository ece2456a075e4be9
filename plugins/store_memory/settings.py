"""Settings of store_memory."""

from __future__ import annotations

from pydantic import Field

from skycore.contracts.settings import PluginSettings

__all__ = ["MemoryStoreSettings"]


class MemoryStoreSettings(PluginSettings):
    """What a store in memory keeps beside the items."""

    history_versions_max: int = Field(default=2, ge=0, le=100)
    """Replaced items kept for each slot."""
    history_bytes_max: int = Field(default=64 * 1024 * 1024, ge=0)
    """Bytes that replaced items and blocks only of theirs may take; the oldest go first."""

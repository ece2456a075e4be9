"""What this plugin adds to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["skycore_settings", "skycore_stores"]


@hookimpl
def skycore_settings() -> hooktypes.Settings:
    """How much history is kept."""
    from store_memory.settings import MemoryStoreSettings

    return MemoryStoreSettings


@hookimpl
def skycore_stores() -> hooktypes.Stores:
    """Items in memory."""
    from store_memory.service import open_memory_store

    return [open_memory_store]

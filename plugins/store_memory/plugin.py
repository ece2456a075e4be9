"""What this plugin adds to a node."""

from __future__ import annotations

from typing import Any

from skycore import hookimpl

__all__ = ["skycore_settings", "skycore_stores"]


@hookimpl
def skycore_settings() -> Any:
    """How much history is kept."""
    from store_memory.settings import MemoryStoreSettings

    return MemoryStoreSettings


@hookimpl
def skycore_stores() -> Any:
    """Items in memory."""
    from store_memory.service import open_memory_store

    return [open_memory_store]

"""What this plugin adds to a node."""

from __future__ import annotations

from typing import Any

from skycore import hookimpl

__all__ = ["skycore_settings", "skycore_stores"]


@hookimpl
def skycore_settings() -> Any:
    """Which file, how much history, how much memory."""
    from store_sqlite.settings import SqliteStoreSettings

    return SqliteStoreSettings


@hookimpl
def skycore_stores() -> Any:
    """Items in one SQLite file."""
    from store_sqlite.service import open_sqlite_store

    return [open_sqlite_store]

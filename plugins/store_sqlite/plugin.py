"""What this plugin adds to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["skycore_settings", "skycore_stores"]


@hookimpl
def skycore_settings() -> hooktypes.Settings:
    """Which file, how much history, how much memory."""
    from store_sqlite.settings import SqliteStoreSettings

    return SqliteStoreSettings


@hookimpl
def skycore_stores() -> hooktypes.Stores:
    """Items in one SQLite file."""
    from store_sqlite.service import open_sqlite_store

    return [open_sqlite_store]

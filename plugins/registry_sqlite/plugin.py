"""What this plugin adds to a node."""

from __future__ import annotations

from typing import Any

from skycore import hookimpl

__all__ = ["skycore_registries", "skycore_settings"]


@hookimpl
def skycore_settings() -> Any:
    """Which file, and how much may be listed."""
    from registry_sqlite.settings import SqliteRegistrySettings

    return SqliteRegistrySettings


@hookimpl
def skycore_registries() -> Any:
    """Listings in one SQLite file."""
    from registry_sqlite.service import open_sqlite_registry

    return [open_sqlite_registry]

"""What this plugin adds to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["skycore_registries", "skycore_settings"]


@hookimpl
def skycore_settings() -> hooktypes.Settings:
    """Which file, and how much may be listed."""
    from registry_sqlite.settings import SqliteRegistrySettings

    return SqliteRegistrySettings


@hookimpl
def skycore_registries() -> hooktypes.Registries:
    """Listings in one SQLite file."""
    from registry_sqlite.service import open_sqlite_registry

    return [open_sqlite_registry]

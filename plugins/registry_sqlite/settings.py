"""Settings of registry_sqlite."""

from __future__ import annotations

from pydantic import Field

from skycore.discovery.registries import RegistryBounds

__all__ = ["SqliteRegistrySettings"]


class SqliteRegistrySettings(RegistryBounds):
    """Which file, and what it may cost."""

    path: str = Field(default="registry.db", pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$")
    """Name of the file in the data folder."""
    cache_mib: int = Field(default=16, ge=1, le=4_096)
    """Memory that SQLite may use to cache pages, MiB."""
    lock_wait_s: float = Field(default=2.0, ge=0, le=60)
    """How long to wait at start for another process to let go of the file, seconds."""

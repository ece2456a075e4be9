"""Settings of store_sqlite."""

from __future__ import annotations

from pydantic import Field

from skycore.contracts.settings import PluginSettings

__all__ = ["SqliteStoreSettings"]


class SqliteStoreSettings(PluginSettings):
    """Which file, and what it may cost."""

    path: str = Field(default="items.db", pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$")
    """Name of the file in the data folder."""
    history_versions_max: int = Field(default=4, ge=0, le=100)
    """Replaced items kept for each slot."""
    history_bytes_max: int = Field(default=64 * 1024 * 1024, ge=0)
    """Bytes that replaced items and blocks only of theirs may take; the oldest go first."""
    cache_mib: int = Field(default=16, ge=1, le=4_096)
    """Memory that SQLite may use to cache pages, MiB."""
    lock_wait_s: float = Field(default=2.0, ge=0, le=60)
    """How long to wait at start for another process to let go of the file, seconds."""
    check_max_mib: int = Field(default=256, ge=0)
    """Files up to this size are checked page by page at start (about 0.3 s per 100 MiB), MiB."""

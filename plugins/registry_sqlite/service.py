"""The part of registry_sqlite: a registry in the node's data folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from registry_sqlite.database import Database
from registry_sqlite.registry import SqliteRegistry
from registry_sqlite.settings import SqliteRegistrySettings
from skycore.contracts.registry import Registry
from skycore.contracts.runtime import Clock, Entropy, Files, Workers

__all__ = ["open_sqlite_registry"]


@asynccontextmanager
async def open_sqlite_registry(
    settings: SqliteRegistrySettings, files: Files, clock: Clock, entropy: Entropy, workers: Workers
) -> AsyncIterator[Registry]:
    """Keep listings in a file of the data folder, or in memory where there is none."""
    database = Database(
        files.path(settings.path), cache_mib=settings.cache_mib, lock_wait_s=settings.lock_wait_s
    )
    registry = SqliteRegistry(database, settings, clock, entropy, workers)
    await registry.start()
    try:
        yield registry
    finally:
        await registry.stop()

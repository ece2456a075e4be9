"""The part of registry_sqlite: a registry in the node's data folder.

Why not durable: nothing waits for the disk then, so a thousand registrations a second cost no
thousand syncs. A killed process loses nothing. After a power failure the file is whole, but as it
was some seconds before; every caller repeats what it lists within 90 s, and nonces that were used
up in these seconds are never accepted again (tables.py, floor).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from registry_sqlite.registry import SqliteRegistry
from registry_sqlite.schema import SCHEMA
from registry_sqlite.settings import SqliteRegistrySettings
from skycore.contracts.registry import Registry
from skycore.contracts.runtime import Clock, Entropy, Files, Workers
from skycore.sqlite import SqliteFile

__all__ = ["open_sqlite_registry"]


@asynccontextmanager
async def open_sqlite_registry(
    settings: SqliteRegistrySettings, files: Files, clock: Clock, entropy: Entropy, workers: Workers
) -> AsyncIterator[Registry]:
    """Keep listings in a file of the data folder, or in memory where there is none."""
    file = SqliteFile(
        files.path(settings.path),
        SCHEMA,
        cache_mib=settings.cache_mib,
        lock_wait_s=settings.lock_wait_s,
        is_durable=False,
    )
    registry = SqliteRegistry(file, settings, clock, entropy, workers)
    await registry.start()
    try:
        yield registry
    finally:
        await registry.stop()

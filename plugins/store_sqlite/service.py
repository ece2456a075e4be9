"""Items in one SQLite file: a call is one turn in a worker, a change one transaction."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeVar

import anyio

from skycore.contracts.runtime import Entropy, Files, Workers
from skycore.contracts.store import (
    ChangeFilter,
    ChangePage,
    Fingerprint,
    ItemKey,
    ItemStore,
    PutOutcome,
    Usage,
)
from skycore.errors import StoreCorruptError
from skycore.model.items import Cursor, Lease, RankedItem, StoredItem
from skycore.model.prints import Prints
from skycore.sqlite import Schema, SqliteFile
from store_sqlite.blocks import BlockTable
from store_sqlite.history import HistoryTable
from store_sqlite.migrations import MIGRATIONS
from store_sqlite.reader import Reader
from store_sqlite.schema import CREATE, SCHEMA_VERSION
from store_sqlite.settings import SqliteStoreSettings
from store_sqlite.writer import SWEEP_ROWS, Writer

__all__ = ["SqliteStore", "open_sqlite_store"]

T = TypeVar("T")
log = logging.getLogger(__name__)
FILE: Final = Schema(
    what="item store",
    holds="items",
    setting="store_sqlite.path",
    mark="items",
    version=SCHEMA_VERSION,
    create=CREATE,
    migrations=MIGRATIONS,
)


class SqliteStore:
    """An ItemStore in a file. Calls wait for each other in order of arrival."""

    def __init__(
        self,
        database: SqliteFile,
        workers: Workers,
        entropy: Entropy,
        history_versions_max: int,
        history_bytes_max: int,
    ) -> None:
        self._db = database
        self._workers = workers
        self._entropy = entropy
        self._turn = anyio.Lock()
        prints = Prints()
        self._reader = Reader(database, prints)
        blocks = BlockTable(database)
        history = HistoryTable(database, blocks, history_versions_max, history_bytes_max)
        self._writer = Writer(database, prints, blocks, history)
        self.store_id = b""

    async def start(self) -> None:
        """Open the file. Raises a named `StoreError`."""
        await self._workers.run(self._start)

    def _start(self) -> None:
        self._db.open()
        try:
            self._load()
        except StoreCorruptError as damage:
            self._begin_anew(damage)
        except BaseException:
            self._db.close()  # or the file would stay locked
            raise

    def _load(self) -> None:
        with self._db.transaction():
            self.store_id = self._writer.load(self._entropy.bytes(16))

    async def stop(self) -> None:
        """Close the file."""
        with anyio.CancelScope(shield=True):
            async with self._turn:
                await self._workers.run(self._db.close)

    # --- the two ways to the worker -------------------------------------------------------------

    async def _read(self, work: Callable[[], T]) -> T:
        async with self._turn:
            return await self._workers.run(partial(self._reading, work))

    def _reading(self, work: Callable[[], T]) -> T:
        try:
            while True:
                with self._db.reading():
                    answer = work()
                if not self._reader.damaged:
                    return answer
                self._drop_damaged()  # and read again: a page without them would end too early
        except StoreCorruptError as damage:
            raise self._begin_anew(damage) from damage

    async def _write(self, work: Callable[[], T]) -> T:
        async with self._turn:
            return await self._workers.run(partial(self._writing, work))

    def _writing(self, work: Callable[[], T]) -> T:
        before = self._writer.mark()
        try:
            with self._db.transaction():
                return work()
        except StoreCorruptError as damage:
            raise self._begin_anew(damage) from damage
        except BaseException:
            self._writer.undo(before)
            raise

    def _drop_damaged(self) -> None:
        damaged = sorted(self._reader.damaged)
        self._reader.damaged.clear()
        log.error("items that fail their checksum are dropped items=%d", len(damaged))
        self._writing(partial(self._writer.drop_damaged, damaged))

    def _begin_anew(self, damage: StoreCorruptError) -> StoreCorruptError:
        """Put the file aside; the store goes on, empty, under a new id."""
        self._writer.undo((0, 0))
        self._db.replace(str(damage))
        self._load()
        return StoreCorruptError(
            str(damage), hint="the file is kept aside; the store begins anew, without items"
        )

    # --- the contract ---------------------------------------------------------------------------

    async def get(self, targets: Sequence[bytes]) -> Sequence[tuple[StoredItem, ...]]:
        """Return what the slots of each target hold."""
        return await self._read(lambda: self._reader.get(targets))

    async def changes(
        self, after: Cursor | None, wanted: ChangeFilter, limit: int, bytes_max: int
    ) -> ChangePage:
        """Return a stretch of the change log."""

        def page() -> ChangePage:
            place = Cursor(self.store_id, self._writer.position)
            return self._reader.changes(place, after, wanted, limit, bytes_max)

        return await self._read(page)

    async def fingerprints(
        self, salt: bytes | None, ranges: Sequence[tuple[bytes, bytes]]
    ) -> Sequence[Fingerprint]:
        """Return a fingerprint for each range."""
        return await self._read(lambda: self._reader.fingerprints(salt, ranges))

    async def listing(
        self, salt: bytes | None, low: bytes, high: bytes, limit: int
    ) -> Sequence[StoredItem]:
        """Return items by target."""
        return await self._read(lambda: self._reader.listing(salt, low, high, limit))

    async def blocks(self, hashes: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return blocks."""
        return await self._read(lambda: self._reader.blocks(hashes))

    async def history(self, target: bytes, limit: int) -> Sequence[StoredItem]:
        """Return replaced items."""
        return await self._read(lambda: self._reader.history(target, limit))

    async def usage(self) -> Mapping[bytes, Usage]:
        """Return what is held under each salt."""
        return await self._read(self._reader.usage)

    async def signer_usage(self, accounts: Sequence[bytes]) -> Sequence[Usage]:
        """Return what is held on each account."""
        return await self._read(lambda: self._reader.signer_usage(accounts))

    async def put_many(
        self, items: Sequence[RankedItem], blocks: Mapping[bytes, bytes] | None = None
    ) -> Sequence[PutOutcome]:
        """Compare and set by rank."""
        return await self._write(lambda: self._writer.put_many(items, blocks or {}))

    async def renew(self, leases: Sequence[Lease], now_ns: int) -> Sequence[PutOutcome]:
        """Set leases."""
        return await self._write(lambda: self._writer.renew(leases))

    async def drop(self, keys: Sequence[ItemKey], positions: Sequence[int] | None = None) -> int:
        """Forget slots."""
        return await self._write(lambda: self._writer.drop(keys, positions))

    async def sweep(self, now_s: int) -> int:
        """Drop what has ended, in portions: a large one must not keep readers waiting."""
        count = 0
        while True:
            dropped = await self._write(lambda: self._writer.sweep(now_s))
            count += dropped
            if dropped < SWEEP_ROWS:
                return count

    def watch(self) -> None:
        """Nobody else can write here: the file is locked."""


@asynccontextmanager
async def open_sqlite_store(
    settings: SqliteStoreSettings, files: Files, entropy: Entropy, workers: Workers
) -> AsyncIterator[ItemStore]:
    """Keep items in a file of the data folder, or in memory where there is none."""
    database = SqliteFile(
        files.path(settings.path),
        FILE,
        cache_mib=settings.cache_mib,
        lock_wait_s=settings.lock_wait_s,
        check_max_mib=settings.check_max_mib,
    )
    store = SqliteStore(
        database, workers, entropy, settings.history_versions_max, settings.history_bytes_max
    )
    await store.start()
    try:
        yield store
    finally:
        await store.stop()

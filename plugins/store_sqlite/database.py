"""One SQLite file, one connection, one transaction at a time; and what can happen to a file.

Why one connection: SQLite before 3.51.3 can corrupt a WAL that two connections reset at once, and
one writer is all a node has. The file is locked for as long as it is open, so a second node on it
is refused. Durability: `journal_mode=WAL`, `synchronous=FULL`, so a commit that returned is on the
disk. Sources: sqlite.org/wal.html, /pragma.html, /rescode.html.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from skycore.errors import (
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreVersionError,
)
from store_sqlite.migrations import MIGRATIONS
from store_sqlite.schema import METADATA, SCHEMA_VERSION

__all__ = ["Database"]

log = logging.getLogger(__name__)

_HINT_RIGHTS = "check the folder, the file, their owner and mode"
_EFFECTIVE = os.access in os.supports_effective_ids
_PAGE_MIN = 512
_VERSION_SANE_MAX = 10_000
_CHECKPOINT_PAGES = 4_096
_ASIDE_MAX = 9
_READ_AHEAD = 32
_FILES = ("", "-wal", "-shm", "-journal")


class Database:
    """The file, open. All calls block, and may come from any thread, one at a time.

    `statements` counts what was executed, for tests of how much a call costs.
    """

    def __init__(
        self, path: Path | None, *, cache_mib: int, lock_wait_s: float, check_max_mib: int
    ) -> None:
        self._path = path
        self._cache_mib = cache_mib
        self._lock_wait_s = lock_wait_s
        self._check_max = check_max_mib << 20
        self._turn = threading.RLock()
        self._engine: Engine | None = None
        self._connection: Connection | None = None
        self._stopped = ""
        self.statements = 0

    # --- opening and closing --------------------------------------------------------------------

    def open(self, store_id: bytes) -> None:
        """Open or create the file; `store_id` is for a new one.

        A damaged file is kept aside under a new name, and a new one takes its place. Raises
        `StoreVersionError`, `StoreBusyError`, `StoreReadOnlyError` or `StoreError`.
        """
        try:
            self._open(store_id)
        except StoreCorruptError as damage:
            self.replace(store_id, str(damage))

    def replace(self, store_id: bytes, why: str) -> None:
        """Put the damaged file aside and begin a new one."""
        self.close()
        log.error("items lost: %s; beginning with none kept_as=%s", why, self._set_aside())
        self._open(store_id)

    def _open(self, store_id: bytes) -> None:
        self._look()
        self._engine = create_engine(
            "sqlite://", creator=self._connect, poolclass=StaticPool, isolation_level="AUTOCOMMIT"
        )
        try:
            with self._named_errors():
                self._connection = self._engine.connect()
                self.execute("PRAGMA locking_mode = EXCLUSIVE")
                self.execute("PRAGMA trusted_schema = OFF")
                version = self._version()  # from here on the file is ours to change
                self._prepare()
                if version == 0:
                    self._create(store_id)
                self._bring_up(version or SCHEMA_VERSION)
                self._check()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file. Never raises: what was acknowledged is on the disk already."""
        engine, connection = self._engine, self._connection
        self._engine = self._connection = None
        with suppress(DBAPIError):
            if connection is not None:
                connection.close()
            if engine is not None:
                engine.dispose()

    def _look(self) -> None:
        """See what is there before SQLite does.

        Without opening it: closing any handle of a file drops all locks that this process has on
        it (sqlite.org/howtocorrupt.html, 2.2), another store's too.
        """
        if self._path is None:
            return
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            size = 0
        except OSError as bad:
            raise StoreReadOnlyError(
                f"{self._path} cannot be opened: {bad.strerror}", hint=_HINT_RIGHTS
            ) from bad
        if size and not os.access(self._path, os.R_OK | os.W_OK, effective_ids=_EFFECTIVE):
            raise StoreReadOnlyError(f"{self._path} cannot be written", hint=_HINT_RIGHTS)
        if size == 0 and Path(f"{self._path}-wal").exists():
            raise StoreCorruptError(f"{self._path} is gone, but its write-ahead log is not")
        if 0 < size < _PAGE_MIN:
            raise StoreCorruptError(f"{self._path} is no SQLite file")

    def _refuse_newer(self, version: int) -> None:
        if SCHEMA_VERSION < version <= _VERSION_SANE_MAX:
            raise StoreVersionError(
                f"{self._path} has schema {version}; this program knows up to {SCHEMA_VERSION}",
                hint="update this program, or move the file away and begin with none",
            )
        if version > _VERSION_SANE_MAX:
            raise StoreCorruptError(f"{self._path} has an impossible schema version, {version}")

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self._path or ":memory:",
            timeout=self._lock_wait_s,
            isolation_level=None,  # we say BEGIN ourselves
            check_same_thread=False,  # any thread, one at a time: self._turn
        )

    def _prepare(self) -> None:
        for setting in (
            f"cache_size = -{self._cache_mib * 1024}",
            "cell_size_check = ON",
            "journal_mode = WAL",
            "synchronous = FULL",
            f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
            f"journal_size_limit = {_CHECKPOINT_PAGES * 4096}",
        ):
            self.execute(f"PRAGMA {setting}")
        self.execute("BEGIN IMMEDIATE")  # takes the lock, which stays
        self.execute("COMMIT")

    def _version(self) -> int:
        version = int(self.execute("PRAGMA user_version").scalar_one())
        self._refuse_newer(version)
        if version == 0:
            found = {row[0] for row in self.execute("SELECT name FROM sqlite_schema")}
            if "items" in found:
                raise StoreCorruptError(f"{self._path} has lost its schema version")
            if found:
                raise StoreError(
                    f"{self._path} is another program's database", hint="set store_sqlite.path"
                )
        return version

    def _create(self, store_id: bytes) -> None:
        with self.transaction():
            assert self._connection is not None
            METADATA.create_all(self._connection, checkfirst=False)
            self.execute(
                "INSERT INTO meta (id, store_id, position, history_bytes) VALUES (1, ?, 0, 0)",
                (store_id,),
            )
            self.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        if self._path is not None:
            self.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # now the header says what it is
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _bring_up(self, version: int) -> None:
        """Bring a file of an older version up to date, step by step."""
        while version < SCHEMA_VERSION:
            with self.transaction():
                for statement in MIGRATIONS[version]:
                    self.execute(statement)
                version += 1
                self.execute(f"PRAGMA user_version = {version}")
            log.info("the item store's file was brought up to date schema=%d", version)

    def _check(self) -> None:
        """Read every page, if that is not too much; without it damage shows when it is met."""
        pages = int(self.execute("PRAGMA page_count").scalar_one())
        size = pages * int(self.execute("PRAGMA page_size").scalar_one())
        if size <= self._check_max:
            verdict = self.execute("PRAGMA quick_check(1)").scalar_one()
            if verdict != "ok":
                raise StoreCorruptError(f"{self._path} is damaged: {verdict}")

    def _set_aside(self) -> str:
        """Rename the file and what belongs to it; return the new name. The tenth replaces one."""
        if self._path is None:
            return "nothing"
        numbers = range(1, _ASIDE_MAX + 1)
        names = [f"{self._path}.damaged-{n}" for n in numbers]
        name = next((n for n in names if not Path(n).exists()), names[-1])
        try:
            for suffix in _FILES:
                with suppress(FileNotFoundError):
                    Path(f"{self._path}{suffix}").replace(f"{name}{suffix}")
        except OSError as bad:
            raise StoreReadOnlyError(
                f"{self._path} is damaged and cannot be put aside: {bad.strerror}"
            ) from bad
        return name

    # --- statements -----------------------------------------------------------------------------

    def execute(self, statement: str, parameters: Any = None) -> CursorResult[*tuple[Any, ...]]:
        """Run a statement; a list of tuples runs it once for each."""
        if self._connection is None:
            raise StoreError(f"{self._path or 'the store in memory'} is closed")
        self.statements += 1
        return self._connection.exec_driver_sql(statement, parameters)

    def many(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        """Run a statement for each row; nothing for none."""
        if rows:
            self.execute(statement, rows)

    def rows(self, statement: str, parameters: tuple[Any, ...] = ()) -> Sequence[Sequence[Any]]:
        """Return all rows at once: for what is small."""
        return self.execute(statement, parameters).all()

    def stream(self, statement: str, parameters: tuple[Any, ...]) -> Iterator[Any]:
        """Yield rows (tuples), some read ahead: whoever stops early has not read the rest."""
        found = self.execute(statement, parameters)
        try:
            for rows in found.partitions(_READ_AHEAD):
                yield from rows
        finally:
            found.close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the connection for reads: nobody writes between them."""
        with self._turn, self._named_errors():
            yield

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is done inside, as a whole; on any error undo it."""
        with self._turn, self._named_errors():
            if self._stopped:
                raise StoreError(
                    f"writing stopped after {self._stopped}",
                    hint="check the disk, then restart: only then is it known what was written",
                )
            self.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.execute("COMMIT")
            except BaseException:
                with suppress(
                    DBAPIError, UnicodeDecodeError
                ):  # SQLite may have undone it by itself
                    self.execute("ROLLBACK")
                raise

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as bad:
            raise self._named(bad) from bad
        except UnicodeDecodeError as bad:  # sqlite3's message quotes the damaged schema
            raise StoreCorruptError(f"{self._path or 'the store in memory'}: {bad}") from bad

    def _named(self, bad: DBAPIError) -> StoreError:
        code = getattr(bad.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        name = getattr(bad.orig, "sqlite_errorname", "")
        text = f"{self._path or 'the store in memory'}: {bad.orig} ({name})"
        match code & 0xFF:
            case sqlite3.SQLITE_FULL:
                return StoreFullError(text, hint="free some space: it goes on by itself")
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return StoreBusyError(text, hint="another node uses this file: give each its own")
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN:
                return StoreReadOnlyError(text, hint=_HINT_RIGHTS)
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return StoreCorruptError(text)
            case sqlite3.SQLITE_IOERR:
                self._stopped = name
                log.error("writing to the item store stopped error=%s", name)
                return StoreError(text, hint="check the disk, then restart")
            case _:
                return StoreError(text)

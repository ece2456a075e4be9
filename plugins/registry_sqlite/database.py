"""One SQLite file, one connection, one transaction at a time; and what can happen to a file.

Why one connection: SQLite before 3.51.3 can corrupt a WAL that two connections reset at once, and
one writer is all a node has. The file is locked for as long as it is open, so a second node on it
is refused.

Why `synchronous=NORMAL` and not FULL: nothing waits for the disk then, so a thousand registrations
a second cost no thousand syncs. A killed process loses nothing. After a power failure the file is
whole, but as it was some seconds before; every caller repeats what it lists within 90 s, and nonces
that were used up in these seconds are never accepted again (tables.py, floor).
Sources: sqlite.org/wal.html, /pragma.html, /rescode.html.
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

from registry_sqlite.schema import SCHEMA, SCHEMA_VERSION
from skycore.errors import (
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreVersionError,
)

__all__ = ["Database"]

log = logging.getLogger(__name__)

_HINT_RIGHTS = "check the folder, the file, their owner and mode"
_PAGE_MIN = 512
_VERSION_SANE_MAX = 10_000
_CHECKPOINT_PAGES = 4_096
_ASIDE_MAX = 9
_READ_AHEAD = 16
_FILES = ("", "-wal", "-shm", "-journal")


class Database:
    """The file, open. All calls block, and may come from any thread, one at a time."""

    def __init__(self, path: Path | None, *, cache_mib: int, lock_wait_s: float) -> None:
        self._path = path
        self._cache_mib = cache_mib
        self._lock_wait_s = lock_wait_s
        self._turn = threading.RLock()
        self._engine: Engine | None = None
        self._connection: Connection | None = None
        self._file: sqlite3.Connection | None = None
        self._stopped = ""
        self.statements = 0
        """What was executed, for tests of how much a call costs."""

    @property
    def _name(self) -> str:
        return str(self._path or "the registry in memory")

    # --- opening and closing --------------------------------------------------------------------

    def open(self) -> None:
        """Open or create the file; a damaged one is kept aside, and a new one takes its place.

        Raises `StoreVersionError`, `StoreBusyError`, `StoreReadOnlyError` or `StoreError`.
        """
        try:
            self._open()
        except StoreCorruptError as damage:
            self.replace(str(damage))

    def replace(self, why: str) -> None:
        """Put the damaged file aside and begin a new one."""
        self.close()
        log.error("listings lost: %s; beginning with none kept_as=%s", why, self._set_aside())
        self._open()

    def _open(self) -> None:
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
                    self._create()
                verdict = self.execute("PRAGMA quick_check(1)").scalar_one()
                if verdict != "ok":
                    raise StoreCorruptError(f"{self._name} is damaged: {verdict}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file. Never raises."""
        engine, connection, file = self._engine, self._connection, self._file
        self._engine = self._connection = self._file = None
        with suppress(DBAPIError):
            if connection is not None:
                connection.close()
        with suppress(DBAPIError):
            if engine is not None:
                engine.dispose()
        with suppress(sqlite3.Error):
            if file is not None:
                file.close()  # whatever the two above made of an error on the way

    def _look(self) -> None:
        """See what is there before SQLite does, without opening it: a close drops its locks."""
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
        if size and not os.access(self._path, os.R_OK | os.W_OK):
            raise StoreReadOnlyError(f"{self._path} cannot be written", hint=_HINT_RIGHTS)
        if size == 0 and Path(f"{self._path}-wal").exists():
            raise StoreCorruptError(f"{self._path} is gone, but its write-ahead log is not")
        if 0 < size < _PAGE_MIN:
            raise StoreCorruptError(f"{self._path} is no SQLite file")

    def _connect(self) -> sqlite3.Connection:
        self._file = sqlite3.connect(
            self._path or ":memory:",
            timeout=self._lock_wait_s,
            isolation_level=None,  # we say BEGIN ourselves
            check_same_thread=False,  # any thread, one at a time: self._turn
        )
        return self._file

    def _version(self) -> int:
        version = int(self.execute("PRAGMA user_version").scalar_one())
        if version == 0:
            found = {row[0] for row in self.execute("SELECT name FROM sqlite_schema")}
            if "listings" in found:
                raise StoreCorruptError(f"{self._name} has lost its schema version")
            if found:
                raise StoreError(
                    f"{self._name} is another program's database", hint="set registry_sqlite.path"
                )
        elif version > _VERSION_SANE_MAX:
            raise StoreCorruptError(f"{self._name} has an impossible schema version, {version}")
        elif version != SCHEMA_VERSION:
            raise StoreVersionError(
                f"{self._name} has schema {version}; this program knows {SCHEMA_VERSION}",
                hint="update this program, or move the file away: what is listed is repeated",
            )
        return version

    def _prepare(self) -> None:
        for setting in (
            f"cache_size = -{self._cache_mib * 1024}",
            "cell_size_check = ON",
            "journal_mode = WAL",
            "synchronous = NORMAL",
            f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
            f"journal_size_limit = {_CHECKPOINT_PAGES * 4096}",
        ):
            self.execute(f"PRAGMA {setting}")
        self.execute("BEGIN IMMEDIATE")  # takes the lock, which stays
        self.execute("COMMIT")

    def _create(self) -> None:
        with self.transaction():
            for statement in SCHEMA:
                self.execute(statement)
            self.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self.checkpoint()  # now the header says what it is

    def checkpoint(self) -> None:
        """Bring everything to the disk, and wait for it."""
        with self._turn, self._named_errors():
            self.execute("PRAGMA synchronous = FULL")
            self.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self.execute("PRAGMA synchronous = NORMAL")

    def _set_aside(self) -> str:
        """Rename the file and what belongs to it; return the new name. The tenth replaces one."""
        if self._path is None:
            return "nothing"
        names = [f"{self._path}.damaged-{n}" for n in range(1, _ASIDE_MAX + 1)]
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
            raise StoreError(f"{self._name} is closed")
        self.statements += 1
        return self._connection.exec_driver_sql(statement, parameters)

    def many(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        """Run a statement for each row; nothing for none."""
        if rows:
            self.execute(statement, rows)

    def rows(self, statement: str, parameters: tuple[Any, ...] = ()) -> Sequence[Sequence[Any]]:
        """Return all rows at once."""
        return self.execute(statement, parameters).all()

    def stream(self, statement: str, parameters: tuple[Any, ...]) -> Iterator[Any]:
        """Yield rows, some read ahead: whoever stops early has not read the rest."""
        found = self.execute(statement, parameters)
        try:
            for rows in found.partitions(_READ_AHEAD):
                yield from rows
        finally:
            found.close()

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
                with suppress(DBAPIError, UnicodeDecodeError):  # SQLite may have undone it already
                    self.execute("ROLLBACK")
                raise

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as bad:
            raise self._named(bad) from bad
        except UnicodeDecodeError as bad:  # sqlite3's message quotes the damaged schema
            raise StoreCorruptError(f"{self._name}: {bad}") from bad

    def _named(self, bad: DBAPIError) -> StoreError:
        code = getattr(bad.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        name = getattr(bad.orig, "sqlite_errorname", "")
        text = f"{self._name}: {bad.orig} ({name})"
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
                log.error("writing to the registry stopped error=%s", name)
                return StoreError(text, hint="check the disk, then restart")
            case _:
                return StoreError(text)

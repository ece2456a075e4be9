"""One SQLite file, one connection, one transaction at a time; and what can happen to a file.

Why one connection: SQLite before 3.51.3 can corrupt a WAL that two connections reset at once, and
one writer is all a node has. The file is locked for as long as it is open, so a second node on it
is refused. Why here: whatever keeps something in a file meets the same disks, locks and damage;
what it keeps there, and in which tables, is its own. Only who uses this module needs SQLAlchemy.
Sources: sqlite.org/wal.html, /pragma.html, /rescode.html, /howtocorrupt.html.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

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

__all__ = ["Schema", "SqliteFile", "marks"]

log = logging.getLogger(__name__)

HINT_RIGHTS: Final = "check the folder, the file, their owner and mode"
EFFECTIVE: Final = os.access in os.supports_effective_ids
PAGE_MIN: Final = 512
VERSION_SANE_MAX: Final = 10_000
CHECKPOINT_PAGES: Final = 4_096
ASIDE_MAX: Final = 9
READ_AHEAD: Final = 32
SUFFIXES: Final = ("", "-wal", "-shm", "-journal")


@dataclass(frozen=True)
class Schema:
    """What makes a file ours, and what it is called."""

    what: str
    """Of whom, in messages: "item store"."""
    holds: str
    """What is lost with it: "items"."""
    setting: str
    """Which setting names the file: "store_sqlite.path"."""
    mark: str
    """A table that stands in every such file."""
    version: int
    """Kept in `PRAGMA user_version`. A file with a higher one is refused and left as it is."""
    create: Sequence[str]
    """Statements that make an empty file one of this version."""
    migrations: Mapping[int, Sequence[str]] = field(default_factory=dict)
    """From each older version to the next."""
    newer_hint: str = "update this program, or move the file away and begin with none"


class SqliteFile:
    """The file, open. All calls block, and may come from any thread, one at a time.

    `is_durable`: a commit that returned is on the disk (`synchronous=FULL`). Else a killed process
    loses nothing, and a power failure some seconds, but the file stays whole. `check_max_mib`:
    larger files are not read whole at start; None checks them all. No `path`: in memory.
    """

    def __init__(
        self,
        path: Path | None,
        schema: Schema,
        *,
        cache_mib: int,
        lock_wait_s: float,
        is_durable: bool = True,
        check_max_mib: int | None = None,
    ) -> None:
        self._path = path
        self._schema = schema
        self._cache_mib = cache_mib
        self._lock_wait_s = lock_wait_s
        self._synchronous = "FULL" if is_durable else "NORMAL"
        self._check_max = None if check_max_mib is None else check_max_mib << 20
        self._turn = threading.RLock()
        self._engine: Engine | None = None
        self._connection: Connection | None = None
        self._file: sqlite3.Connection | None = None
        self._stopped = ""
        self.statements = 0
        """What was executed, for tests of how much a call costs."""

    @property
    def _name(self) -> str:
        return str(self._path or f"the {self._schema.what} in memory")

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
        aside = self._set_aside()
        log.error("%s lost: %s; beginning with none kept_as=%s", self._schema.holds, why, aside)
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
                else:
                    self._bring_up(version)
                self._check()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file. Never raises: what is safe does not depend on it."""
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
        """See what is there before SQLite does.

        Without opening it: closing any handle of a file drops all locks that this process has on
        it (howtocorrupt.html, 2.2), another connection's too.
        """
        if self._path is None:
            return
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            size = 0
        except OSError as bad:
            raise StoreReadOnlyError(
                f"{self._path} cannot be opened: {bad.strerror}", hint=HINT_RIGHTS
            ) from bad
        if size and not os.access(self._path, os.R_OK | os.W_OK, effective_ids=EFFECTIVE):
            raise StoreReadOnlyError(f"{self._path} cannot be written", hint=HINT_RIGHTS)
        if size == 0 and Path(f"{self._path}-wal").exists():
            raise StoreCorruptError(f"{self._path} is gone, but its write-ahead log is not")
        if 0 < size < PAGE_MIN:
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
        schema = self._schema
        version = int(self.execute("PRAGMA user_version").scalar_one())
        if version > VERSION_SANE_MAX:
            raise StoreCorruptError(f"{self._name} has an impossible schema version, {version}")
        if version > schema.version:
            raise StoreVersionError(
                f"{self._name} has schema {version}; this program knows up to {schema.version}",
                hint=schema.newer_hint,
            )
        if version == 0:
            found = {row[0] for row in self.execute("SELECT name FROM sqlite_schema")}
            if schema.mark in found:
                raise StoreCorruptError(f"{self._name} has lost its schema version")
            if found:
                raise StoreError(
                    f"{self._name} is another program's database", hint=f"set {schema.setting}"
                )
        return version

    def _prepare(self) -> None:
        for setting in (
            f"cache_size = -{self._cache_mib * 1024}",
            "cell_size_check = ON",
            "journal_mode = WAL",
            f"synchronous = {self._synchronous}",
            f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
            f"journal_size_limit = {CHECKPOINT_PAGES * 4096}",
        ):
            self.execute(f"PRAGMA {setting}")
        self.execute("BEGIN IMMEDIATE")  # takes the lock, which stays
        self.execute("COMMIT")

    def _create(self) -> None:
        with self.transaction():
            for statement in self._schema.create:
                self.execute(statement)
            self.execute(f"PRAGMA user_version = {self._schema.version}")
        self.checkpoint()  # now the header says what it is
        if self._path is not None:
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _bring_up(self, version: int) -> None:
        """Bring a file of an older version up to date, step by step."""
        while version < self._schema.version:
            with self.transaction():
                for statement in self._schema.migrations[version]:
                    self.execute(statement)
                version += 1
                self.execute(f"PRAGMA user_version = {version}")
            log.info("the %s's file was brought up to date schema=%d", self._schema.what, version)

    def _check(self) -> None:
        """Read every page, if that is not too much; without it damage shows when it is met."""
        pages = int(self.execute("PRAGMA page_count").scalar_one())
        size = pages * int(self.execute("PRAGMA page_size").scalar_one())
        if self._check_max is None or size <= self._check_max:
            verdict = self.execute("PRAGMA quick_check(1)").scalar_one()
            if verdict != "ok":
                raise StoreCorruptError(f"{self._name} is damaged: {verdict}")

    def checkpoint(self) -> None:
        """Bring everything to the disk, and wait for it."""
        with self._turn, self._named_errors():
            self.execute("PRAGMA synchronous = FULL")
            self.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self.execute(f"PRAGMA synchronous = {self._synchronous}")

    def _set_aside(self) -> str:
        """Rename the file and what belongs to it; return the new name. The tenth replaces one."""
        if self._path is None:
            return "nothing"
        names = [f"{self._path}.damaged-{n}" for n in range(1, ASIDE_MAX + 1)]
        name = next((n for n in names if not Path(n).exists()), names[-1])
        try:
            for suffix in SUFFIXES:
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
        """Return all rows at once: for what is small."""
        return self.execute(statement, parameters).all()

    def stream(self, statement: str, parameters: tuple[Any, ...]) -> Iterator[Any]:
        """Yield rows (tuples), some read ahead: whoever stops early has not read the rest."""
        found = self.execute(statement, parameters)
        try:
            for rows in found.partitions(READ_AHEAD):
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
                return StoreReadOnlyError(text, hint=HINT_RIGHTS)
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return StoreCorruptError(text)
            case sqlite3.SQLITE_IOERR:
                self._stopped = name
                log.error("writing to the %s stopped error=%s", self._schema.what, name)
                return StoreError(text, hint="check the disk, then restart")
            case _:
                return StoreError(text)


def marks(count: int) -> str:
    """Return `?,?,…` for a list of parameters."""
    return ",".join("?" * count)

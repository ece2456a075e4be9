"""A Registry over one SQLite file: calls that wait go to the worker together, in one transaction.

Why together: a turn costs a thread hop and a commit whatever is in it. Nobody waits on purpose;
what has come while a turn runs is the next one.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio

from registry_sqlite.tables import Tables
from skycore.contracts.registry import (
    Beats,
    RegistryCapacity,
    RegistryPage,
    RegistryWrite,
    RegistryWritten,
)
from skycore.contracts.runtime import Clock, Entropy, Workers
from skycore.discovery.registries import RegistryBounds, check_day, check_writes
from skycore.errors import CursorInvalidError, SkycoreError, StoreCorruptError, StoreFullError
from skycore.sqlite import SqliteFile

__all__ = ["SqliteRegistry"]

log = logging.getLogger(__name__)
CALLS_MAX = 256
"""Calls of one turn."""


class _Call:
    """What one caller asks for, until it is done."""

    def __init__(
        self, work: Callable[[], Any], table: str, writes: Sequence[RegistryWrite] = ()
    ) -> None:
        self.work = work
        self.table = table
        self.writes = writes
        self.is_done = False
        self.result: Any = None
        self.error: SkycoreError | None = None

    def end(self, result: Any, error: SkycoreError | None = None) -> None:
        self.result, self.error, self.is_done = result, error, True


class _Bell:
    """Rings once for all that came since the last time."""

    def __init__(self) -> None:
        self.event = anyio.Event()

    async def rings(self) -> AsyncIterator[None]:
        while True:
            await self.event.wait()
            self.event = anyio.Event()
            yield


class SqliteRegistry:
    """Listings in a file. Nobody else writes there: the file is locked."""

    def __init__(
        self, database: SqliteFile, bounds: RegistryBounds, clock: Clock, entropy: Entropy,
        workers: Workers,
    ) -> None:  # fmt: skip
        self._db = database
        self._bounds = bounds
        self._clock = clock
        self._entropy = entropy
        self._workers = workers
        self._tables = Tables(database, bounds)
        self._turn = anyio.Lock()
        self._waiting: list[_Call] = []
        self._bells: dict[str, list[_Bell]] = {}
        self._is_another = False
        self._round_trips = 0

    @property
    def capacity(self) -> RegistryCapacity:
        """How much a table may hold."""
        return self._bounds.capacity

    @property
    def round_trips(self) -> int:
        """How often the worker was asked."""
        return self._round_trips

    # --- opening and closing --------------------------------------------------------------------

    async def start(self) -> None:
        """Open the file. Raises a named `StoreError`."""
        await self._workers.run(self._start)

    def _start(self) -> None:
        self._db.open()
        try:
            try:
                self._load()
            except StoreCorruptError as damage:
                self._db.replace(str(damage))
                self._load()
        except BaseException:
            self._db.close()  # or the file would stay locked
            raise

    def _load(self) -> None:
        with self._db.transaction():
            self._tables.load(self._entropy.bytes(16), self._clock.wall_ns())
        self._db.checkpoint()  # that it is in use must survive a power failure

    async def stop(self) -> None:
        """Close the file."""
        with anyio.CancelScope(shield=True):
            async with self._turn:
                await self._workers.run(self._stop)

    def _stop(self) -> None:
        try:
            with self._db.transaction():
                self._tables.mark_clean()
            self._db.checkpoint()
        except SkycoreError as trouble:
            log.warning("the registry was not closed properly error=%r", str(trouble))
        self._db.close()

    # --- turns ----------------------------------------------------------------------------------

    async def _ask(self, call: _Call) -> Any:
        self._waiting.append(call)
        try:
            async with self._turn:
                if not call.is_done:
                    calls = self._waiting[:CALLS_MAX]
                    del self._waiting[:CALLS_MAX]
                    self._round_trips += 1
                    try:
                        await self._workers.run(lambda: self._run(calls))
                    finally:  # cancelled before a worker was free: the others' next turn
                        self._waiting[:0] = [each for each in calls if not each.is_done]
                    if self._is_another:
                        self._is_another = False
                        for table in self._bells:
                            self._ring(table)
        finally:
            if call in self._waiting:  # cancelled before its turn came
                self._waiting.remove(call)
        if call.error is not None:
            raise call.error
        return call.result

    def _run(self, calls: Sequence[_Call]) -> None:
        """Do calls in one transaction, in a worker."""
        try:
            with self._db.transaction():
                writes: dict[str, list[RegistryWrite]] = {}
                for call in calls:
                    writes.setdefault(call.table, []).extend(call.writes)
                self._tables.begin(writes)
                for call in calls:
                    self._do(call)
                self._tables.flush()
        except SkycoreError as trouble:
            self._tables.forget()
            for call in calls:
                call.end(None, self._begin_anew(trouble))

    def _do(self, call: _Call) -> None:
        if not call.writes:
            self._tables.flush()  # what was written before is seen
            try:
                call.end(call.work())
            except CursorInvalidError as bad:
                call.end(None, bad)
            return
        before = self._tables.draft()
        try:
            call.end(call.work())
        except StoreFullError as full:
            self._tables.undo(before)
            call.end(None, full)

    def _begin_anew(self, trouble: SkycoreError) -> SkycoreError:
        """Where the file is damaged, put it aside and go on, empty, under a new id."""
        if not isinstance(trouble, StoreCorruptError) or trouble.hint:
            return trouble
        try:
            self._db.replace(str(trouble))
            self._load()
        except SkycoreError as worse:
            return worse
        trouble.hint = "the file is kept aside; what is listed is repeated by those who list it"
        self._is_another = True
        return trouble

    # --- the contract ---------------------------------------------------------------------------

    async def write(self, table: str, writes: Sequence[RegistryWrite]) -> Sequence[RegistryWritten]:
        """Do writes, each as a whole, in order."""
        check_writes(table, writes, self._bounds)
        if not writes:
            return []
        results: list[RegistryWritten] = await self._ask(
            _Call(lambda: self._tables.write(table, writes, self._clock.wall_ns()), table, writes)
        )
        if any(result.changed for result in results):
            self._ring(table)
        return results

    async def next_nonce(self, table: str, subject: bytes) -> int:
        """Return the nonce that the subject's next write must have."""
        nonce: int = await self._ask(_Call(lambda: self._tables.next_nonce(table, subject), table))
        return nonce

    async def changes(self, table: str, after: bytes | None, limit: int) -> RegistryPage:
        """Return a stretch of the change log."""
        page: RegistryPage = await self._ask(
            _Call(lambda: self._tables.changes(table, after, limit, self._clock.wall_ns()), table)
        )
        return page

    async def sweep(self, table: str, limit: int) -> int:
        """End entries whose life is over."""
        count: int = await self._ask(
            _Call(lambda: self._tables.sweep(table, limit, self._clock.wall_ns()), table)
        )
        if count:
            self._ring(table)
        return count

    async def beats(self, table: str, day: str) -> Mapping[bytes, Beats]:
        """Return who was seen on a day."""
        known = check_day(day)
        found: Mapping[bytes, Beats] = await self._ask(
            _Call(lambda: self._tables.beats(table, known, self._clock.wall_s()), table)
        )
        return found

    # --- news -----------------------------------------------------------------------------------

    def _ring(self, table: str) -> None:
        for bell in self._bells.get(table, ()):
            bell.event.set()

    @asynccontextmanager
    async def watch(self, table: str) -> AsyncIterator[AsyncIterator[None]]:
        """Learn of changes, whoever made them."""
        bells = self._bells.setdefault(table, [])
        bell = _Bell()
        bells.append(bell)
        try:
            yield bell.rings()
        finally:
            bells.remove(bell)

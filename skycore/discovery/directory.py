"""Directory: a whole table of a registry in memory, in step with it.

Why in memory: GET routes are most of a discovery server's work, and none may cost a round trip or
a scan (L10, L11). Why one task that both writes and reads the change log: answers then arrive in
the order in which the registry did the work, so what is applied last is what holds; and all writes
that wait go in one batch, so a round trip carries as many as there are (L7).
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager

import anyio

from skycore.contracts.registry import (
    Beats,
    Listing,
    Registry,
    RegistryCapacity,
    RegistryWrite,
    RegistryWritten,
)
from skycore.contracts.runtime import Clock
from skycore.discovery.changes import DirectoryChanges
from skycore.discovery.jobs import Job, Jobs
from skycore.discovery.steps import ClockSteps
from skycore.errors import (
    CursorInvalidError,
    LocalProtocolError,
    StoreError,
    StoreFullError,
)
from skycore.tasks import every

__all__ = ["Directory", "DirectoryChanges", "open_directory"]

log = logging.getLogger(__name__)

PAGE_LISTINGS = 256
SWEEP_ENTRIES = 1_000
GATHER_S = 0.25
"""News is gathered for this long before the change log is read: own writes are known already."""
LISTEN_AGAIN_S = 1.0
BUSY_S = 0.02
"""A write that follows the one before within this waits for company: a round trip costs about as
much as a write, and 555 registrations in a second need not be as many round trips."""
COMPANY_S = 0.008
COMPANY = 16
"""Writes that go without more waiting."""


class Directory:
    """All live listings of a table. Reading never waits; writing is one round trip."""

    def __init__(self, registry: Registry, table: str, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._listings: dict[bytes, Listing] = {}
        self._having: dict[bytes, tuple[bytes, ...]] = {}
        self._sizes: dict[bytes, int] = {}
        self._subscribers: list[DirectoryChanges] = []
        self._changed = anyio.Event()
        self._jobs = Jobs()
        self._bell = anyio.Event()
        self._enough = anyio.Event()
        self._wrote_at = -math.inf
        self._is_behind = True
        self._is_closed = False
        self._cursor: bytes | None = None
        self._met: set[bytes] | None = set()
        """Subjects met since the table is read from its start; None: it was read to its end."""
        self._in_step_at = -math.inf
        self.table = table
        self.entry_count = 0
        self.losses = 0
        """How often another table was found in the place of this one: flushed, or an old copy."""
        self.steps = ClockSteps(clock, table)
        self.version = 0
        """Grows with each change of a listing."""
        self.trouble = ""
        """Why the registry cannot be used now; what is here is served all the same."""
        self.is_loaded = False
        """Whether the table was ever read to its end; before that, not here is not known."""

    # --- reading --------------------------------------------------------------------------------

    def of(self, subject: bytes) -> Listing:
        """Return what a subject lists; nothing for one that is not here."""
        return self._listings.get(subject) or Listing(subject, ())

    def having(self, key: bytes) -> tuple[bytes, ...]:
        """Return the subjects that list a key, ordered."""
        return self._having.get(key, ())

    def size_of(self, subject: bytes) -> int:
        """Return how many bytes of keys and bodies a subject lists."""
        return self._sizes.get(subject, 0)

    def __iter__(self) -> Iterator[Listing]:
        """Iterate over all listings as they are now."""
        return iter(tuple(self._listings.values()))

    def __len__(self) -> int:
        """Return how many subjects there are."""
        return len(self._listings)

    def __contains__(self, subject: bytes) -> bool:
        """Return whether a subject lists anything."""
        return subject in self._listings

    @property
    def capacity(self) -> RegistryCapacity:
        """How much the table may hold."""
        return self._registry.capacity

    @property
    def age_s(self) -> float:
        """Seconds since this was known to be in step with the registry; infinite: never yet."""
        return self._clock.now() - self._in_step_at

    def changed(self) -> anyio.Event:
        """Return an event that the next change sets."""
        return self._changed

    @contextmanager
    def subscribe(self) -> Iterator[DirectoryChanges]:
        """Learn which subjects change while the context lasts; first, of all there are."""
        changes = DirectoryChanges(set(self._listings))
        self._subscribers.append(changes)
        try:
            yield changes
        finally:
            self._subscribers.remove(changes)

    async def beats(self, day: str) -> Mapping[bytes, Beats]:
        """Return who was seen on a day ("2026-04-21", UTC). Raises `StoreError`."""
        return await self._registry.beats(self.table, day)

    async def next_nonce(self, subject: bytes) -> int:
        """Return the nonce of a subject's next write. Raises `StoreError`."""
        return await self._registry.next_nonce(self.table, subject)

    # --- writing --------------------------------------------------------------------------------

    async def write(self, writes: Sequence[RegistryWrite]) -> Sequence[RegistryWritten]:
        """Write, one result each; what changed is visible here before this returns.

        Raises `StoreError`; then it may be done or not, except for `StoreFullError`: not done.
        `LocalProtocolError`, too, for what no registry takes: nothing was done.
        """
        if not writes:
            return ()
        if self._is_closed:
            raise StoreError(f"the directory of {self.table} is closed")
        job = Job(writes)
        self._jobs.add(job)
        self._bell.set()
        if self._jobs.writes >= COMPANY:
            self._enough.set()
        try:
            await job.done.wait()
        finally:
            if not job.done.is_set():
                self._jobs.drop(job)
        if job.error is not None:
            raise job.error
        return job.results

    async def _gather(self) -> None:
        """Let others join, where writes come one upon the other."""
        if self._clock.now() - self._wrote_at < BUSY_S and self._jobs.writes < COMPANY:
            self._enough = anyio.Event()
            with anyio.move_on_after(COMPANY_S):
                await self._enough.wait()
        self._wrote_at = self._clock.now()

    async def _write_some(self) -> None:
        """Write what waits, in one batch, up to its bounds."""
        batch = self._jobs.take()
        if not batch:  # their callers went away meanwhile
            return
        try:
            await self._write_batch(batch)
        finally:
            for job in batch:
                if not job.done.is_set():
                    job.end(StoreError(f"the directory of {self.table} is closed"))

    async def _write_batch(self, batch: Sequence[Job]) -> None:
        try:
            results = await self._registry.write(
                self.table, [write for job in batch for write in job.writes]
            )
        except (StoreFullError, LocalProtocolError) as unfit:
            if len(batch) == 1:
                batch[0].end(unfit)
            else:
                for job in batch:  # nothing was done; one that does not fit is not the others'
                    await self._write_batch([job])
            return
        except StoreError as trouble:
            for job in batch:
                job.end(trouble)
            return
        at = 0
        for job in batch:
            job.results = results[at : at + len(job.writes)]
            at += len(job.writes)
        for result in results:
            if result.listing is not None:
                self._apply(result.listing)
        for job in batch:
            job.end()

    # --- being in step --------------------------------------------------------------------------

    def _apply(self, listing: Listing) -> None:
        subject = listing.subject
        if self._met is not None:
            self._met.add(subject)
        before = self._listings.get(subject)
        after = listing if listing.entries else None
        if before == after:
            return
        if after is None:
            del self._listings[subject], self._sizes[subject]
        else:
            self._listings[subject] = after
            self._sizes[subject] = sum(len(key) + len(body) for key, body in after.entries)
        old = {entry.key for entry in before.entries} if before else set()
        new = {entry.key for entry in listing.entries}
        for key in new - old:
            self._having[key] = tuple(sorted((*self._having.get(key, ()), subject)))
        for key in old - new:
            left = tuple(other for other in self._having[key] if other != subject)
            if left:
                self._having[key] = left
            else:
                del self._having[key]
        self.entry_count += len(new) - len(old)
        self.version += 1
        for changes in self._subscribers:
            changes.put(subject)
        self._changed.set()
        self._changed = anyio.Event()

    def _look_again(self) -> None:
        """Read the change log, soon."""
        self._is_behind = True
        self._bell.set()

    async def read_some(self) -> None:
        """Read a page of the change log; trouble is told, not raised."""
        try:
            page = await self._registry.changes(self.table, self._cursor, PAGE_LISTINGS)
        except CursorInvalidError as lost:
            log.warning("the registry's log is another one, reading it all table=%s error=%r",
                        self.table, str(lost))  # fmt: skip
            self._cursor, self._met = None, set()
            self.losses += 1
            return
        except StoreError as trouble:
            self._is_behind = False  # until the next look
            self._in_trouble(str(trouble))
            return
        self._in_trouble("")
        for listing in page.listings:
            self._apply(listing)
        self._cursor = page.cursor
        if not page.has_more:
            self._at_the_end()

    def _at_the_end(self) -> None:
        """All was read: what a reading from the start has not met is gone."""
        met, self._met = self._met, None
        if met is not None:
            for subject in [s for s in self._listings if s not in met]:
                self._apply(Listing(subject, ()))
            log.info("directory read table=%s subjects=%d entries=%d",
                     self.table, len(self), self.entry_count)  # fmt: skip
        self._is_behind = False
        self.is_loaded = True
        self._in_step_at = self._clock.now()

    def _in_trouble(self, trouble: str) -> None:
        if trouble and not self.trouble:
            log.warning("directory is out of step table=%s error=%r", self.table, trouble)
        elif self.trouble and not trouble:
            log.info("directory is in step again table=%s", self.table)
        self.trouble = trouble

    async def load(self) -> None:
        """Read until in step, or until the registry fails."""
        while self._is_behind:
            await self.read_some()

    async def work(self) -> None:
        """Write what is asked for and read what changed, in turns. Runs until cancelled."""
        try:
            while True:
                await self._bell.wait()
                self._bell = anyio.Event()
                while self._jobs or self._is_behind:
                    if self._jobs:
                        await self._gather()
                        await self._write_some()
                    if self._is_behind:
                        await self.read_some()
        finally:
            self._is_closed = True
            while batch := self._jobs.take():
                for job in batch:
                    job.end(StoreError(f"the directory of {self.table} is closed"))

    async def listen(self) -> None:
        """Look when the registry tells of changes; raises `StoreError`."""
        async with self._registry.watch(self.table) as news:
            async for _ in news:
                await anyio.sleep(GATHER_S)
                self._look_again()

    async def sweep(self) -> None:
        """End what is over, and look; both tell whether the registry can be used."""
        if self.steps.is_recent():
            self._look_again()
            return
        try:
            while await self._registry.sweep(self.table, SWEEP_ENTRIES) >= SWEEP_ENTRIES:
                pass
        except StoreError as trouble:
            self._in_trouble(str(trouble))
        self._look_again()


@asynccontextmanager
async def open_directory(
    registry: Registry, table: str, clock: Clock, *, sweep_s: float = 5.0
) -> AsyncIterator[Directory]:
    """Hold a table in memory, and in step with its registry.

    Where the registry cannot be read at first the directory is empty and not `is_loaded`; it goes
    on trying every `sweep_s`.
    """
    directory = Directory(registry, table, clock)
    await directory.load()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(directory.work)
        name = f"directory of {table}"
        tasks.start_soon(lambda: every(sweep_s, directory.sweep, name=name, at_once=False))
        tasks.start_soon(lambda: every(LISTEN_AGAIN_S, directory.listen, name=f"news of {table}"))
        yield directory
        tasks.cancel_scope.cancel()

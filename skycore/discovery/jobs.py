"""Writes that wait for a registry, in order, and in batches that a round trip can carry.

Why one whose caller is gone is dropped: while a registry does not answer, callers give up and ask
again. What nobody waits for would be done minutes late, use nonces up, and pile up meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import anyio

from skycore.contracts.registry import RegistryWrite, RegistryWritten
from skycore.errors import LocalProtocolError, StoreBusyError, StoreError

__all__ = ["Job", "Jobs"]

BATCH_WRITES_MAX = 256
BATCH_ENTRIES_MAX = 2_048
"""Of one round trip: a registry does nothing else meanwhile (a few ms)."""
WAITING_BYTES_MAX = 64 * 1024 * 1024
"""Of keys and bodies that wait. More would only grow old."""


class Job:
    """Writes of one caller, until they are done: `results` or `error`."""

    def __init__(self, writes: Sequence[RegistryWrite]) -> None:
        self.writes = tuple(writes)
        self.size = sum(1 + len(write.put) + len(write.remove) for write in self.writes)
        self.bytes = sum(len(e.key) + len(e.body) for write in self.writes for e in write.put)
        self.done = anyio.Event()
        self.results: Sequence[RegistryWritten] = ()
        self.error: StoreError | LocalProtocolError | None = None

    def end(self, error: StoreError | LocalProtocolError | None = None) -> None:
        """Let the caller go on."""
        self.error = error
        self.done.set()


class Jobs:
    """What waits: bounded in bytes, though one job finds room whatever its size."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self._bytes = 0
        self.writes = 0
        """How many writes wait."""

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job) -> None:
        """Put a job at the end. Raises `StoreBusyError` where too much waits."""
        if self._jobs and self._bytes + job.bytes > WAITING_BYTES_MAX:
            raise StoreBusyError("too much waits to be written", hint="try again later")
        self._jobs.append(job)
        self._bytes += job.bytes
        self.writes += len(job.writes)

    def drop(self, job: Job) -> None:
        """Forget a job, unless it has begun."""
        if job in self._jobs:
            self._jobs.remove(job)
            self._went(job)

    def take(self) -> list[Job]:
        """Return the jobs of the next batch; none where none wait."""
        batch: list[Job] = []
        writes = size = 0
        while self._jobs:
            job = self._jobs[0]
            writes, size = writes + len(job.writes), size + job.size
            if batch and (writes > BATCH_WRITES_MAX or size > BATCH_ENTRIES_MAX):
                break
            batch.append(self._jobs.popleft())
            self._went(job)
        return batch

    def _went(self, job: Job) -> None:
        self._bytes -= job.bytes
        self.writes -= len(job.writes)

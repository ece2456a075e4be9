"""Real threads, a few."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio import to_thread

__all__ = ["ThreadWorkers"]

T = TypeVar("T")
THREADS_MAX = 8


class ThreadWorkers:
    """Run what would block the loop in threads. `contracts.runtime.Workers`.

    Why a limiter of its own: anyio's default one is shared with name resolution and whatever a
    library does, and a store must not wait for a slow DNS server.
    """

    def __init__(self, threads: int | None = None) -> None:
        wanted = threads if threads is not None else min(THREADS_MAX, (os.cpu_count() or 1) + 2)
        self._limiter = anyio.CapacityLimiter(wanted)

    async def run(self, function: Callable[[], T]) -> T:
        """Call in a thread and return its result; a cancelled caller still waits for its end.

        Why it waits: a transaction that goes on after its owner has given up would be reported as
        lost and then happen.
        """
        return await to_thread.run_sync(function, limiter=self._limiter)

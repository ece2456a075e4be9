"""Two streams made one: what comes in at one goes out at the other, both ways, until both ended.

Why nothing is buffered here: a chunk is read once there is room to send it on, so the back-pressure
of the slower stream's window reaches the sender at the far end, and a splice holds at most one
chunk for each direction. Upstream's relays kept 20,000 stuck copy workers: a splice on which
nothing moves is reaped (upstream #2294).
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from relay_dmsg.core.rates import Bucket
from skycore.contracts.runtime import Clock
from skycore.contracts.streams import Stream
from skycore.errors import StreamError

__all__ = ["CHUNK_MAX", "Splice"]

CHUNK_MAX = 65_536


class Splice:
    """One relayed stream. `run` is its life; both ends are closed when it returns."""

    __slots__ = ("_clock", "_count", "_ends", "_meters", "_scope", "moved", "moved_at", "reason")

    def __init__(
        self,
        near: Stream,
        far: Stream,
        clock: Clock,
        meters: tuple[Bucket, Bucket],
        count: Callable[[int], None],
    ) -> None:
        self._ends = near, far
        self._meters = meters
        self._clock = clock
        self._count = count
        self._scope = anyio.CancelScope()
        self.moved = 0
        """Bytes, both ways together."""
        self.moved_at = clock.now()
        self.reason = ""

    def end(self, reason: str) -> None:
        """End both streams soon."""
        self.reason = self.reason or reason
        self._scope.cancel()

    async def run(self) -> None:
        """Move bytes until both directions have ended, one failed, or `end` was called."""
        near, far = self._ends
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._move, near, far, self._meters[0])
                    tasks.start_soon(self._move, far, near, self._meters[1])
        finally:
            with anyio.CancelScope(shield=True):
                await near.aclose()
                await far.aclose()

    async def _move(self, source: Stream, target: Stream, meter: Bucket) -> None:
        try:
            while data := await source.receive(CHUNK_MAX):
                await target.send(data)
                now = self._clock.now()
                wait_s = meter.take(len(data), now)
                self.moved += len(data)
                self.moved_at = max(self.moved_at, now + wait_s)  # who is made to wait is not idle
                self._count(len(data))
                if wait_s:
                    await anyio.sleep(wait_s)
            await target.send_eof()
        except StreamError as lost:
            self.end(str(lost))

"""SimListener: where a simulated host takes connections."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

import anyio
from anyio.abc import ByteStream

from skycore.testing.pipes import SimStream, wake

__all__ = ["BACKLOG_MAX", "SimListener"]

BACKLOG_MAX: Final = 128


class SimListener:
    """A bound socket of a host."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.backlog: deque[SimStream] = deque()
        self.is_closed = False
        self._waiter: asyncio.Future[None] | None = None

    async def accept(self) -> ByteStream:
        """Return the next connection."""
        if self._waiter is not None:
            raise anyio.BusyResourceError("accepting from")
        while not self.backlog and not self.is_closed:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.is_closed:
            raise anyio.ClosedResourceError
        await anyio.lowlevel.cancel_shielded_checkpoint()
        return self.backlog.popleft()

    def offer(self, stream: SimStream) -> None:
        """Take a connection that somebody made, if there is somebody to take it."""
        if self.is_closed or len(self.backlog) >= BACKLOG_MAX:
            stream.kill()
            return
        self.backlog.append(stream)
        wake(self._waiter)

    def close(self) -> None:
        """Close; what nobody accepted is reset."""
        self.is_closed = True
        for stream in self.backlog:
            stream.kill()
        self.backlog.clear()
        wake(self._waiter)

"""What others wrote: told by Redis, and looked for every second where nobody told.

Why both: a notification comes at once but may be lost (a connection that broke, a fail-over), and a
look comes late but cannot be; together what another node or a mirror wrote is noticed in under 2 s
(O19, C35, L4). A mark counts changes inside Redis; marks that are not ours are others'.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from redis.exceptions import RedisError

from mirror_redis.dialing import Line
from mirror_redis.link import Link
from skycore.errors import StoreError

__all__ = ["News"]

SILENCE_MAX_S = 30.0
"""A subscription that hears nothing for so long is made anew: it may be dead without saying so."""
OURS_MAX = 100_000


class News:
    """Rings when others changed something."""

    def __init__(
        self,
        link: Link,
        look: Callable[[], Awaitable[tuple[int, int]]],
        channel: bytes,
        writer: bytes,
        *,
        poll_s: float,
    ) -> None:
        self._link = link
        self._look = look
        self._channel = channel
        self._writer = writer
        self._poll_s = poll_s
        self._bell = anyio.Event()
        self._is_watched = False
        self._mark = -1
        self._ours: set[int] = set()

    def ring(self) -> None:
        """Something changed that this process did not do."""
        self._bell.set()

    def is_ours(self, mark: int) -> None:
        """Take note of the mark of a change of this process."""
        if mark and self._is_watched and len(self._ours) < OURS_MAX:
            self._ours.add(mark)

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[None]]:
        """Listen and look while the context lasts; yields once for all that came since."""
        self._is_watched = True
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listen)
                tasks.start_soon(self._poll)
                yield self._rings()
                tasks.cancel_scope.cancel()
        finally:
            self._is_watched = False

    async def _rings(self) -> AsyncIterator[None]:
        while True:
            await self._bell.wait()
            self._bell = anyio.Event()
            self._link.counters["news"] += 1
            yield

    async def _listen(self) -> None:
        while True:
            try:
                line = await self._link.listen(self._channel)
            except StoreError:
                await anyio.sleep(self._link.settings.retry_s)
                continue
            try:
                await self._hear(line)
            finally:
                await line.close()

    async def _hear(self, line: Line) -> None:
        """Ring for what others say, until the line breaks or is silent for too long."""
        self.ring()  # for what was said before we listened
        while True:
            with anyio.move_on_after(SILENCE_MAX_S) as silence:
                try:
                    message = await line.read()
                except (RedisError, OSError):
                    return
                _, _, words = message if isinstance(message, list) else (b"", b"", b"")
                if bytes(words).split(b" ")[-1] != self._writer:
                    self.ring()
            if silence.cancelled_caught:
                return

    async def _poll(self) -> None:
        while True:
            try:
                await self._find()
            except StoreError:
                self._mark = -1  # whatever happened meanwhile is news
            await anyio.sleep(self._poll_s)

    async def _find(self) -> None:
        _, mark = await self._look()
        ours = sum(1 for own in self._ours if self._mark < own <= mark)
        if self._mark < 0 or mark < self._mark or mark - self._mark > ours:
            self.ring()
        self._ours = {own for own in self._ours if own > mark}
        self._mark = mark

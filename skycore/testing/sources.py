"""A source of entries in a dict, for tests of those who ask: it can be slow, down, or lie."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel

from skycore.contracts.discovery import Record, Records
from skycore.errors import DiscoveryError

__all__ = ["DictSource"]


class DictSource:
    """`contracts.discovery.FollowedSource` over records that a test `tell`s."""

    def __init__(
        self, name: str = "dict", *, salts: frozenset[bytes] | None = None, is_local: bool = True
    ) -> None:
        self.name = name
        self.salts = salts
        self.is_local = is_local
        self.down = ""
        """Why it cannot be asked; empty: it can."""
        self.delay_s = 0.0
        self.asked = 0
        self._records: dict[tuple[bytes, bytes], Record] = {}
        self._log: list[Record] = []
        self._news = anyio.Event()

    def tell(self, *records: Record) -> None:
        """Hold records, and tell who follows."""
        for record in records:
            self._records[record.salt, record.subject] = record
            self._log.append(record)
        self._ring()

    def fail(self, why: str = "it is down") -> None:
        """Break: whoever asks or follows is told so."""
        self.down = why
        self._ring()

    def mend(self) -> None:
        """Work again."""
        self.down = ""
        self._ring()

    def _ring(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    async def _ask(self) -> None:
        self.asked += 1
        await anyio.sleep(self.delay_s)
        if self.down:
            raise DiscoveryError(self.down)

    async def find(self, salt: bytes, subject: bytes) -> Record | None:
        """Return what is known of a subject."""
        await self._ask()
        return self._records.get((salt, subject))

    async def records(self, salt: bytes) -> Records:
        """Return all records of a salt."""
        await self._ask()
        held = tuple(r for (s, _), r in self._records.items() if s == salt and r.body is not None)
        newest = max((r.as_of_ns for r in held), default=0)
        return Records(held, self.name, newest, complete=True)

    @asynccontextmanager
    async def follow(self, salt: bytes) -> AsyncIterator[AsyncIterator[Sequence[Record]]]:
        """Yield all records, then each as it changes."""

        async def batches() -> AsyncIterator[Sequence[Record]]:
            seen = len(self._log)
            yield [r for (s, _), r in self._records.items() if s == salt]
            while True:
                news = self._news
                if self.down:
                    raise DiscoveryError(self.down)
                fresh, seen = [r for r in self._log[seen:] if r.salt == salt], len(self._log)
                if fresh:
                    yield fresh
                else:
                    await news.wait()

        await self._ask()
        yield batches()

"""Which subjects of a table changed, for one who follows it: each once, however often it did."""

from __future__ import annotations

import anyio

__all__ = ["DirectoryChanges"]


class DirectoryChanges:
    """Which subjects changed since the last `take`. Bounded: subjects, each once."""

    def __init__(self, subjects: set[bytes]) -> None:
        self._subjects = subjects
        self._some = anyio.Event()
        self._some.set()  # the first answer is what there is, were it nothing

    def put(self, subject: bytes) -> None:
        """Take note of a change."""
        self._subjects.add(subject)
        self._some.set()

    async def take(self) -> set[bytes]:
        """Wait for changes; return the subjects. The first time: all there are, at once.

        A set of bytes has another order in every process: sort it where order shows.
        """
        await self._some.wait()
        return self.take_now()

    def take_now(self) -> set[bytes]:
        """Return the subjects without waiting; none where nothing changed."""
        self._some = anyio.Event()
        taken, self._subjects = self._subjects, set()
        return taken

"""Taking turns, cheaply: anyio's Lock and Semaphore cost 4 µs even when nobody else is there.

That is a fifth of a small call. These two do nothing but count until somebody has to wait.
"""

from __future__ import annotations

from collections import deque

import anyio

from skycore.errors import StreamError
from skycore.jsonrpc.messages import RpcStream

__all__ = ["Sender", "Turns"]


class Sender:
    """Send whole frames on a stream that takes one sender at a time."""

    __slots__ = ("_busy", "_cut", "_freed", "_stream")

    def __init__(self, stream: RpcStream) -> None:
        self._stream = stream
        self._busy = False
        self._cut = False
        self._freed: anyio.Event | None = None

    async def send(self, frame: bytes) -> None:
        """Send, after whoever is sending. Raises `StreamError`.

        Cancelled in mid-frame, it lets nothing follow: the reader would take it for the rest.
        """
        while self._busy:
            if self._freed is None:
                self._freed = anyio.Event()
            await self._freed.wait()
        if self._cut:
            raise StreamError("an earlier message was sent in part only")
        self._busy = self._cut = True
        try:
            await self._stream.send(frame)
            self._cut = False
        finally:
            self._busy = False
            if self._freed is not None:
                self._freed.set()
                self._freed = None


class Turns:
    """Let `running_max` at a time go on; the others wait in order of arrival."""

    __slots__ = ("_free", "_line")

    def __init__(self, running_max: int) -> None:
        self._free = running_max
        self._line: deque[anyio.Event] = deque()

    async def take(self) -> None:
        """Return when it is our turn."""
        if self._free:
            self._free -= 1
            return
        turn = anyio.Event()
        self._line.append(turn)
        try:
            await turn.wait()
        except anyio.get_cancelled_exc_class():
            if turn.is_set():
                self.give_back()
            else:
                self._line.remove(turn)
            raise

    def give_back(self) -> None:
        """End our turn: the first in line has it now."""
        if self._line:
            self._line.popleft().set()
        else:
            self._free += 1

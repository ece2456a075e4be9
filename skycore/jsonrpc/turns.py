"""Taking turns and starting tasks, cheaply.

anyio's Lock and Semaphore cost 4 µs even when nobody else is there, and a new task 12 µs: together
a third of a small call. These do nothing but count until somebody has to wait, and use tasks again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from anyio.abc import TaskGroup

from skycore.errors import StreamError
from skycore.jsonrpc.messages import RpcStream

__all__ = ["Room", "Sender", "TaskPool", "Turns"]

IDLE_TASKS_MAX = 64


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


class Room:
    """Bytes of answers that wait for their reader: who would add to too many waits."""

    __slots__ = ("_bytes_max", "_held", "_some")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._held = 0
        self._some: anyio.Event | None = None

    @property
    def full(self) -> bool:
        """Whether nothing may be added now."""
        return self._held >= self._bytes_max

    async def wait(self) -> None:
        """Return once there is room."""
        while self.full:
            if self._some is None:
                self._some = anyio.Event()
            await self._some.wait()

    def add(self, size: int) -> None:
        """Hold an answer; a negative size lets it go."""
        self._held += size
        if self._some is not None and not self.full:
            self._some.set()
            self._some = None


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


class _Idle:
    """A task without work."""

    __slots__ = ("args", "wanted", "work")

    def __init__(self) -> None:
        self.wanted = anyio.Event()
        self.work: Callable[..., Awaitable[object]]
        self.args: tuple[Any, ...]


class TaskPool:
    """Run work in tasks of a group, each used again and again. An error ends the group, as ever."""

    __slots__ = ("_idle", "_tasks")

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._idle: list[_Idle] = []

    def start(self, work: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Let a task do `work(*args)`, soon."""
        if self._idle:
            idle = self._idle.pop()
            idle.work, idle.args = work, args
            idle.wanted.set()
        else:
            self._tasks.start_soon(self._run, work, args)

    async def _run(self, work: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        while True:
            await work(*args)
            if len(self._idle) >= IDLE_TASKS_MAX:
                return
            idle = _Idle()
            self._idle.append(idle)
            await idle.wanted.wait()
            work, args = idle.work, idle.args

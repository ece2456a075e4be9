"""SimLoop: an event loop on which a day takes a second, and every run of a seed is the same run.

Why a loop and not a mocked clock: anyio.sleep, time limits and every library above ask the loop
what time it is and when to wake. A loop that never blocks and moves its own clock to the next
timer makes all of them virtual without touching a line of the code under test.

Why tasks and cancel scopes are numbered: anyio keeps them in sets, and sets of objects iterate by
memory address. A number in place of the address makes the order of a cancellation, and so
everything after it, a function of the seed.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import heapq
import itertools
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import anyio
from anyio._backends import _asyncio as anyio_backend

__all__ = [
    "SimLoop",
    "SimulationDeadlockError",
    "SimulationLivelockError",
    "SimulationTimeoutError",
    "sim_backend",
    "simulate",
]

T = TypeVar("T")
LIMIT_S = 30 * 86_400.0
"""Virtual time after which a simulation that nobody bounded is taken for a hang."""
TURNS_AT_ONE_TIME_MAX = 1_000_000
"""Loop turns without the clock moving, after which a simulation is taken for a busy loop."""
_TURNS_A_COLLECTION = 200_000


class SimulationDeadlockError(RuntimeError):
    """Nothing is ready and no timer is set: every task waits for another one, or for a thread."""


class SimulationLivelockError(RuntimeError):
    """The loop turns and the virtual clock does not move: somebody polls without sleeping."""


class SimulationTimeoutError(RuntimeError):
    """The virtual time limit of the simulation has passed."""


class _SimTask(asyncio.Task[T]):
    """A task with a number for a hash."""

    __slots__ = ("_number",)

    def __init__(self, coro: Any, *, loop: SimLoop, **more: Any) -> None:
        self._number = next(loop.numbers)
        super().__init__(coro, loop=loop, **more)

    def __hash__(self) -> int:
        return self._number


class _SimCancelScope(anyio_backend.CancelScope):
    """A cancel scope with a number for a hash."""

    __slots__ = ("_number",)

    def __init__(self, deadline: float = float("inf"), shield: bool = False) -> None:
        loop = asyncio._get_running_loop()
        self._number = next(loop.numbers) if isinstance(loop, SimLoop) else id(self) >> 4
        super().__init__(deadline, shield)

    def __hash__(self) -> int:
        return self._number


def _new_task(loop: Any, coro: Any, **more: Any) -> asyncio.Task[Any]:
    return _SimTask(coro, loop=loop, **more)


class SimLoop(asyncio.SelectorEventLoop):
    """An asyncio loop on virtual time, which starts at 0 and costs nothing while all sleep.

    Give it to anyio as `loop_factory`, or use `simulate`. A worker thread or a real socket has
    no virtual time: waiting for one is a `SimulationDeadlockError`, at once. While it runs, the
    garbage collector follows the loop's turns instead of allocations: cheaper, and repeatable.
    """

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        super().__init__()
        self.virtual_now = 0.0
        self.limit_s = limit_s
        self.numbers = itertools.count(1)
        self.turns = 0
        self._turns_here = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_cancelled = 0
        self.set_task_factory(_new_task)

    def time(self) -> float:
        """Return the virtual time, seconds."""
        return self.virtual_now

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Call back at a virtual time; timers of one time run in the order they were set."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self.numbers), timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Count what asyncio tells of every cancelled timer; drop them when they are the most."""
        self._timers_cancelled += 1
        if self._timers_cancelled > 1_000 and self._timers_cancelled * 2 > len(self._timers):
            self._timers = [entry for entry in self._timers if not entry[2].cancelled()]
            heapq.heapify(self._timers)
            self._timers_cancelled = 0

    def run_forever(self) -> None:
        """Run until stopped, with numbered cancel scopes and the collector under control."""
        collected, scope = gc.isenabled(), anyio_backend.CancelScope
        gc.disable()
        anyio_backend.CancelScope = _SimCancelScope  # type: ignore[misc]
        try:
            super().run_forever()
        finally:
            anyio_backend.CancelScope = scope  # type: ignore[misc]
            if collected:
                gc.enable()

    def _run_once(self) -> None:
        """Make one turn: asyncio's own, with a jump of the clock in place of waiting for I/O."""
        ready: deque[asyncio.Handle] = self._ready  # type: ignore[attr-defined]
        if not (ready or self._stopping):  # type: ignore[attr-defined]
            self._jump()
        self._turns_here += 1
        if self._turns_here > TURNS_AT_ONE_TIME_MAX:
            turns = f"{TURNS_AT_ONE_TIME_MAX} turns without the clock moving"
            self._hang(SimulationLivelockError, f"livelock, {turns}")
        timers, now = self._timers, self.virtual_now
        while timers and timers[0][0] <= now:
            timer = heapq.heappop(timers)[2]
            if not timer.cancelled():
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()
        self.turns += 1
        if self.turns % _TURNS_A_COLLECTION == 0:
            number = self.turns // _TURNS_A_COLLECTION
            gc.collect(0 if number % 8 else 1 if number % 64 else 2)

    def _jump(self) -> None:
        """Move the clock to the next timer."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        if not self._timers:
            self._hang(SimulationDeadlockError, "deadlock, nothing is ready and no timer is set")
        when = self._timers[0][0]
        if when > self.limit_s:
            limit, self.limit_s = self.limit_s, float("inf")  # let the tasks clean up
            self._hang(SimulationTimeoutError, f"{limit:g} s of virtual time have passed")
        if when > self.virtual_now:
            self.virtual_now = when
            self._turns_here = 0

    def _hang(self, kind: type[RuntimeError], what: str) -> NoReturn:
        self._turns_here = 0
        raise kind(f"simulation at {self.virtual_now:.6f} s: {what}{self._waiting()}")

    def _waiting(self) -> str:
        """Name the first tasks and where they wait, in the order in which they were made."""
        tasks = sorted(asyncio.all_tasks(self), key=hash)
        lines = [f"\n  {task.get_name()} waits at {_place(task)}" for task in tasks[:20]]
        more = f"\n  and {len(tasks) - 20} more tasks" if len(tasks) > 20 else ""
        return "".join(lines) + more


def _place(task: asyncio.Task[Any]) -> str:
    """Return the innermost line of a waiting task that is not anyio's or asyncio's own."""
    place = "?"
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "ag_frame", None)
        if frame is not None:
            code = frame.f_code
            if "/asyncio/" not in code.co_filename and "/anyio/" not in code.co_filename:
                place = f"{code.co_filename}:{frame.f_lineno} ({code.co_name})"
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "ag_await", None)
    return place


def sim_backend(limit_s: float = LIMIT_S) -> tuple[str, dict[str, Any]]:
    """Return what pytest's `anyio_backend` fixture may return to run async tests on a SimLoop."""
    return "asyncio", {"loop_factory": lambda: SimLoop(limit_s)}


def simulate(
    function: Callable[..., Awaitable[T]], *args: Any, seed: int = 0, limit_s: float = LIMIT_S
) -> T:
    """Run an async function on a new virtual clock and return its result.

    The module-level `random` is seeded and put back, for libraries that use it. An error carries
    the seed as a note. Raises `SimulationDeadlockError`, `SimulationLivelockError`, and
    `SimulationTimeoutError` after `limit_s` of virtual time.
    """
    dice = random.getstate()
    random.seed(seed)
    gc.collect()
    # What was there before is not looked at again: half the cost of a big world. A process that
    # froze what it began with, as a test suite does, has that already, and keeps it.
    freezes = not gc.get_freeze_count()
    if freezes:
        gc.freeze()
    try:
        return contextvars.copy_context().run(
            anyio.run, function, *args, backend_options={"loop_factory": lambda: SimLoop(limit_s)}
        )
    except BaseException as error:
        error.add_note(f"simulation seed={seed}")
        raise
    finally:
        if freezes:
            gc.unfreeze()
        random.setstate(dice)

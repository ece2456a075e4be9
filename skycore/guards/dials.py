"""Dials: one at a time to a key, and patience that grows with failure and ends with good news.

Why not a fixed negative cache: one that lasted ten minutes turned a peer that started 0.3 s late
into ten minutes of silence for the whole network (C40, O05), and one that a caller's cancellation
could fill punished healthy peers (O06). Here the work runs in a task of its own, so no caller's
cancellation reaches it; the wait starts at half a second; any success, any contact from the peer
and any new address ends it.

Why two moments: who looks an address up may need links himself (the DHT). He waits only until all
known addresses have failed, never for a lookup, so no lookup waits for itself. For the same reason
who waits for a lookup has no turn meanwhile: a thousand unknown keys would take all turns, and the
dials by which lookups are answered would wait behind them.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from skycore.contracts.runtime import Clock
from skycore.errors import DialError, SkycoreError
from skycore.guards.links import Link
from skycore.model.addresses import Address
from skycore.model.keys import PubKey, short
from skycore.tasks import Ending, backoff_s

__all__ = ["Dial", "Dials"]

log = logging.getLogger(__name__)

REMEMBERED_MAX = 4_096
"""Keys whose failures are remembered; the one that failed longest ago makes room."""


class Dial:
    """One dial under way, and everybody who waits for it."""

    __slots__ = (
        "_has_turn", "_turns", "done", "error", "kind", "label", "link", "look_up", "so_far",
        "tried",
    )  # fmt: skip

    def __init__(
        self, label: str, look_up: bool, turns: anyio.CapacityLimiter, kind: str | None = None
    ) -> None:
        self._turns, self._has_turn = turns, False
        self.done = anyio.Event()
        self.tried = anyio.Event()
        """All that was known has failed; or done."""
        self.error: SkycoreError | None = None
        self.label = label
        self.kind = kind
        """The one type that will do; None: whichever leads there."""
        self.look_up = look_up
        """Whether somebody who waits wants addresses to be looked up."""
        self.link: Link | None = None
        self.so_far: Mapping[Address, str] = {}
        """What was tried, and what came of it: what is told where time runs out."""

    def known_failed(self, error: DialError) -> bool:
        """End the wait of those who want no lookup; return whether there is anybody else."""
        if self.look_up:
            self.error = error
            self.tried.set()
        return self.look_up

    async def take_turn(self) -> None:
        """Wait for a turn; the task that does so is the one to give it back."""
        await self._turns.acquire()
        self._has_turn = True

    def give_turn_back(self) -> None:
        """Let another dial go on."""
        if self._has_turn:
            self._has_turn = False
            self._turns.release()

    @asynccontextmanager
    async def without_turn(self) -> AsyncIterator[None]:
        """Wait for something else than a connection; what was found is tried in a new turn."""
        self.give_turn_back()
        yield
        await self.take_turn()

    def end(self) -> None:
        """Tell everybody who waits."""
        self.tried.set()
        self.done.set()


class _Failure:
    """What is remembered of a key that could not be reached."""

    __slots__ = ("attempts", "looked_up_until", "text", "until")

    def __init__(self) -> None:
        self.attempts = 0
        self.text = ""
        self.until = 0.0
        self.looked_up_until = 0.0
        """As `until`, of the last try that included a lookup."""


class Dials:
    """Share dials between callers. `work` makes the transport, or raises a SkycoreError."""

    def __init__(
        self,
        work: Callable[[PubKey, Dial], Awaitable[Link]],
        tasks: TaskGroup,
        clock: Clock,
        dice: random.Random,
        *,
        at_once_max: int,
        limit_s: float,
        first_s: float,
        longest_s: float,
    ) -> None:
        self._work = work
        self._tasks = tasks
        self._clock = clock
        self._dice = dice
        self._turns = anyio.CapacityLimiter(at_once_max)
        self._limit_s = limit_s
        self._first_s = first_s
        self._longest_s = longest_s
        self._flying: dict[tuple[bytes, str | None], Dial] = {}
        self._failures: dict[bytes, _Failure] = {}
        self.ending = Ending()
        """To be watched among the tasks: once they are cancelled, no dial is begun."""

    @property
    def in_flight(self) -> int:
        """How many keys are being dialled."""
        return len(self._flying)

    def clear(self, public: bytes) -> None:
        """Forget failures: there is good news of this key."""
        self._failures.pop(public, None)

    async def join(
        self,
        remote: PubKey,
        label: str,
        stronger: Callable[[str, str], str],
        *,
        look_up: bool = True,
        kind: str | None = None,
    ) -> Link:
        """Dial, or wait for the dial under way; return the link it made. Raises `DialError`.

        A person who asks ("user") is never told to wait for a back-off, nor is who asks for one
        type: it failing says nothing of others.
        """
        if self.ending.is_over:
            raise DialError("this node stops")
        dial = self._flying.get((remote, kind))
        if dial is None:
            if label != "user" and kind is None:
                self._check_patience(remote, look_up)
            dial = self._flying[remote, kind] = Dial(label, look_up, self._turns, kind)
            self._tasks.start_soon(self._run, remote, dial)
        else:
            dial.label = stronger(dial.label, label)
            dial.look_up |= look_up
        await (dial.done if look_up else dial.tried).wait()
        if dial.link is None:  # each caller raises an error of its own: tracebacks grow
            error = dial.error or DialError()
            raise DialError(str(error), hint=error.hint) from error
        return dial.link

    def _check_patience(self, remote: PubKey, look_up: bool) -> None:
        failure = self._failures.get(remote)
        if failure is None:
            return
        wait = (failure.looked_up_until if look_up else failure.until) - self._clock.now()
        if wait > 0:
            raise DialError(
                f"{failure.text} (tried {failure.attempts} times; again in {wait:.1f} s)",
                hint="it is tried at once when the peer contacts us or its address changes",
            )

    async def _run(self, remote: PubKey, dial: Dial) -> None:
        dial.error = DialError("this node stops")  # what waiters hear if we are cancelled
        try:
            await dial.take_turn()
            with anyio.move_on_after(self._limit_s) as limit:
                dial.link = await self._work(remote, dial)
                dial.error = None
            if limit.cancelled_caught:
                tried = [f"{a.kind} {a.endpoint}: {why}" for a, why in dial.so_far.items()]
                dial.error = DialError(
                    f"cannot reach {short(remote)}: no connection within {self._limit_s:g} s"
                    + (f" ({'; '.join(tried)})" if tried else "")
                )
        except SkycoreError as bad:
            dial.error = bad
        except Exception as bad:
            log.exception("dial failed pk=%s", short(remote))
            dial.error = DialError(f"cannot reach {short(remote)}: {type(bad).__name__}")
        finally:
            dial.give_turn_back()
            del self._flying[remote, dial.kind]
            dial.end()
        if dial.kind is None or dial.error is None:
            self._note(remote, dial.error, dial.look_up)

    def _note(self, remote: PubKey, error: SkycoreError | None, look_up: bool) -> None:
        if error is None:
            self.clear(remote)
            return
        failure = self._failures.pop(remote, None) or _Failure()
        failure.attempts += 1
        failure.text = str(error)
        wait = backoff_s(failure.attempts, self._first_s, self._longest_s, self._dice)
        failure.until = self._clock.now() + wait
        if look_up:
            failure.looked_up_until = failure.until
        self._failures[remote] = failure
        if len(self._failures) > REMEMBERED_MAX:
            del self._failures[next(iter(self._failures))]

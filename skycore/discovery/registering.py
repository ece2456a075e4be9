"""The loop by which a node keeps itself listed at a discovery server.

Why one loop for all services: to repeat before the server forgets, to say many changes in one
request, never to hammer a server in trouble, and to leave when the node stops, is the same
everywhere. Source of the times: Skywire's visors (docs/protocols/discovery.md); L25.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from skycore.errors import SkycoreError
from skycore.tasks import backoff_s

__all__ = ["Registration", "RegistrationState", "leave_all"]

log = logging.getLogger(__name__)
SPREAD = 0.95
"""A pause is a little shorter than said, by chance: nodes that started together drift apart."""
AWAY_MAX = 0.5
"""Longest wait in trouble, in intervals: who was away for long hears of everybody within 0.6 of one
after the return, spread over as long, and before what it listed ends."""
FIRST_S = 1.0
"""Shortest first wait in trouble, also where changes go out without one."""


@dataclass(frozen=True)
class RegistrationState:
    """How it stands."""

    is_current: bool
    """The last round succeeded."""
    trouble: str
    """Why not; empty also before the first round."""
    rounds: int
    failures: int


class Registration:
    """Repeats `register` every `interval_s`, sooner after a nudge, slower in trouble.

    Two rounds never overlap and begin at least `debounce_s` apart, whatever happens. `register`
    says all that is to be said at its time, or nothing; it raises a SkycoreError in trouble.

    A part that stops in good order calls `leave` after its `yield`, while all it needs still works;
    one that is cancelled does not, and what was said ends by itself.
    """

    def __init__(
        self,
        register: Callable[[], Awaitable[None]],
        deregister: Callable[[], Awaitable[None]] | None = None,
        *,
        dice: random.Random,
        name: str,
        interval_s: float = 90.0,
        debounce_s: float = 5.0,
        stop_s: float = 2.0,
    ) -> None:
        self._register, self._deregister = register, deregister
        self._dice, self._name = dice, name
        self._interval_s, self._debounce_s, self._stop_s = interval_s, debounce_s, stop_s
        self._nudged = anyio.Event()
        self._over = False
        self._scope: anyio.CancelScope | None = None
        self._trouble, self._is_current = "", False
        self._rounds = self._failures = self._failed_in_a_row = 0

    @property
    def state(self) -> RegistrationState:
        """Return how it stands."""
        return RegistrationState(self._is_current, self._trouble, self._rounds, self._failures)

    def nudge(self) -> None:
        """Something changed: say it soon. Never waits; any number of nudges make one round."""
        self._nudged.set()

    async def run(self) -> None:
        """Go on until cancelled, or until `leave`."""
        with anyio.CancelScope() as self._scope:
            while not self._over:
                self._nudged = anyio.Event()  # before: what changes meanwhile nudges again
                await self._round()
                await self._pause()

    async def leave(self) -> None:
        """End the loop, and take back what was said, in `stop_s` at most. Raises nothing."""
        self._over = True
        if self._scope is not None:
            self._scope.cancel()
        if not self._rounds or self._deregister is None:
            return
        with anyio.move_on_after(self._stop_s) as limit:
            try:
                await self._deregister()
            except SkycoreError as bad:
                log.info("%s: it could not be taken back error=%r", self._name, str(bad))
        if limit.cancelled_caught:
            log.info("%s: taking it back took too long", self._name)

    async def _round(self) -> None:
        self._rounds += 1
        try:
            await self._register()
        except SkycoreError as bad:
            if str(bad) != self._trouble:  # a dead server is news once, not at every retry
                log.warning("%s failed error=%r", self._name, str(bad))
            self._trouble, self._is_current = str(bad), False
            self._failures += 1
            self._failed_in_a_row += 1
        else:
            if self._failed_in_a_row:
                log.info("%s works again failures=%d", self._name, self._failed_in_a_row)
            self._trouble, self._is_current, self._failed_in_a_row = "", True, 0

    async def _pause(self) -> None:
        """Wait for the next round; in trouble a nudge does not shorten it."""
        if self._failed_in_a_row:
            first_s = max(self._debounce_s, FIRST_S)
            most_s = self._interval_s * AWAY_MAX
            wait_s = backoff_s(self._failed_in_a_row, first_s, most_s, self._dice)
            await anyio.sleep(max(wait_s, self._debounce_s))
            return
        interval_s = self._interval_s * self._dice.uniform(SPREAD, 1.0)
        with anyio.move_on_after(interval_s):
            await self._nudged.wait()
            await anyio.sleep(self._debounce_s)  # what changes in these seconds is said with it


async def leave_all(*registrations: Registration) -> None:
    """Let several leave at the same time."""
    async with anyio.create_task_group() as tasks:
        for registration in registrations:
            tasks.start_soon(registration.leave)

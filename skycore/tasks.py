"""The only two ways to be periodic, every() and retry(), backing off, and each_of() for many.

Why only two: a loop that sleeps by itself is a loop whose jitter, errors and cancellation were
forgotten. Sleeping is anyio's, so both run on the virtual clock unchanged.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import anyio

from skycore.errors import SkycoreError

__all__ = ["Ending", "backoff_s", "each_of", "every", "retry"]

T = TypeVar("T")
log = logging.getLogger(__name__)


class Ending:
    """Knows whether the tasks of a group are being cancelled: then none may be begun there.

    Why: the goodbye of another part, shielded from the cancellation that ends the whole node, may
    still ask for work. anyio tells a task that is begun then nothing of the cancellation, but lets
    it wait for it at every checkpoint, for ever. Start `watch` in the group, and ask `is_over`.
    """

    def __init__(self) -> None:
        self.is_over = False

    async def watch(self) -> None:
        """Wait to be cancelled, and note it."""
        try:
            await anyio.sleep_forever()
        finally:
            self.is_over = True


def backoff_s(attempt: int, first_s: float, longest_s: float, dice: random.Random) -> float:
    """Return how long to wait before try `attempt` (1, 2, …): doubling, ±20 % of jitter."""
    wait = min(longest_s, first_s * 2.0 ** min(attempt - 1, 32))
    return wait * dice.uniform(0.8, 1.2)


async def every(
    interval_s: float | Callable[[], float],
    work: Callable[[], Awaitable[object]],
    *,
    name: str,
    at_once: bool = True,
) -> None:
    """Do `work` again and again, for ever, with a pause between; a SkycoreError is logged.

    `interval_s` may be a function, asked after each round. Any other error ends the part.
    """
    failing = ""
    if not at_once:
        await anyio.sleep(interval_s() if callable(interval_s) else interval_s)
    while True:
        try:
            await work()
            if failing:
                log.info("%s works again", name)
            failing = ""
        except SkycoreError as trouble:
            if str(trouble) != failing:  # a lost peer is news once, not at every retry
                log.warning("%s failed error=%r", name, str(trouble))
            failing = str(trouble)
        await anyio.sleep(interval_s() if callable(interval_s) else interval_s)


async def each_of(things: Iterable[T], work: Callable[[T], Awaitable[object]]) -> None:
    """Do `work` for all things at the same time; the first SkycoreError is raised once all ended.

    Why not a task group by itself: it would raise a group of errors, which nobody here catches,
    and one thing's trouble would end the work for the others.
    """
    troubles: list[SkycoreError] = []

    async def one(thing: T) -> None:
        try:
            await work(thing)
        except SkycoreError as trouble:
            troubles.append(trouble)

    async with anyio.create_task_group() as tasks:
        for thing in things:
            tasks.start_soon(one, thing)
    if troubles:
        raise troubles[0]


async def retry(
    work: Callable[[], Awaitable[T]],
    *,
    name: str,
    dice: random.Random,
    first_s: float = 1.0,
    longest_s: float = 60.0,
    attempts_max: int | None = None,
) -> T:
    """Do `work` until it succeeds; the last SkycoreError is raised after `attempts_max` tries."""
    attempt = 0
    while True:
        attempt += 1
        try:
            return await work()
        except SkycoreError as trouble:
            if attempts_max is not None and attempt >= attempts_max:
                raise
            wait = backoff_s(attempt, first_s, longest_s, dice)
            log.info("%s failed try=%d wait_s=%.1f error=%r", name, attempt, wait, str(trouble))
        await anyio.sleep(wait)

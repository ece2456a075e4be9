"""Who may shake hands now: bounded in all and per source host, and nobody can sit on a place.

Why not simply refuse the newest: whoever opens silent connections would own every place for the
whole handshake limit. Here a newcomer waits a moment and then takes the place of the oldest one,
which has had its time; the newest waiter is served first, because under a flood the oldest waiters
are the least likely to be still there. A host at its own bound waits for its own places only, so
one host cannot delay another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from skycore.contracts.runtime import Clock

__all__ = ["Handshakes"]

T = TypeVar("T")
WAITING_MAX = 512
WAITING_PER_HOST_MAX = 128


class _Place:
    """One handshake in flight."""

    __slots__ = ("host", "scope", "since")

    def __init__(self, host: str, since: float) -> None:
        self.host = host
        self.since = since
        self.scope = anyio.CancelScope()


class _Waiter:
    """Somebody without a place yet."""

    __slots__ = ("host", "turn")

    def __init__(self, host: str) -> None:
        self.host = host
        self.turn = anyio.Event()


class Handshakes:
    """Places for handshakes of one listener. `grace_s` is how long one is left alone at least."""

    def __init__(
        self, clock: Clock, *, places: int, places_per_host: int, grace_s: float = 0.25
    ) -> None:
        self._clock = clock
        self._places = places
        self._per_host = places_per_host
        self._grace_s = grace_s
        self._flying: dict[_Place, None] = {}  # oldest first
        self._flying_of: Counter[str] = Counter()
        self._waiting: dict[_Waiter, None] = {}  # oldest first
        self._waiting_of: Counter[str] = Counter()
        self.refused = 0
        """Turned away at once: too many were waiting."""
        self.evicted = 0
        """Lost their place to a newcomer."""

    @property
    def in_flight(self) -> int:
        """How many shake hands now."""
        return len(self._flying)

    async def run(self, host: str, work: Callable[[], Awaitable[T]]) -> T | None:
        """Do a handshake in a place; None where there was none, or it was lost to a newcomer."""
        place = await self._take(host)
        if place is None:
            return None
        try:
            with place.scope:
                return await work()
        finally:
            self._give_back(place)
        self.evicted += 1
        return None

    async def _take(self, host: str) -> _Place | None:
        if self._has_room(host):
            return self._seat(host)
        if len(self._waiting) >= WAITING_MAX or self._waiting_of[host] >= WAITING_PER_HOST_MAX:
            self.refused += 1
            return None
        waiter = _Waiter(host)
        self._waiting[waiter] = None
        self._waiting_of[host] += 1
        try:
            while not self._has_room(host):
                waiter.turn = anyio.Event()
                with anyio.move_on_after(self._make_room(host)):
                    await waiter.turn.wait()
            return self._seat(host)
        finally:
            del self._waiting[waiter]
            _take_one(self._waiting_of, host)

    def _has_room(self, host: str) -> bool:
        return len(self._flying) < self._places and self._flying_of[host] < self._per_host

    def _seat(self, host: str) -> _Place:
        place = _Place(host, self._clock.now())
        self._flying[place] = None
        self._flying_of[host] += 1
        return place

    def _make_room(self, host: str) -> float:
        """End the oldest handshake that is in this host's way, if it is ripe; say when to look.

        In its way is one of its own where its own bound is full, else anybody's.
        """
        own_only = self._flying_of[host] >= self._per_host
        for place in self._flying:
            if place.scope.cancel_called or (own_only and place.host != host):
                continue
            ripe_s = place.since + self._grace_s - self._clock.now()
            if ripe_s > 0:
                return ripe_s
            place.scope.cancel()
            break
        return self._grace_s  # it needs a turn of the loop to go

    def _give_back(self, place: _Place) -> None:
        del self._flying[place]
        _take_one(self._flying_of, place.host)
        for waiter in reversed(self._waiting):
            if self._has_room(waiter.host) and not waiter.turn.is_set():
                waiter.turn.set()
                return


def _take_one(counts: Counter[str], host: str) -> None:
    counts[host] -= 1
    if not counts[host]:
        del counts[host]

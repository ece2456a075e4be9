"""Serving: what the discovery servers have in common besides proof: rates of callers, uptimes.

Why a rate of its own by key: the HTTP server bounds addresses, of which a caller may have many. It
counts after proof alone, so a stranger can neither use up somebody's rate nor fill the table.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import anyio
import anyio.lowlevel

from skycore.contracts.registry import Beats, RegistryWritten
from skycore.contracts.runtime import Clock
from skycore.contracts.status import Health
from skycore.discovery.answers import Asked, Handler, Reply
from skycore.discovery.callers import check
from skycore.discovery.directory import Directory
from skycore.errors import RequestRefusedError

__all__ = ["CallerRates", "Uptimes", "brief", "judged", "once_loaded", "started_at"]

SLOT_S: Final = 300
SLOTS_A_DAY: Final = 288
DAYS: Final = 7
ONLINE_S: Final = 600
"""Two slots: seen in this one or the last."""
OPEN: Final = ("/health", "/security/nonces/{key}")
"""Routes that need no table."""
FRESH_S: Final = 60.0
"""How old what is told of today may be."""
ROWS_AT_ONCE: Final = 256
"""Made between two breaths of the event loop: about 2 ms."""
Days = Mapping[str, Mapping[bytes, Beats]]


class CallerRates:
    """Token buckets by key: `per_minute` requests each, `burst` of them at once; 0: no limit.

    Who was seen longest ago is forgotten first; at most `callers_max` are remembered.
    """

    def __init__(self, per_minute: float, burst: int, callers_max: int, clock: Clock) -> None:
        self._per_s = per_minute / 60.0
        self._burst = float(burst)
        self._callers_max = callers_max
        self._clock = clock
        self._message = f"Rate limit exceeded: maximum {per_minute:g} requests per minute"
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        """By key: tokens, and when they were counted."""

    def __len__(self) -> int:
        """Return how many callers are remembered."""
        return len(self._buckets)

    def take(self, public: bytes) -> None:
        """Count one request of a proven caller. Raises `RequestRefusedError` (429) for too many."""
        if not self._per_s:
            return
        now = self._clock.now()
        tokens, counted = self._buckets.pop(public, (self._burst, now))
        tokens = min(self._burst, tokens + max(0.0, now - counted) * self._per_s)
        self._buckets[public] = (tokens - 1.0 if tokens >= 1.0 else tokens, now)
        if len(self._buckets) > self._callers_max:
            self._buckets.popitem(last=False)
        if tokens < 1.0:
            raise RequestRefusedError(self._message, code=429, hint="send changes together")

    def settle(self, public: bytes, written: RegistryWritten) -> RegistryWritten:
        """Return what became of a key's write, as `callers.check` does, and raises.

        A request whose nonce was not the next one does not count: whoever saw a signed request can
        send it again, and that must not use up its signer's rate.
        """
        found = self._buckets.get(public)
        if written.error == "nonce" and found is not None:
            # where it stands among those that are forgotten stays as it is
            self._buckets[public] = min(self._burst, found[0] + 1.0), found[1]
        return check(written)


class Uptimes:
    """How much of the last seven days subjects were seen: rows for `/uptimes`.

    A day is read from the registry once and kept, today's at most every minute; however many ask,
    one asks the registry.
    """

    def __init__(self, directory: Directory, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._days: dict[str, Mapping[bytes, Beats]] = {}
        self._read_at: dict[str, float] = {}
        self._rows: dict[str, Sequence[Mapping[str, Any]]] = {}
        """Everybody's, by version, until a day is read again."""
        self._turn = anyio.Lock()

    async def rows(
        self, subjects: Collection[bytes] | None = None, *, version: str = "v1"
    ) -> Sequence[Mapping[str, Any]]:
        """Return one row for each subject that was seen (of those given). Raises `StoreError`.

        v1: seconds and percent over the days; v2: percent by day. Ordered by key.
        """
        version = "v2" if version == "v2" else "v1"  # what is kept by it is two at most
        async with self._turn:
            days = await self._last_days()
            if subjects is None:  # made once for all who ask within a minute
                if version not in self._rows:
                    everybody = set().union(*days.values())
                    self._rows[version] = await self._made(everybody, days, version)
                return self._rows[version]
        return await self._made(subjects, days, version)

    async def _made(
        self, subjects: Collection[bytes], days: Days, version: str
    ) -> Sequence[Mapping[str, Any]]:
        began = {day: self._slots_of(day) for day in days}
        rows = []
        for count, subject in enumerate(sorted(subjects), 1):
            if count % ROWS_AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
            seen = {day: beats[subject] for day, beats in days.items() if subject in beats}
            if seen:
                row = self._row_v2 if version == "v2" else self._row_v1
                rows.append(row(subject, seen, began))
        return rows

    async def _last_days(self) -> Days:
        now, today = self._clock.now(), self._today()
        names = [(today - timedelta(days=back)).isoformat() for back in range(DAYS)]
        for name in names:
            read_at = self._read_at.get(name)
            is_open = name in names[:2]  # yesterday's last beats may still be on their way
            if read_at is None or (is_open and now - read_at >= FRESH_S):
                self._days[name] = await self._directory.beats(name)
                self._read_at[name] = now
                self._rows.clear()
        self._days = {name: self._days[name] for name in names}
        self._read_at = {name: self._read_at[name] for name in names}
        return self._days

    def _today(self) -> date:
        return datetime.fromtimestamp(self._clock.wall_s(), UTC).date()

    def _row_v1(
        self, subject: bytes, seen: Mapping[str, Beats], began: Mapping[str, int]
    ) -> Mapping[str, Any]:
        up_s = sum(min(each.slots, SLOTS_A_DAY) for each in seen.values()) * SLOT_S
        all_s = sum(began.values()) * SLOT_S
        return {
            "key": subject.hex(),
            "uptime": up_s,
            "downtime": max(0, all_s - up_s),
            "percentage": round(min(100.0, 100.0 * up_s / all_s), 2) if all_s else 0.0,
            "online": self._is_online(seen),
        }

    def _row_v2(
        self, subject: bytes, seen: Mapping[str, Beats], began: Mapping[str, int]
    ) -> Mapping[str, Any]:
        daily = {
            day: f"{min(100.0, 100.0 * each.slots / began[day]):.2f}"
            for day, each in sorted(seen.items())
        }
        return {"pk": subject.hex(), "on": self._is_online(seen), "version": "", "daily": daily}

    def _slots_of(self, day: str) -> int:
        """Return how many slots of a day have begun: all but today's."""
        if day != self._today().isoformat():
            return SLOTS_A_DAY
        return self._clock.wall_s() % 86_400 // SLOT_S + 1

    def _is_online(self, days: Mapping[str, Beats]) -> bool:
        return max(each.last_s for each in days.values()) > self._clock.wall_s() - ONLINE_S


def started_at(clock: Clock) -> str:
    """Return now as `/health` tells when a service started: RFC 3339, UTC."""
    return datetime.fromtimestamp(clock.wall_s(), UTC).isoformat().replace("+00:00", "Z")


def brief(trouble: str) -> str:
    """Return trouble without its details in brackets: the part that has it tells them once."""
    return trouble.partition(" (")[0]


def judged(directory: Directory, told: str, feed_trouble: str = "") -> tuple[Health, str]:
    """Return how a server is that lists `told`, as far as its registry and the DHT go."""
    if not directory.is_loaded:
        why = f": {brief(directory.trouble)}" if directory.trouble else ""
        return Health.DOWN, f"waits for its registry{why}"
    if directory.trouble:
        return Health.DEGRADED, f"{told}, as they were: {brief(directory.trouble)}"
    if feed_trouble:
        return Health.DEGRADED, f"{told}; the DHT is not told: {brief(feed_trouble)}"
    return Health.OK, told


def once_loaded(
    routes: Iterable[tuple[str, str, Handler]], directory: Directory
) -> list[tuple[str, str, Handler]]:
    """Return routes that answer 503 while the registry was never read: that is not an empty one.

    Whoever compares would otherwise take a network for gone because a Redis is not up yet.
    """

    def guarded(handler: Handler) -> Handler:
        async def answer(asked: Asked) -> Reply:
            if not directory.is_loaded:
                raise RequestRefusedError("what is listed is not read yet", code=503)
            return await handler(asked)

        return answer

    return [(m, path, handler if path in OPEN else guarded(handler)) for m, path, handler in routes]

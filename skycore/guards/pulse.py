"""Whether the other end of a link is there: pings, their answers, and what silence means.

Why two answers: silence is noticed after three unanswered pings, whatever carries the link, so that
new work goes another way; and it ends the link at once only where nothing else would. TCP keeps a
connection to a dead machine for minutes. A type that watches over its connections itself ends them
in its own time, and an outage that is shorter costs it nothing but the wait (U7): such a link is
ended here only where its peer goes on for a minute, alive below and without a word above.
"""

from __future__ import annotations

from typing import Final

__all__ = ["PING_TICKS", "Pulse"]

PING_TICKS: Final = 3
"""Ticks in a ping interval, and unanswered pings after which the other end is silent."""
WATCHED_TICKS: Final = 18
"""Unanswered pings (60 s) after which a link that its type watches over ends nevertheless."""
RTT_AGE_S: Final = 60.0
"""A measured round-trip time older than this is measured again, however much the peer sends."""


class Pulse:
    """What one link knows of its other end. Times are monotonic seconds."""

    __slots__ = (
        "_due", "_heard", "_interval_s", "_limit", "_missed", "_rtt_at", "_sent_at", "_stamp",
        "heard_at", "rtt_s",
    )  # fmt: skip

    def __init__(
        self, now: float, *, first_ping_s: float, interval_s: float, is_watched: bool
    ) -> None:
        """`is_watched`: the type notices by itself that the other end is gone."""
        self.heard_at = now
        """When something came, to a tick."""
        self.rtt_s: float | None = None
        self._limit = WATCHED_TICKS if is_watched else PING_TICKS
        self._interval_s = interval_s
        self._due = now + first_ping_s
        self._heard = False
        self._missed = 0
        self._stamp = 0
        self._sent_at = 0.0
        self._rtt_at = float("-inf")

    @property
    def is_silent(self) -> bool:
        """Whether three pings are unanswered, and nothing else came."""
        return self._missed >= PING_TICKS and not self._heard

    @property
    def is_asked(self) -> bool:
        """Whether a ping waits for its answer."""
        return bool(self._stamp)

    def heard(self) -> None:
        """Something came: whatever it is, it is life."""
        self._heard = True

    def hurry(self, now: float) -> None:
        """Have the next ping at the next tick: there is something to tell."""
        self._due = now

    def tick(self, now: float) -> str:
        """Count; return why the link is over, or nothing."""
        if self._heard:
            self._heard, self.heard_at, self._missed = False, now, 0
        elif self._stamp:
            self._missed += 1
        return f"no answer to {self._missed} pings" if self._missed >= self._limit else ""

    def wants_ping(self, now: float, *, has_news: bool) -> bool:
        """Tell whether to ask now.

        `heard_at` is up to one tick late: so a peer is asked after one tick less than an interval.
        """
        if self._missed:
            return True
        tick_s = self._interval_s / PING_TICKS
        slack = tick_s / 2
        if now < self._due - slack:
            return False
        quiet = now - self.heard_at >= self._interval_s - tick_s - slack
        return quiet or now - self._rtt_at >= RTT_AGE_S or has_news

    def asked(self, now: float, stamp: int) -> None:
        """A ping goes out."""
        self._stamp, self._sent_at = stamp, now
        self._due = now + self._interval_s

    def answered(self, now: float, stamp: int) -> None:
        """A pong came; only that of our last ping is a measurement."""
        if self._stamp and stamp == self._stamp:
            self._stamp = 0
            self._rtt_at = now
            self.rtt_s = max(0.0, now - self._sent_at)

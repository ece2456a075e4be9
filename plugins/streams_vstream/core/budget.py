"""How much of a nuisance a peer may be: a burst, a rate at which it is forgiven, and memory.

Why a rate and not a count: a link lives for weeks, and an honest peer cancels calls, pings and
refuses now and then. A count would close such a link one day; a rate closes only a flood.
"""

from __future__ import annotations

__all__ = ["Allowance", "Pool"]


class Allowance:
    """A token bucket: `burst` at once, `per_s` again each second. Looks at the time when empty."""

    __slots__ = ("_burst", "_left", "_per_s", "_since")

    def __init__(self, burst: int, per_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = float(burst)
        self._since = 0.0

    def spend(self, now: float) -> bool:
        """Use one up at `now` (monotonic seconds); False where there is none left."""
        if self._left == self._burst:
            self._since = now  # full until now: time before this earns nothing
        elif self._left < 1:
            gained = max(0.0, now - self._since) * self._per_s
            self._left = min(float(self._burst), self._left + gained)
            self._since = max(now, self._since)
            if self._left < 1:
                return False
        self._left -= 1
        return True


class Pool:
    """Bytes that wait unread in all sessions of a node, and how many may."""

    __slots__ = ("held", "held_max")

    def __init__(self, held_max: int) -> None:
        self.held = 0
        self.held_max = held_max

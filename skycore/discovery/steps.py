"""When a clock was put right: what is over by it may not be over at all.

Lives end by the wall clock, which servers share. Put forward by an hour (a battery that was empty,
a suspended machine), it ends everybody's life at once, though all are there and repeat what they
list within minutes. So for a while nothing is ended. Put back, it lets what is not repeated live
longer by as much, and that is all it does.
"""

from __future__ import annotations

import logging
import math
from typing import Final

from skycore.contracts.runtime import Clock

__all__ = ["MERCY_S", "ClockSteps"]

log = logging.getLogger(__name__)

STEP_S: Final = 30.0
"""By so much a clock is put right, not slewed."""
MERCY_S: Final = 330.0
"""Longer than anybody takes to repeat what it lists."""


class ClockSteps:
    """Compares the wall clock with the one that only goes on."""

    def __init__(self, clock: Clock, name: str) -> None:
        self._clock = clock
        self._name = name
        self._ahead_s = self._wall_ahead_s()
        self._until = -math.inf
        self.count = 0
        """How often the clock was put right."""

    def _wall_ahead_s(self) -> float:
        return self._clock.wall_ns() / 1e9 - self._clock.now()

    def is_recent(self) -> bool:
        """Look; tell whether the clock was put right less than `MERCY_S` ago."""
        before, self._ahead_s = self._ahead_s, self._wall_ahead_s()
        step_s = self._ahead_s - before
        if abs(step_s) >= STEP_S:
            self.count += 1
            self._until = self._clock.now() + MERCY_S
            log.warning("the clock was put right: nothing ends for a while table=%s by_s=%.0f",
                        self._name, step_s)  # fmt: skip
        return self._clock.now() < self._until

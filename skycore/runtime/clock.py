"""The real clock."""

from __future__ import annotations

import time

__all__ = ["RealClock"]

_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class RealClock:
    """The operating system's time. `contracts.runtime.Clock`."""

    def now(self) -> float:
        """Monotonic seconds; does not stand still while the machine is busy, nor jump with NTP.

        Nor while it sleeps, where the system can tell (Linux): what peers said of the time before
        would be late by as much afterwards.
        """
        return time.clock_gettime(_STEADY)

    def wall_ns(self) -> int:
        """Unix nanoseconds."""
        return time.time_ns()

    def wall_s(self) -> int:
        """Unix seconds."""
        return time.time_ns() // 10**9

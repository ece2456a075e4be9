"""The real clock."""

from __future__ import annotations

import time

__all__ = ["RealClock"]


class RealClock:
    """The operating system's time. `contracts.runtime.Clock`."""

    def now(self) -> float:
        """Monotonic seconds; does not stand still while the machine is busy, nor jump with NTP."""
        return time.monotonic()

    def wall_ns(self) -> int:
        """Unix nanoseconds."""
        return time.time_ns()

    def wall_s(self) -> int:
        """Unix seconds."""
        return time.time_ns() // 10**9

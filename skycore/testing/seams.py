"""The seams of a simulated node: a clock that may be wrong, and files that a kill cuts off."""

from __future__ import annotations

import asyncio
import hashlib

from skycore.runtime.memory import MemoryFiles
from skycore.testing.fakes import START_NS, SeededEntropy

__all__ = ["SimClock", "SimFiles", "derived_entropy"]


class SimClock:
    """The loop's time for intervals; wall time from a start, with an offset and a drift you set.

    Why apart: a node whose wall clock jumps must keep its connections and timers, which follow
    the monotonic one.
    """

    def __init__(self, start_ns: int = START_NS) -> None:
        self._loop = asyncio.get_running_loop()
        self._base_ns = start_ns
        self._base_s = 0.0
        self._drift_ppm = 0.0
        self.offset_s = 0.0
        """How far the wall clock is ahead, seconds. Set it to make the clock jump."""

    @property
    def drift_ppm(self) -> float:
        """How much too fast the wall clock runs, millionths; changes nothing of the past."""
        return self._drift_ppm

    @drift_ppm.setter
    def drift_ppm(self, ppm: float) -> None:
        self._base_ns, self._base_s = self._steady_ns(), self._loop.time()
        self._drift_ppm = ppm

    def _steady_ns(self) -> int:
        passed = (self._loop.time() - self._base_s) * (1 + self._drift_ppm / 1e6)
        return self._base_ns + round(passed * 1e9)

    def now(self) -> float:
        """Virtual seconds since the simulation began."""
        return self._loop.time()

    def wall_ns(self) -> int:
        """Unix nanoseconds, as this node believes."""
        return self._steady_ns() + round(self.offset_s * 1e9)

    def wall_s(self) -> int:
        """Unix seconds, as this node believes."""
        return self.wall_ns() // 10**9


class SimFiles(MemoryFiles):
    """One process's view of its host's disk. After a kill, what it writes goes nowhere."""

    def __init__(self, disk: dict[str, bytes]) -> None:
        super().__init__()
        self.held = disk
        self.is_dead = False

    def write(self, name: str, data: bytes) -> None:
        """Replace the content, unless the process is dead."""
        if not self.is_dead:
            super().write(name, data)


def derived_entropy(*name: object) -> SeededEntropy:
    """Return the entropy that belongs to a name: the world's seed, a node, a start."""
    digest = hashlib.sha256("/".join(map(str, name)).encode()).digest()
    return SeededEntropy(int.from_bytes(digest, "big"))

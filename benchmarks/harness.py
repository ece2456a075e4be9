"""How a figure is taken, and how it is shown.

Machines are shared and noisy: every figure is the median of several rounds, with its spread, and
what it is compared with (the physical limit, a peer) is measured in the same run. Nothing here
asserts; docs/performance.md holds what was seen, met or missed.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = ["Figure", "Report", "median_rate", "quantile"]


@dataclass
class Figure:
    """One line of the report. `goal` is a number in the same unit; `at_most` turns it round."""

    what: str
    value: float
    unit: str
    goal: float | None = None
    at_most: bool = False
    beside: str = ""
    spread: float | None = None

    @property
    def verdict(self) -> str:
        """Met or missed, or nothing where there is no goal."""
        if self.goal is None:
            return ""
        met = self.value <= self.goal if self.at_most else self.value >= self.goal
        return "met" if met else "missed"


@dataclass
class Report:
    """All lines of a run."""

    figures: list[Figure] = field(default_factory=list)

    def add(self, figures: Iterable[Figure]) -> None:
        """Take lines and print them at once."""
        for figure in figures:
            self.figures.append(figure)
            goal = ""
            if figure.goal is not None:
                goal = f"goal {'≤' if figure.at_most else '≥'} {_short(figure.goal)}"
            spread = "" if figure.spread is None else f"±{figure.spread * 100:.0f} %"
            print(
                f"{figure.what:<58} {_short(figure.value):>10} {figure.unit:<9} {spread:>7} "
                f"{goal:<16} {figure.verdict:<7} {figure.beside}",
                flush=True,
            )

    def save(self, path: Path) -> None:
        """Write the lines as JSON, with the machine they come from."""
        machine = {"python": platform.python_version(), "cpu": _cpu()}
        rows = [asdict(f) | {"verdict": f.verdict} for f in self.figures]
        path.write_text(json.dumps({"machine": machine, "figures": rows}, indent=2) + "\n")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")


def _short(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 10 else f"{value:.1f}"


def median_rate(
    work: Callable[[], int], *, rounds: int = 5, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
    """Return the median of units per second over rounds, and the spread; `work` returns units."""
    rates = []
    for _ in range(rounds):
        began = clock()
        units = work()
        rates.append(units / (clock() - began))
    middle = statistics.median(rates)
    return middle, (max(rates) - min(rates)) / 2 / middle


def quantile(values: list[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

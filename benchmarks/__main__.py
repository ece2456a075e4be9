"""`python -m benchmarks [NAME ...] [--peers] [--save FILE]`."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from benchmarks.harness import Report

BENCHES = (
    "start",
    "noise",
    "links",
    "store",
    "sync",
    "records",
    "reconcile",
    "dht",
    "dmsg",
    "sudph",
    "redis",
    "registry",
    "registrations",
    "simulation",
)


def main() -> None:
    """Run the named benchmarks, or all."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="Figures on this machine.")
    parser.add_argument("names", nargs="*", help=f"any of: {', '.join(BENCHES)}")
    parser.add_argument("--peers", action="store_true", help="measure peers from PyPI beside us")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the figures as JSON")
    chosen = parser.parse_args()
    unknown = [n for n in chosen.names if n not in BENCHES]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}")
    report = Report()
    for name in chosen.names or BENCHES:
        module = importlib.import_module(f"benchmarks.bench_{name}")
        print(f"\n{name}: {module.__doc__.splitlines()[0]}")
        report.add(module.figures(peers=chosen.peers))
    if chosen.save:
        report.save(chosen.save)


if __name__ == "__main__":
    main()

"""PUBLIC: what plugin authors test with.

Virtual time (`simulate`), a network that breaks on request (`SimNetwork`), whole nodes
(`World`), stand-ins for one part alone (`fakes`), and the suites of `contracts` to inherit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skycore.testing.loop import (
        SimLoop,
        SimulationDeadlockError,
        SimulationLivelockError,
        SimulationTimeoutError,
        sim_backend,
        simulate,
    )
    from skycore.testing.nat import Nat, NatKind
    from skycore.testing.network import SimNetwork
    from skycore.testing.pipes import Link
    from skycore.testing.seams import SimClock, SimFiles
    from skycore.testing.trace import Trace, first_difference
    from skycore.testing.world import SimNode, World

__all__ = [
    "Link",
    "Nat",
    "NatKind",
    "SimClock",
    "SimFiles",
    "SimLoop",
    "SimNetwork",
    "SimNode",
    "SimulationDeadlockError",
    "SimulationLivelockError",
    "SimulationTimeoutError",
    "Trace",
    "World",
    "first_difference",
    "sim_backend",
    "simulate",
]

_LATER = {
    "Link": "pipes",
    "Nat": "nat",
    "NatKind": "nat",
    "SimClock": "seams",
    "SimFiles": "seams",
    "SimLoop": "loop",
    "SimNetwork": "network",
    "SimNode": "world",
    "SimulationDeadlockError": "loop",
    "SimulationLivelockError": "loop",
    "SimulationTimeoutError": "loop",
    "Trace": "trace",
    "World": "world",
    "first_difference": "trace",
    "sim_backend": "loop",
    "simulate": "loop",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for: pytest loads this package in every project."""
    if name not in _LATER:
        raise AttributeError(f"module 'skycore.testing' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"skycore.testing.{_LATER[name]}"), name)

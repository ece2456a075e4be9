"""skycore: a plugin-based framework for peer-to-peer nodes.

The public names are here; contracts are in `skycore.contracts`, values in `skycore.model`, errors
in `skycore.errors`, and what plugin authors test with in `skycore.testing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skycore.hookspecs import hookimpl

if TYPE_CHECKING:
    from skycore.node import Node, run
    from skycore.wiring import Live, Provider

__all__ = ["Live", "Node", "Provider", "hookimpl", "run"]

_LATER = {"Live": "wiring", "Node": "node", "Provider": "wiring", "run": "node"}


def __getattr__(name: str) -> Any:
    """Import the heavy names when they are asked for, so that `skynode --help` stays fast."""
    if name not in _LATER:
        raise AttributeError(f"module 'skycore' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"skycore.{_LATER[name]}"), name)

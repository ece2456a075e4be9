"""Commands: what a plugin adds to the `skynode` command line. Imported only when used."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Command"]


@dataclass(frozen=True)
class Command:
    """A command by its path. `run` is "module:function", a typer-style function."""

    path: str
    """Words under `skynode`, for example "visor dht sync"."""
    help: str
    run: str

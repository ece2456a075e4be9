"""What this plugin adds: six declarations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

if TYPE_CHECKING:
    pass

__all__ = ["skycore_namespaces"]


@hookimpl
def skycore_namespaces() -> hooktypes.Namespaces:
    """Return what the salts of a Skywire network mean."""
    from namespaces_skywire.declarations import ALL

    return ALL

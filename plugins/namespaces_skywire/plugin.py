"""What this plugin adds: six declarations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore.contracts.namespace import Namespace

__all__ = ["skycore_namespaces"]


@hookimpl
def skycore_namespaces() -> Sequence[Namespace]:
    """Return what the salts of a Skywire network mean."""
    from namespaces_skywire.declarations import ALL

    return ALL

"""URLs: whom they name and how they may be logged."""

from __future__ import annotations

__all__ = ["READERS", "shown"]

READERS = frozenset({"GET", "HEAD"})
"""Methods that change nothing: sent again where a kept connection was closed under them."""


def shown(url: str) -> str:
    """Return a URL as it may be logged: no query, no password, not endless."""
    return url.partition("?")[0].rpartition("@")[2][:200]

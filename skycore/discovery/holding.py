"""Holding deletions back where most of a network is gone at once: then its registry is, not it.

A registry that was flushed, or restored from an old backup, has everybody back within one refresh.
Until then the DHT goes on saying what was true a minute ago; expiry of the records themselves
bounds it anyway. Why until a time and not for as long as most are away: whoever comes back last is
no more gone than whoever came first.
"""

from __future__ import annotations

import logging
from collections.abc import Set
from typing import Final

from skycore.contracts.runtime import Clock

__all__ = ["HELD_FROM", "HELD_S", "Holding"]

log = logging.getLogger(__name__)

HELD_FROM: Final = 50
"""Subjects; fewer may well leave together."""
HELD_S: Final = 120.0
"""More than one refresh of a visor (90 s)."""


class Holding:
    """Tells whose deletion waits."""

    def __init__(self, clock: Clock, name: str) -> None:
        self._clock = clock
        self._name = name
        self._since: float | None = None

    def held(self, gone: Set[bytes], listed: int) -> Set[bytes]:
        """Return which of the subjects that are gone are not to be deleted yet.

        `listed` is how many are there. Once more are gone than that, all that go are held until
        `HELD_S` later, or until nobody is gone any more.
        """
        now = self._clock.now()
        if not gone:
            self._since = None
        elif self._since is None and len(gone) >= HELD_FROM and len(gone) > listed:
            self._since = now
            log.warning(
                "most subjects are gone at once; their records stay for a while name=%s gone=%d",
                self._name, len(gone),
            )  # fmt: skip
        if self._since is None or now - self._since >= HELD_S:
            return frozenset()
        return gone

"""What strangers did that was refused: counted by name, and told in the log within bounds.

Why one place: whoever can make a node write a line for each bad frame can fill its disk (F25), so
all of it shares one limited log. The counts stay exact and are in `skynode visor info`.
"""

from __future__ import annotations

import logging
from collections import Counter

from skycore.contracts.runtime import Clock
from skycore.logs import LimitedLog
from skycore.model.keys import PubKey, short

__all__ = ["Refusals"]

log = logging.getLogger(__name__)


class Refusals:
    """Of one transport manager."""

    def __init__(self, clock: Clock) -> None:
        self.counters: Counter[str] = Counter()
        """Everything that the manager counts, since the start."""
        self._log = LimitedLog(log, clock.now)

    def handshake(self, kind: str, host: str, name: str, text: str) -> None:
        """Note a handshake that came to nothing, under the name of its error."""
        self.counters["handshakes_failed"] += 1
        self.counters[name] += 1
        self._log.warning("handshake failed type=%s host=%s error=%s: %s", kind, host, name, text)

    def link(self, remote: PubKey, kind: str, why: Exception) -> None:
        """Note a proven peer for which there is no place."""
        self.counters["refused"] += 1
        self._log.warning(
            "transport refused pk=%s type=%s reason=%r", short(remote), kind, str(why)
        )

    def broken(self, remote: PubKey, kind: str, bad: Exception) -> None:
        """Note a peer that sent what it must not; its link closes."""
        self.counters[type(bad).__name__] += 1
        self._log.warning(
            "peer broke the protocol pk=%s type=%s error=%r", short(remote), kind, str(bad)
        )

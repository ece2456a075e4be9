"""A byte budget per peer: a token bucket, so that one peer cannot have all of this node's link.

Why by bytes: a request of 60 bytes may ask for a page of a megabyte (G1). Bounded: the least
recently served peer is forgotten, and a peer that is forgotten starts with a full bucket, which is
what it had earned by its silence. Pure: time comes in as an argument.
"""

from __future__ import annotations

from typing import Final

__all__ = ["PEERS_MAX", "Budget"]

PEERS_MAX: Final = 4_096


class Budget:
    """Bytes a second and peer, with a burst of as much as `burst_s` seconds give."""

    def __init__(self, bytes_per_s: int, burst_s: float = 2.0) -> None:
        self._rate = bytes_per_s
        self._full = bytes_per_s * burst_s
        self._left: dict[bytes, tuple[float, float]] = {}

    def wait_s(self, peer: bytes, now: float) -> float:
        """Return how long the peer must wait before its next answer; 0 for not at all."""
        left = self._level(peer, now)
        return 0.0 if left >= 0 else -left / self._rate

    def spend(self, peer: bytes, size: int, now: float) -> None:
        """Take bytes from a peer's budget; it may go below zero once, and then waits."""
        left = self._level(peer, now) - size
        self._left.pop(peer, None)
        self._left[peer] = (left, now)
        if len(self._left) > PEERS_MAX:
            del self._left[next(iter(self._left))]

    def _level(self, peer: bytes, now: float) -> float:
        left, at = self._left.get(peer, (self._full, now))
        return min(self._full, left + (now - at) * self._rate)

"""Token buckets by key, in bounded memory, for datagrams.

Why not the routes' `CallerRates`: those answer with an error, and a datagram that is too many gets
no answer at all. Who was seen longest ago is forgotten first. Pure: time comes in as an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["Buckets"]

K = TypeVar("K")


class Buckets(Generic[K]):
    """Give each key `burst` at once and `per_s` a second; remember `keys_max` keys."""

    def __init__(self, per_s: float, burst: float, keys_max: int) -> None:
        self._per_s, self._burst, self._keys_max = per_s, burst, keys_max
        self._left: OrderedDict[K, tuple[float, float]] = OrderedDict()
        """By key: tokens, and when they were counted."""

    def __len__(self) -> int:
        """Return how many keys are remembered."""
        return len(self._left)

    def take(self, key: K, now: float) -> bool:
        """Count one; False where it is one too many."""
        tokens, counted = self._left.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + max(0.0, now - counted) * self._per_s)
        passes = tokens >= 1.0
        self._left[key] = (tokens - 1.0 if passes else tokens, now)
        if len(self._left) > self._keys_max:
            self._left.popitem(last=False)
        return passes

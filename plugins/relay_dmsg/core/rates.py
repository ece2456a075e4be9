"""Token buckets by key, in bounded memory: dials a minute, bytes a second.

Why a bucket: a burst passes, the mean is bounded. Who was seen longest ago is forgotten first,
which is generous to him and costs nobody else. Pure: time comes in as an argument.
"""

from __future__ import annotations

__all__ = ["Bucket", "Buckets"]


class Bucket:
    """Gives `per_s` units a second, and `burst` of them at once. Nothing at all: no limit."""

    __slots__ = ("_at", "_burst", "_left", "_per_s")

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._left, self._at = burst, now

    def take(self, units: float, now: float) -> float:
        """Take units, below zero if need be; return how long to wait before the next, seconds."""
        if not self._per_s:
            return 0.0
        gained = max(0.0, now - self._at) * self._per_s
        self._left = min(self._burst, self._left + gained) - units
        self._at = now
        return max(0.0, -self._left / self._per_s)

    def try_take(self, now: float) -> bool:
        """Take one unit where there is one."""
        if not self._per_s:
            return True
        gained = max(0.0, now - self._at) * self._per_s
        self._left = min(self._burst, self._left + gained)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Buckets:
    """A bucket for each key, at most `keys_max`."""

    def __init__(self, per_s: float, burst: float, keys_max: int) -> None:
        self._per_s, self._burst, self._keys_max = per_s, burst, keys_max
        self._by_key: dict[bytes, Bucket] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def of(self, key: bytes, now: float) -> Bucket:
        """Return a key's bucket."""
        bucket = self._by_key.pop(key, None) or Bucket(self._per_s, self._burst, now)
        self._by_key[key] = bucket
        if len(self._by_key) > self._keys_max:
            del self._by_key[next(iter(self._by_key))]
        return bucket

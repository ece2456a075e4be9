"""Token buckets, one for each client, in bounded memory.

Why a bucket: it lets a page's burst through and bounds the mean. The client that was seen longest
ago is forgotten first: forgetting is generous, and never costs more than `clients_max` entries.
"""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["Rates"]


class Rates:
    """Allows each client `per_minute` requests, and `burst` of them at once."""

    def __init__(self, per_minute: float, burst: int, clients_max: int) -> None:
        self._per_s = per_minute / 60.0
        self._burst = float(burst)
        self._clients_max = clients_max
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By client: tokens, and when they were counted."""

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, client: str, now: float) -> float:
        """Take one request; return 0, or how many seconds to wait for the next one."""
        if not self._per_s:
            return 0.0
        tokens, counted = self._buckets.pop(client, (self._burst, now))
        tokens = min(self._burst, tokens + max(0.0, now - counted) * self._per_s)
        wait_s = 0.0 if tokens >= 1.0 else (1.0 - tokens) / self._per_s
        self._buckets[client] = (tokens - 1.0 if not wait_s else tokens, now)
        if len(self._buckets) > self._clients_max:
            self._buckets.popitem(last=False)
        return wait_s

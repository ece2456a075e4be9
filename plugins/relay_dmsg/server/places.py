"""Places: how many of something each key has, and all keys together; given back in every case."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

__all__ = ["Places"]


class Places:
    """Counts. Zero costs nothing: a key without a place is not in memory."""

    def __init__(self, per_key_max: int, all_max: int) -> None:
        self._per_key_max, self._all_max = per_key_max, all_max
        self._of: Counter[bytes] = Counter()
        self.taken = 0

    def __len__(self) -> int:
        return len(self._of)

    def of(self, key: bytes) -> int:
        """Return how many places a key has."""
        return self._of.get(key, 0)

    def enter(self, stack: ExitStack, key: bytes) -> bool:
        """Take a place until `stack` closes; False where there is none."""
        if self.taken >= self._all_max or self.of(key) >= self._per_key_max:
            return False
        self._of[key] += 1
        self.taken += 1
        stack.callback(self._leave, key)
        return True

    def _leave(self, key: bytes) -> None:
        self.taken -= 1
        self._of[key] -= 1
        if not self._of[key]:
            del self._of[key]

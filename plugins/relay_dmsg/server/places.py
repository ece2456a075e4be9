"""Places: how many of something a key has, an address, and all together; given back in any case.

Why by address, too: keys cost nothing, so a bound for each key alone would let whoever makes enough
of them own every place there is.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Final, TypeVar

__all__ = ["Places"]

T = TypeVar("T")
HOST_SHARE: Final = 8
"""One address may have an eighth of all places."""


class Places:
    """Counts. Zero costs nothing: a key without a place is not in memory."""

    def __init__(self, per_key_max: int, all_max: int) -> None:
        self._per_key_max, self._all_max = per_key_max, all_max
        self._per_group_max = max(per_key_max, all_max // HOST_SHARE)
        self._of: Counter[bytes] = Counter()
        self._of_group: Counter[str] = Counter()
        self.taken = 0

    def __len__(self) -> int:
        return len(self._of)

    def of(self, key: bytes) -> int:
        """Return how many places a key has."""
        return self._of.get(key, 0)

    def why_not(self, key: bytes, group: str) -> str:
        """Return whose bound is in the way; empty where there is a place."""
        if self.of(key) >= self._per_key_max:
            return "of this key"
        if group and self._of_group[group] >= self._per_group_max:
            return "of this address"
        return "in all" if self.taken >= self._all_max else ""

    def enter(self, stack: ExitStack, key: bytes, group: str = "") -> bool:
        """Take a place until `stack` closes; False where there is none.

        `group` is whose bound the key's address counts on (`host_group`); empty: it has no name.
        """
        if self.why_not(key, group):
            return False
        self._of[key] += 1
        self._of_group[group] += 1
        self.taken += 1
        stack.callback(self._leave, key, group)
        return True

    def _leave(self, key: bytes, group: str) -> None:
        self.taken -= 1
        _take_one(self._of, key)
        _take_one(self._of_group, group)


def _take_one(counts: Counter[T], of: T) -> None:
    counts[of] -= 1
    if not counts[of]:
        del counts[of]

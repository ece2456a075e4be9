"""Versions that were replaced: some for each slot, and a bound for all together.

Why a version holds so little: of the blocks that it stood on it holds those that its successor no
longer does, and the rest is held by the versions after it. So the oldest of a slot goes first, and
a long history of small changes costs the changes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import NamedTuple

from skycore.model.items import StoredItem
from skycore.model.limits import ENTRY_BYTES

__all__ = ["History"]

Key = tuple[bytes, int]


class _Version(NamedTuple):
    item: StoredItem
    blocks: Sequence[bytes]
    """Those that the next version does not stand on."""
    bytes: int


class History:
    """Replaced items by slot. What is forgotten is returned: the names of blocks it held."""

    def __init__(self, versions_max: int, bytes_max: int) -> None:
        self._versions_max = versions_max
        self._bytes_max = bytes_max
        self._slots: dict[Key, deque[_Version]] = {}
        self._ages: OrderedDict[int, Key] = OrderedDict()
        """Slots by the place of each version in the change log, oldest replaced first."""
        self.bytes = 0

    @property
    def is_kept(self) -> bool:
        """Whether there is any history at all."""
        return self._versions_max > 0

    def of(self, key: Key) -> list[StoredItem]:
        """Return the versions of a slot."""
        return [version.item for version in self._slots.get(key, ())]

    def add(
        self, key: Key, old: StoredItem, blocks: Sequence[bytes], blocks_bytes: int
    ) -> list[bytes]:
        """Keep a version that was replaced."""
        size = ENTRY_BYTES + len(old.item.v) + blocks_bytes
        versions = self._slots.setdefault(key, deque())
        versions.append(_Version(old, blocks, size))
        self._ages[old.position] = key
        self.bytes += size
        gone: list[bytes] = []
        if len(versions) > self._versions_max:
            gone += self._forget_oldest(key)
        while self.bytes > self._bytes_max:
            gone += self._forget_oldest(next(iter(self._ages.values())))
        return gone

    def _forget_oldest(self, key: Key) -> Sequence[bytes]:
        versions = self._slots[key]
        oldest = versions.popleft()
        if not versions:
            del self._slots[key]
        del self._ages[oldest.item.position]
        self.bytes -= oldest.bytes
        return oldest.blocks

    def end(self, key: Key) -> list[bytes]:
        """Forget all versions of a slot."""
        gone: list[bytes] = []
        while key in self._slots:
            gone += self._forget_oldest(key)
        return gone

"""What this node itself signed, remembered: a Redis that was emptied gets it again at once.

Why in memory: full nodes that share one Redis have no store of their own behind it, and whoever
flushes it leaves nothing for anybody to read. What a node published since it began, and what of
its own it found there when it began, it can bring again, signed already (M8). What others signed
comes back from peers, mirrors and publishers.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from skycore.contracts.store import ItemKey
from skycore.errors import ItemError
from skycore.model.items import Kind, Lease, MutableItem, RankedItem
from skycore.model.limits import ENTRY_BYTES, MISSING_MAX
from skycore.model.manifest import read_manifest
from skycore.model.trie import reach

__all__ = ["OwnRecord", "OwnRecords", "tree_of"]

log = logging.getLogger(__name__)
Blocks = Mapping[bytes, bytes]
Ask = Callable[[Sequence[bytes]], Awaitable[Sequence[bytes | None]]]


@dataclass
class OwnRecord:
    """One record with all that it stands on."""

    ranked: RankedItem
    blocks: Blocks
    lease: Lease | None = None

    @property
    def until(self) -> int:
        """Unix second at which it ends."""
        return max(self.ranked.item.until, self.lease.until if self.lease else 0)

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return ENTRY_BYTES + len(self.ranked.item.v) + sum(map(len, self.blocks.values()))


async def tree_of(item: MutableItem, given: Blocks, ask: Ask) -> dict[bytes, bytes] | None:
    """Return a manifest's blocks, parents first; None where some are nowhere. Raises `ItemError`.

    Those that are not at hand are asked for, level by level.
    """
    if item.kind != Kind.MANIFEST:
        return {}
    found = dict(given)
    while True:
        names, missing = reach(read_manifest(item.v).root, found.get, MISSING_MAX)
        if not missing:
            return {name: found[name] for name in names}
        got = await ask(list(missing))
        more = {n: block for n, block in zip(missing, got, strict=True) if block is not None}
        if not more:
            return None
        found |= more


class OwnRecords:
    """Records by slot, the latest at the end; bounded in bytes, the oldest fall out first."""

    def __init__(self, own: bytes, bytes_max: int) -> None:
        self._own = own
        self._bytes_max = bytes_max
        self._records: OrderedDict[ItemKey, OwnRecord] = OrderedDict()
        self.bytes = 0
        self.fallen = 0
        """Records that there was no room to remember."""
        self.is_bringing = False
        """Another store was found in the place of the one before, and lacks them as yet."""
        self.brought = 0
        """Records that Redis had lost, and that it has again."""

    def __len__(self) -> int:
        return len(self._records)

    def is_ours(self, item: MutableItem) -> bool:
        """Tell whether this node signed an item."""
        return item.signer == self._own

    async def note(self, ranked: RankedItem, given: Blocks, ask: Ask) -> None:
        """Remember a record that Redis has; of a manifest the whole tree. Raises `StoreError`."""
        key = ItemKey(ranked.target, ranked.item_class)
        held = self._records.get(key)
        if held is not None and ranked.rank <= held.ranked.rank:
            return
        try:
            blocks = await tree_of(ranked.item, {**(held.blocks if held else {}), **given}, ask)
        except ItemError:
            blocks = None
        if blocks is None:  # it was replaced meanwhile
            return
        plain = msgspec.structs.replace(ranked, cas=None, refs=tuple(blocks))
        self._hold(key, OwnRecord(plain, blocks))

    def _hold(self, key: ItemKey, record: OwnRecord) -> None:
        self.forget([key])
        self._records[key] = record
        self.bytes += record.size
        while self.bytes > self._bytes_max and self._records:
            _, gone = self._records.popitem(last=False)
            self.bytes -= gone.size
            self.fallen += 1

    def prolong(self, lease: Lease) -> None:
        """Take note of a lease."""
        held = self._records.get(ItemKey(lease.target, lease.item_class))
        if held is not None and held.ranked.digest == lease.digest and lease.until > held.until:
            held.lease = lease

    def forget(self, keys: Sequence[ItemKey]) -> None:
        """Remember some no longer."""
        for key in keys:
            gone = self._records.pop(key, None)
            self.bytes -= gone.size if gone else 0

    def living(self, now_s: int) -> list[OwnRecord]:
        """Return what has not ended; what has is forgotten."""
        self.forget([key for key, record in self._records.items() if record.until <= now_s])
        return list(self._records.values())

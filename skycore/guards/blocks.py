"""Blocks that wait for the rest of their head.

Why on the sender's account: whoever sends half of a record has memory of ours in hand, so each
sender has a bound, all have one together, and at that bound whoever holds most gives way, never a
newcomer that holds less. Only blocks that a verified head leads to come here; they go when it is
stored or refused, when a newer one of its slot is, and after PENDING_HEAD_S at the latest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from skycore.contracts.store import ItemKey
from skycore.errors import QuotaError
from skycore.model.items import RankedItem
from skycore.model.limits import PENDING_HEAD_S

__all__ = ["PendingBlocks"]

BLOCK_COST = 128
"""What a block counts for besides its bytes: its name, and its places in dictionaries."""


@dataclass
class _Head:
    """What one sender has brought so far of one head."""

    rank: bytes
    until: float
    blocks: dict[bytes, bytes]
    bytes: int = 0


def _cost(blocks: Mapping[bytes, bytes]) -> int:
    return sum(map(len, blocks.values())) + BLOCK_COST * len(blocks)


class PendingBlocks:
    """Blocks by the head that they wait for, and by who sent them. Bounds in bytes."""

    def __init__(self, sender_bytes_max: int, bytes_max: int, own: bytes) -> None:
        self._sender_bytes_max = sender_bytes_max
        self._bytes_max = bytes_max
        self._own = own
        self._heads: OrderedDict[tuple[ItemKey, bytes], _Head] = OrderedDict()
        """By slot and sender, in order of arrival."""
        self._slots: dict[ItemKey, dict[bytes, None]] = {}
        """Who sent something for a slot."""
        self._senders: dict[bytes, int] = {}
        self.bytes = 0

    def of(self, head: RankedItem) -> Sequence[Mapping[bytes, bytes]]:
        """Return what waits for exactly this head, whoever brought it."""
        slot = ItemKey(head.target, head.item_class)
        found = (self._heads[slot, sender] for sender in self._slots.get(slot, ()))
        return [waiting.blocks for waiting in found if waiting.rank == head.rank]

    def keep(
        self, head: RankedItem, sender: bytes, blocks: Mapping[bytes, bytes], now: float
    ) -> None:
        """Keep what came of a head. Raises `QuotaError`, and then what waited stays.

        A newer head of a slot takes the place of an older one; an older one is not waited for.
        """
        self.expire(now)
        slot = ItemKey(head.target, head.item_class)
        waiting = self._heads.get((slot, sender))
        if waiting is not None and waiting.rank != head.rank:
            if waiting.rank > head.rank:
                return
            self.forget(slot, sender)
            waiting = None
        fresh = {n: b for n, b in blocks.items() if waiting is None or n not in waiting.blocks}
        if not fresh:
            return
        size = _cost(fresh)
        self._make_room(sender, size)
        if waiting is None:
            waiting = _Head(head.rank, now + PENDING_HEAD_S, {})
            self._heads[slot, sender] = waiting
            self._slots.setdefault(slot, {})[sender] = None
        waiting.blocks |= fresh
        waiting.bytes += size
        self._count(sender, size)

    def _make_room(self, sender: bytes, size: int) -> None:
        mine = self._senders.get(sender, 0)
        if sender != self._own and mine + size > self._sender_bytes_max:
            raise QuotaError(
                f"{self._sender_bytes_max} bytes of blocks of one sender wait for their heads"
            )
        while self._heads and self.bytes + size > self._bytes_max:
            largest = max(self._senders, key=self._senders.__getitem__)
            is_fair = sender == self._own or self._senders[largest] > mine + size
            if largest == sender or not is_fair:
                break
            self.forget(*next(key for key in self._heads if key[1] == largest))
        if self.bytes + size > self._bytes_max:
            raise QuotaError(f"{self._bytes_max} bytes of blocks wait for their heads")

    def _count(self, sender: bytes, size: int) -> None:
        self.bytes += size
        left = self._senders.get(sender, 0) + size
        if left:
            self._senders[sender] = left
        else:
            self._senders.pop(sender, None)

    def forget(self, slot: ItemKey, sender: bytes) -> None:
        """Let go of what one sender brought for a slot: its head was refused."""
        waiting = self._heads.pop((slot, sender), None)
        if waiting is None:
            return
        self._count(sender, -waiting.bytes)
        senders = self._slots[slot]
        del senders[sender]
        if not senders:
            del self._slots[slot]

    def settle(self, slot: ItemKey, rank: bytes) -> None:
        """Let go of what waits for this head and for older ones of its slot: it is stored."""
        for sender in list(self._slots.get(slot, ())):
            if self._heads[slot, sender].rank <= rank:
                self.forget(slot, sender)

    def expire(self, now: float) -> None:
        """Let go of what has waited long enough."""
        while self._heads:
            key, waiting = next(iter(self._heads.items()))
            if waiting.until > now:
                return
            self.forget(*key)

    def __len__(self) -> int:
        return len(self._heads)

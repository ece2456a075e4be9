"""This node's own copies of what it publishes: what Redis is filled from again.

Why some come a second later: a change that Redis has taken need not cost a commit of its own here,
thirty times a second (C30, L3). Until the next batch it is Redis' alone; what Redis has not taken
is always kept here first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anyio

from skycore.contracts.store import ItemKey, Items, PutOutcome
from skycore.errors import StoreError
from skycore.model.items import Lease, MutableItem, RankedItem, StoredItem

__all__ = ["Copies"]

FOLLOWING_MAX = 1_000
END_S = 2.0


class Copies:
    """The node's own store, through its gate, as the mirror uses it."""

    def __init__(self, items: Items, own: bytes) -> None:
        self._items = items
        self._own = own
        self._following: dict[ItemKey, MutableItem] = {}
        self._turn = anyio.Lock()
        self.uncopied = 0
        """Changes that Redis took and this node could not keep."""

    def judge(self, item: MutableItem) -> RankedItem:
        """Return the item with class and rank. Raises the `ItemError` that says why not."""
        return self._items.judge(item)

    def assemble(self, item: MutableItem, blocks: Mapping[bytes, bytes]) -> bytes:
        """Check a manifest's whole value. Raises `ItemError`s."""
        return self._items.assemble(item, blocks)

    async def keep(
        self, items: Sequence[MutableItem], blocks: Mapping[bytes, bytes]
    ) -> Sequence[PutOutcome]:
        """Keep items now; one outcome each. Raises `StoreError`."""
        given = tuple(blocks.values())
        return await self._items.admit(items, sender=self._own, blocks=given)

    def follow(self, key: ItemKey, item: MutableItem) -> None:
        """Keep an item that Redis has taken with the next batch."""
        held = self._following.pop(key, None)
        self._following[key] = item if held is None or held.seq < item.seq else held
        if len(self._following) > FOLLOWING_MAX:
            self._following.pop(next(iter(self._following)))
            self.uncopied += 1

    async def catch_up(self) -> None:
        """Keep what follows. Raises `StoreError`; then it is tried again the next time."""
        async with self._turn:
            batch = dict(self._following)
            if not batch:
                return
            await self._items.admit(tuple(batch.values()), sender=self._own)
            for key, item in batch.items():
                if self._following.get(key) is item:
                    del self._following[key]

    async def end(self) -> None:
        """Keep what follows, at the end."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(END_S):
            try:
                await self.catch_up()
            except StoreError:
                self.uncopied += len(self._following)

    async def renew(self, leases: Sequence[Lease]) -> Sequence[PutOutcome]:
        """Prolong the copies; one outcome each."""
        await self.catch_up()
        return await self._items.renew(leases, sender=self._own)

    async def find(self, key: ItemKey) -> StoredItem | None:
        """Return our copy of a slot, if it lives and is ours."""
        await self.catch_up()
        for stored in await self._items.get(key.target):
            if stored.item_class == key.item_class and stored.item.signer == self._own:
                return stored
        return None

    async def tree(self, item: MutableItem) -> Mapping[bytes, bytes]:
        """Return the blocks of a copy. Raises `MissingBlocksError`."""
        return await self._items.tree(item)

    async def page(self, low: bytes, limit: int) -> tuple[list[StoredItem], bytes | None]:
        """Return copies from a target on, and where to go on: that target is read again."""
        await self.catch_up()
        rows = await self._items.listing(None, low, b"\xff" * 32, limit)
        ours = [stored for stored in rows if stored.item.signer == self._own]
        return ours, rows[-1].target if len(rows) == limit else None

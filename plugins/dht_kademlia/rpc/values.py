"""Whole values for RPC callers, in pieces that fit an answer.

Why a version is named by its digest: a value of 16 MiB is read in many calls, and what they bring
must be one version, never a mix of two. Why a few values are kept: one that was read from other
nodes is not in our store, and putting one together anew for each piece would be quadratic.
"""

from __future__ import annotations

from collections import OrderedDict

from dht_kademlia.node import Kademlia
from skycore.errors import MissingBlocksError, SkycoreError
from skycore.model.items import StoredItem, mutable_item_target
from skycore.model.limits import TREE_BYTES_MAX

__all__ = ["PIECE_MAX", "WholeValues"]

PIECE_MAX = 1024 * 1024
KEPT_MAX = 4
KEPT_BYTES_MAX = 2 * TREE_BYTES_MAX
VERSIONS_MAX = 64


class WholeValues:
    """Finds the value of a version. Holds a few, those that were asked for last."""

    def __init__(self, node: Kademlia) -> None:
        self._node = node
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()

    def keep(self, stored: StoredItem) -> None:
        """Remember the value of what was just read, if it was put together."""
        if stored.assembled is not None:
            self._keep(stored.digest, stored.assembled)

    async def find(self, subject: bytes, salt: bytes, digest: bytes) -> bytes:
        """Return the value of a version. Raises `SkycoreError` where it is not here any more."""
        kept = self._kept.get(digest)
        if kept is not None:
            self._kept.move_to_end(digest)
            return kept
        target = mutable_item_target(subject, salt)
        items = self._node.items
        versions = [*await items.get(target), *await items.history(target, VERSIONS_MAX)]
        for stored in versions:
            if stored.digest == digest:
                return await self._value(stored)
        raise SkycoreError(
            "this version is not here any more", hint="read the record again (dht.get)"
        )

    async def _value(self, stored: StoredItem) -> bytes:
        try:
            value = await self._node.items.value(stored) or b""
        except MissingBlocksError as gone:
            raise SkycoreError(
                "the blocks of this version are not here any more",
                hint="a store keeps those of replaced versions as far as its settings allow",
            ) from gone
        self._keep(stored.digest, value)
        return value

    def _keep(self, digest: bytes, value: bytes) -> None:
        self._kept[digest] = value
        self._kept.move_to_end(digest)
        while len(self._kept) > KEPT_MAX or sum(map(len, self._kept.values())) > KEPT_BYTES_MAX:
            self._kept.popitem(last=False)

"""Values in blocks: looking for the blocks of a tree, and putting its value together.

Why level by level: a store answers many hashes in one turn, and only a block says what is below
it. Why by hash alone: a tree's blocks never change, so a reader gets one generation of a record or
another, whatever is written meanwhile, and never a mix (C16).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from skycore.contracts.namespace import Namespaces
from skycore.contracts.runtime import Workers
from skycore.contracts.store import ItemStore
from skycore.errors import MissingBlocksError
from skycore.model.items import Kind, MutableItem
from skycore.model.limits import TREE_DEPTH_MAX
from skycore.model.trie import children, harvest, read_manifest

__all__ = ["ASKED_MAX", "INLINE_BYTES_MAX", "Trees"]

INLINE_BYTES_MAX = 64 * 1024
"""Values up to this size are put together on the event loop, larger ones in a thread."""
ASKED_MAX = 1_000
"""Hashes that a store is asked for in one turn."""


class Trees:
    """The trees of what is stored, read and put together."""

    def __init__(self, store: ItemStore, namespaces: Namespaces, workers: Workers) -> None:
        self._store = store
        self._namespaces = namespaces
        self._workers = workers

    async def collect(self, item: MutableItem) -> dict[bytes, bytes]:
        """Return all blocks of a manifest, parents first. Raises `MissingBlocksError`."""
        if item.kind != Kind.MANIFEST:
            return {}
        found: dict[bytes, bytes] = {}
        row = [read_manifest(item.v).root]
        for _ in range(TREE_DEPTH_MAX + 1):
            following: dict[bytes, None] = {}
            for start in range(0, len(row), ASKED_MAX):
                names = row[start : start + ASKED_MAX]
                for name, block in zip(names, await self._store.blocks(names), strict=True):
                    if block is None:
                        raise MissingBlocksError(f"block {name.hex()[:16]} is not here any more")
                    found[name] = block
                    following.update(dict.fromkeys(children(block)))
            row = [name for name in following if name not in found]
        return found

    async def value(self, item: MutableItem) -> bytes | None:
        """Return an item's whole value; None of a tombstone. Raises `MissingBlocksError`."""
        if item.kind != Kind.MANIFEST:
            return item.v if item.kind == Kind.VALUE else None
        manifest = read_manifest(item.v)
        work = partial(harvest, manifest, (await self.collect(item)).get)
        return work() if manifest.bytes <= INLINE_BYTES_MAX else await self._workers.run(work)

    def assemble(self, item: MutableItem, blocks: Mapping[bytes, bytes]) -> bytes:
        """Put a manifest's value together from these blocks alone, checking all of it.

        Raises `MissingBlocksError`, `NamespaceError`.
        """
        manifest = read_manifest(item.v)
        self._namespaces.check_tree(item.salt, item.subject, manifest, blocks.get)
        return harvest(manifest, blocks.get)

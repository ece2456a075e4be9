"""Giving out blocks: those asked for, and what they lead to, as far as it fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import anyio.lowlevel

from dht_kademlia.core.crates import below
from skycore.contracts.store import Items
from skycore.errors import NamespaceError
from skycore.model.items import Kind, MutableItem
from skycore.model.trie import read_manifest

__all__ = ["blocks_below", "blocks_of"]

READ_AT_ONCE: Final = 128


async def blocks_below(
    items: Items, hashes: Sequence[bytes], *, deep: bool, bytes_max: int
) -> list[bytes]:
    """Return blocks that are here, in the order asked, then (`deep`) level by level below them."""
    found: list[bytes] = []
    size = 0
    seen = set(hashes)
    row = list(dict.fromkeys(hashes))
    while row:
        following: list[bytes] = []
        for start in range(0, len(row), READ_AT_ONCE):
            for block in await items.blocks(row[start : start + READ_AT_ONCE]):
                if block is None:
                    continue
                size += len(block)
                if size > bytes_max:
                    return found
                found.append(block)
                if deep:
                    fresh = [name for name in below(block) if name not in seen]
                    seen.update(fresh)
                    following += dict.fromkeys(fresh)
            await anyio.lowlevel.checkpoint()
        row = following
    return found


async def blocks_of(items: Items, held: Sequence[MutableItem], bytes_max: int) -> list[bytes]:
    """Return the blocks of the manifests among some items, parents first, the best item's first."""
    found: list[bytes] = []
    for item in held:
        if item.kind != Kind.MANIFEST:
            continue
        try:
            root = read_manifest(item.v).root
        except NamespaceError:
            continue
        left = bytes_max - sum(map(len, found))
        found += await blocks_below(items, (root,), deep=True, bytes_max=left)
    return found

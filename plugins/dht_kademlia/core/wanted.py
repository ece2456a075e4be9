"""Which of the blocks that a peer sent are those asked for, and which way a value goes on.

Why strict: a peer may send anything, and what nobody asked for must not be held, hashed twice or
handed on. Blocks are believed by their hash alone; what they mean the gate says. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dht_kademlia.core.crates import below
from skycore.model.limits import BLOCK_MAX, BLOCKS_BYTES_MAX
from skycore.model.trie import block_id

__all__ = ["is_full", "pick"]


def pick(
    asked: Iterable[bytes],
    blocks: Sequence[bytes],
    *,
    deep: bool,
    bytes_max: int = BLOCKS_BYTES_MAX,
) -> dict[bytes, bytes]:
    """Return by hash those blocks that were asked for or, `deep`, stand below such a one.

    Blocks come parents first; more than a reply may carry are not looked at.
    """
    wanted = set(asked)
    found: dict[bytes, bytes] = {}
    size = 0
    for block in blocks:
        size += len(block)
        if size > bytes_max or len(block) > BLOCK_MAX:
            break
        name = block_id(block)
        if name not in wanted or name in found:
            continue
        found[name] = block
        if deep:
            wanted.update(below(block))
    return found


def is_full(blocks: Sequence[bytes]) -> bool:
    """Tell whether a reply had no room for one more block."""
    return sum(map(len, blocks)) + 2 * BLOCK_MAX > BLOCKS_BYTES_MAX

"""Trees of blocks: large values as a manifest's root hash and the blocks below it.

Why a hash trie for a set: its shape depends on its content alone, so whoever plants the same set
gets the same blocks, and one changed entry of a thousand changes one leaf and the few blocks above
it (after Merkle search trees and prolly trees). A plain value is cut into equal pieces. Everything
that is read was written by strangers: depth, counts and bytes are bounded, and only the one shape
that planting would have given is taken. Layouts and rules: docs/protocols/blocks.md.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import groupby, pairwise
from typing import Final, NamedTuple

import msgspec

from skycore.errors import NamespaceError
from skycore.model.blocks import (
    BlockKind,
    Child,
    Entry,
    block_id,
    check_entry,
    entry_bytes,
    kind_of,
    make_inner,
    make_leaf,
    read_inner,
    read_leaf,
)
from skycore.model.limits import LEAF_MAX, TREE_DEPTH_MAX, TREE_STORED_MAX
from skycore.model.manifest import (
    Get,
    Manifest,
    Tree,
    check_size,
    get_block,
    make_tree,
    read_manifest,
)
from skycore.model.pieces import check_value, plant_value

__all__ = [
    "Manifest",
    "Proven",
    "Sum",
    "Tree",
    "assembled_bytes",
    "block_id",
    "check_set",
    "check_value",
    "children",
    "harvest",
    "is_set",
    "plant_set",
    "plant_value",
    "reach",
    "read_manifest",
]

_DIGITS: Final = "0123456789abcdef"


class Sum(NamedTuple):
    """What is below a block of a set, itself included."""

    entries: int
    bytes: int
    """Of the entries as leaves hold them: what decides whether a leaf splits."""
    value: int
    """Of the entries as the assembled value holds them."""
    stored: int
    """Of the blocks."""


class Proven:
    """Subtrees of sets that were checked before, so that one change costs the blocks above it.

    Bounded: the ones longest unused are forgotten (some 430 bytes each).
    """

    def __init__(self, entries_max: int = 32_768) -> None:
        self._entries_max = entries_max
        self._sums: OrderedDict[tuple[bytes, str, bytes], Sum] = OrderedDict()

    def get(self, scope: bytes, path: str, block: bytes) -> Sum | None:
        """Return what is below a block that was found right at this path."""
        found = self._sums.get((scope, path, block))
        if found is not None:
            self._sums.move_to_end((scope, path, block))
        return found

    def add(self, scope: bytes, path: str, block: bytes, below: Sum) -> None:
        """Remember a block that was found right, with all that is below it."""
        self._sums[scope, path, block] = below
        while len(self._sums) > self._entries_max:
            self._sums.popitem(last=False)

    def __len__(self) -> int:
        return len(self._sums)


def children(block: bytes) -> tuple[bytes, ...]:
    """Return the ids below a block: () for a leaf or piece. Raises `NamespaceError`."""
    kind, _ = kind_of(block)
    return tuple(child.id for child in read_inner(block)) if kind is BlockKind.INNER else ()


def is_set(block: bytes) -> bool:
    """Tell by its root block whether a tree is that of a set. Raises `NamespaceError`."""
    return kind_of(block)[1] is BlockKind.LEAF


def _head(version: int, count: int) -> bytes:
    """Return what stands before the entries in `[version, [entry…]]`, MessagePack."""
    if count < 16:
        length = bytes((0x90 | count,))
    elif count < 2**16:
        length = b"\xdc" + count.to_bytes(2, "big")
    else:
        length = b"\xdd" + count.to_bytes(4, "big")
    return b"\x92" + msgspec.msgpack.encode(version) + length


def assembled_bytes(version: int, count: int, entries: int) -> int:
    """Return the size of a set put together, whose entries have `entries` bytes in all."""
    return len(_head(version, count)) + entries


# --- planting ------------------------------------------------------------------------------------


def plant_set(version: int, entries: Sequence[tuple[bytes, bytes]], size: int) -> Tree:
    """Return the tree of a set: (key, encoded entry) in any order; `size` of it inline, bytes.

    Raises `NamespaceError` for no entry, a key twice or another size, `ValueTooBigError`.
    """
    found = [(hashlib.sha256(key).hexdigest(), Entry(key, value)) for key, value in entries]
    found.sort()
    if any(one[1].key == other[1].key for one, other in pairwise(found)):
        raise NamespaceError("a set with one key twice")
    value_bytes = assembled_bytes(version, len(found), sum(len(e.value) for _, e in found))
    if not found or value_bytes != size:
        raise NamespaceError(f"a set of {len(found)} entries has {value_bytes} bytes, not {size}")
    for _, entry in found:
        check_entry(entry)
    blocks: list[tuple[bytes, bytes]] = []
    check_size(size)
    root = _plant(found, 0, blocks)
    return make_tree(Manifest(version, len(found), size, root.id), blocks)


def _plant(found: list[tuple[str, Entry]], depth: int, blocks: list[tuple[bytes, bytes]]) -> Child:
    """Plant entries in order of their paths, whose first `depth` digits are the same."""
    size = sum(entry_bytes(entry) for _, entry in found)
    if len(found) == 1 or size <= LEAF_MAX:
        block = make_leaf(sorted(entry for _, entry in found))
    elif depth == TREE_DEPTH_MAX:
        raise NamespaceError(f"a set with {TREE_DEPTH_MAX} digits of too many keys' hashes equal")
    else:
        below = []
        for digit, part in groupby(found, key=lambda one: one[0][depth]):
            below.append(_plant(list(part), depth + 1, blocks)._replace(digit=int(digit, 16)))
        block = make_inner(BlockKind.LEAF, below)
    blocks.append((block_id(block), block))
    return Child(0, blocks[-1][0], len(found), size)


# --- reading -------------------------------------------------------------------------------------


def reach(root: bytes, get: Get, missing_max: int) -> tuple[list[bytes], list[bytes]]:
    """Return the blocks of a tree that are there, parents first, and the next that are missing.

    Each id once. Only how blocks hang together is looked at; `get` gives them by their true ids,
    and `check_set` or `check_value` judge them. Raises `NamespaceError` over a bound.
    """
    refs: list[bytes] = []
    missing: list[bytes] = []
    seen = {root}
    stored = 0
    row = [root]
    for _ in range(TREE_DEPTH_MAX + 1):
        following = []
        for name in row:
            block = get(name)
            if block is None:
                if len(missing) < missing_max:
                    missing.append(name)
                continue
            refs.append(name)
            stored += len(block)
            if stored > TREE_STORED_MAX:
                raise NamespaceError(f"the blocks of a value have over {TREE_STORED_MAX} bytes")
            fresh = [child for child in dict.fromkeys(children(block)) if child not in seen]
            seen.update(fresh)
            following += fresh
        row = following
    if row:
        raise NamespaceError(f"a tree deeper than {TREE_DEPTH_MAX}")
    return refs, missing


class _Set:
    """One walk over the tree of a set."""

    def __init__(
        self,
        get: Get,
        leaf: Callable[[Sequence[Entry]], None] | None,
        known: Proven | None,
        scope: bytes,
    ) -> None:
        self._get = get
        self._leaf = leaf
        self._known = known
        self._scope = scope

    def walk(self, path: str, name: bytes) -> Sum:
        """Return what is below a block, after all of it was found right."""
        known = self._known.get(self._scope, path, name) if self._known is not None else None
        if known is not None:
            return known
        block = get_block(name, self._get)
        kind, of = kind_of(block)
        if of is not BlockKind.LEAF:
            raise NamespaceError("the tree of a set with a piece of a plain value")
        found = self._inner(path, block) if kind is BlockKind.INNER else self._entries(path, block)
        if found.stored > TREE_STORED_MAX:
            raise NamespaceError(f"the blocks of a value have over {TREE_STORED_MAX} bytes")
        if self._known is not None:
            self._known.add(self._scope, path, name, found)
        return found

    def _entries(self, path: str, block: bytes) -> Sum:
        entries = read_leaf(block)
        size = sum(map(entry_bytes, entries))
        if len(entries) > 1 and size > LEAF_MAX:
            raise NamespaceError(f"a leaf with {size} bytes of entries; it splits at {LEAF_MAX}")
        for entry in entries:
            if not hashlib.sha256(entry.key).hexdigest().startswith(path):
                raise NamespaceError("an entry of a set at a path that is not its key's")
        if self._leaf is not None:
            self._leaf(entries)
        return Sum(len(entries), size, sum(len(entry.value) for entry in entries), len(block))

    def _inner(self, path: str, block: bytes) -> Sum:
        if len(path) == TREE_DEPTH_MAX:
            raise NamespaceError(f"a tree deeper than {TREE_DEPTH_MAX}")
        below = read_inner(block)
        count, size = sum(child.entries for child in below), sum(child.bytes for child in below)
        if count < 2 or size <= LEAF_MAX:
            raise NamespaceError("a block is split whose entries fit in one leaf")
        value, stored = 0, len(block)
        for child in below:
            found = self.walk(path + _DIGITS[child.digit], child.id)
            if (found.entries, found.bytes) != (child.entries, child.bytes):
                raise NamespaceError("a block says another count or size than is below it")
            value += found.value
            stored += found.stored
        return Sum(count, size, value, stored)


def check_set(
    manifest: Manifest,
    get: Get,
    leaf: Callable[[Sequence[Entry]], None] | None = None,
    known: Proven | None = None,
    scope: bytes = b"",
) -> None:
    """Check the whole tree of a set; `leaf` is given the entries of each leaf, in order of keys.

    Subtrees that `known` has under this scope are believed and not asked for. Raises
    `NamespaceError`, `MissingBlocksError`.
    """
    found = _Set(get, leaf, known, scope).walk("", manifest.root)
    size = assembled_bytes(manifest.version, found.entries, found.value)
    if (manifest.count, manifest.bytes) != (found.entries, size):
        raise NamespaceError(
            f"a manifest says {manifest.count} entries and {manifest.bytes} bytes; "
            f"there are {found.entries} and {size}"
        )


def harvest(manifest: Manifest, get: Get) -> bytes:
    """Return the value put together, checked in all that needs no schema.

    Byte for byte what stood inline if it were smaller. Raises `NamespaceError`,
    `MissingBlocksError`.
    """
    if not is_set(get_block(manifest.root, get)):
        return check_value(manifest, get)
    entries: list[Entry] = []
    check_set(manifest, get, entries.extend)
    entries.sort()
    values = [entry.value for entry in entries]
    return b"".join([_head(manifest.version, len(values)), *values])

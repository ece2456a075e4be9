"""Manifests: what an item says whose value stands in blocks (docs/protocols/blocks.md).

Why so little: the root's hash stands for all of the content, and the rest lets a reader say no
before it has fetched anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from skycore.errors import MissingBlocksError, NamespaceError, ValueTooBigError
from skycore.model.blocks import block_id
from skycore.model.limits import TREE_BYTES_MAX, TREE_STORED_MAX

__all__ = ["Get", "Manifest", "Tree", "check_size", "get_block", "make_tree", "read_manifest"]

Bytes = bytes
Get = Callable[[bytes], bytes | None]
"""Where blocks come from, by id; None for one that is not there."""
_VERSION_MAX: Final = 2**32 - 1


class Manifest(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The value of a manifest item: what stands in blocks, and where they begin."""

    version: int
    """Of the schema; 0 under a salt that the publisher had no schema for."""
    count: int
    """Entries of a set; 1 for a plain value."""
    bytes: int
    """Of the whole value put together, as it would stand inline."""
    root: Bytes


class Tree(NamedTuple):
    """A planted value."""

    manifest: bytes
    """Encoded: the `v` of the item."""
    blocks: dict[bytes, bytes]
    """By id, parents first."""


_manifest = msgspec.msgpack.Decoder(Manifest)


def read_manifest(v: bytes) -> Manifest:
    """Return the manifest that an item's value is. Raises `NamespaceError`."""
    try:
        manifest = _manifest.decode(v)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as bad:
        raise NamespaceError(f"not a manifest: {bad}") from bad
    if msgspec.msgpack.encode(manifest) != v:
        raise NamespaceError("not a manifest: not in its one encoding")
    if not 0 <= manifest.version <= _VERSION_MAX or len(manifest.root) != 32:
        raise NamespaceError("not a manifest: its version or its root is none")
    if not 1 <= manifest.bytes <= TREE_BYTES_MAX or not 1 <= manifest.count <= manifest.bytes:
        raise NamespaceError(
            f"a manifest of {manifest.count} entries in {manifest.bytes} bytes; "
            f"it has at most {TREE_BYTES_MAX} bytes"
        )
    return manifest


def check_size(size: int) -> None:
    """Check the size of a whole value, bytes. Raises `ValueTooBigError`."""
    if size > TREE_BYTES_MAX:
        raise ValueTooBigError(
            f"a value has {TREE_BYTES_MAX} bytes at most, this has {size}",
            hint="nothing of it was published",
        )


def make_tree(manifest: Manifest, blocks: list[tuple[bytes, bytes]]) -> Tree:
    """Return a tree of blocks that stand children first. Raises `ValueTooBigError`."""
    by_id = dict(reversed(blocks))  # children were made first
    stored = sum(map(len, by_id.values()))
    if stored > TREE_STORED_MAX:
        raise ValueTooBigError(
            f"the blocks of a value have {TREE_STORED_MAX} bytes at most, these have {stored}",
            hint="nothing of it was published; larger entries take less beside them",
        )
    return Tree(msgspec.msgpack.encode(manifest), by_id)


def get_block(name: bytes, get: Get) -> bytes:
    """Return a block that is what its name says. `MissingBlocksError`, `NamespaceError`."""
    block = get(name)
    if block is None:
        raise MissingBlocksError(f"block {name.hex()[:16]} is not here")
    if block_id(block) != name:
        raise NamespaceError(f"block {name.hex()[:16]} is not what its hash says")
    return block

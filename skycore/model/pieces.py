"""Plain values in blocks: equal pieces, and as few levels above them as can be.

Why the shape is checked from the top: the size says what it must be, so a hostile tree is refused
where it first differs, and nothing is walked that the size does not pay for.
"""

from __future__ import annotations

from skycore.errors import NamespaceError
from skycore.model.blocks import (
    BlockKind,
    Child,
    block_id,
    kind_of,
    make_inner,
    make_piece,
    read_inner,
    read_piece,
)
from skycore.model.limits import LEAF_MAX, TREE_CHILDREN_MAX
from skycore.model.manifest import Get, Manifest, Tree, check_size, get_block, make_tree

__all__ = ["check_value", "plant_value"]


def plant_value(value: bytes, version: int = 0) -> Tree:
    """Return the tree of a plain value. Raises `ValueTooBigError`, `NamespaceError` for nothing."""
    if not value:
        raise NamespaceError("nothing cannot stand in blocks")
    check_size(len(value))
    blocks: list[tuple[bytes, bytes]] = []
    row = []
    for start in range(0, len(value), LEAF_MAX):
        data = value[start : start + LEAF_MAX]
        block = make_piece(data)
        blocks.append((block_id(block), block))
        row.append(Child(0, blocks[-1][0], 1, len(data)))
    while len(row) > 1:
        above = []
        for start in range(0, len(row), TREE_CHILDREN_MAX):
            below = row[start : start + TREE_CHILDREN_MAX]
            block = make_inner(
                BlockKind.PIECE, [child._replace(digit=i) for i, child in enumerate(below)]
            )
            blocks.append((block_id(block), block))
            count, size = sum(c.entries for c in below), sum(c.bytes for c in below)
            above.append(Child(0, blocks[-1][0], count, size))
        row = above
    return make_tree(Manifest(version, 1, len(value), row[0].id), blocks)


def check_value(manifest: Manifest, get: Get) -> bytes:
    """Check the whole tree of a plain value, and return the value.

    Raises `NamespaceError`, `MissingBlocksError`.
    """
    if manifest.count != 1:
        raise NamespaceError("a plain value is one, whatever its manifest says")
    span, parts = LEAF_MAX, list[bytes]()
    while span < manifest.bytes:
        span *= TREE_CHILDREN_MAX
    _pieces(
        Child(0, manifest.root, -(-manifest.bytes // LEAF_MAX), manifest.bytes), span, get, parts
    )
    return b"".join(parts)


def _pieces(node: Child, span: int, get: Get, parts: list[bytes]) -> None:
    """Collect the pieces below a block whose size, and so its shape, is known."""
    block = get_block(node.id, get)
    wanted = (BlockKind.INNER if span > LEAF_MAX else BlockKind.PIECE, BlockKind.PIECE)
    if kind_of(block) != wanted:
        raise NamespaceError("the tree of a plain value is not of the shape that its size gives")
    if span == LEAF_MAX:
        parts.append(read_piece(block))
        if len(parts[-1]) != node.bytes:
            raise NamespaceError(f"a piece of {len(parts[-1])} bytes where {node.bytes} belong")
        return
    span //= TREE_CHILDREN_MAX
    below = read_inner(block)
    if len(below) != -(-node.bytes // span):
        raise NamespaceError("the tree of a plain value is not of the shape that its size gives")
    left = node.bytes
    for index, child in enumerate(below):
        size = min(span, left)
        if (child.digit, child.entries, child.bytes) != (index, -(-size // LEAF_MAX), size):
            raise NamespaceError("a block says another count or size than is below it")
        _pieces(child, span, get, parts)
        left -= size

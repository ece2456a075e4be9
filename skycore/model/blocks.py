"""Blocks: the pieces that a large value is stored and sent in (docs/protocols/blocks.md).

Why a first byte that says what it is: a node walks and keeps the tree of a namespace that it has
never heard of. Why keys stand in a leaf: they decide an entry's path and place, so both are checked
without the schema. A block is content-addressed: its name is its SHA-256. Layouts:

```
inner  0 ‖ of u8 ‖ per child: digit u8 ‖ id (32) ‖ count u32 ‖ bytes u32
leaf   1 ‖ per entry: key length u16 ‖ key ‖ entry length u16 ‖ entry     (0xffff: the entry itself)
piece  2 ‖ bytes
```
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from skycore.errors import NamespaceError, ValueTooBigError
from skycore.model.limits import BLOCK_MAX, SET_CHILDREN_MAX, TREE_CHILDREN_MAX

__all__ = [
    "ENTRY_MAX",
    "BlockKind",
    "Child",
    "Entry",
    "block_id",
    "check_entry",
    "entry_bytes",
    "kind_of",
    "make_inner",
    "make_leaf",
    "make_piece",
    "read_inner",
    "read_leaf",
    "read_piece",
]

_CHILD = struct.Struct(">B32sII")
_U16 = struct.Struct(">H")
_KEY_IS_ENTRY = b"\xff\xff"
_LENGTHS = 4
"""Bytes of an entry's two lengths."""
ENTRY_MAX: Final = BLOCK_MAX - 1 - _LENGTHS
"""Bytes of an entry and its key together, at most."""


class BlockKind(IntEnum):
    """The first byte of a block."""

    INNER = 0
    LEAF = 1
    """Entries of a set."""
    PIECE = 2
    """A stretch of a plain value."""


class Child(NamedTuple):
    """What an inner block says of a child: where it hangs, its name, and what is below it."""

    digit: int
    id: bytes
    entries: int
    """Those of a set, pieces of a plain value."""
    bytes: int
    """Of a set: of the entries as leaves hold them, `entry_bytes` each. Else of the value."""


class Entry(NamedTuple):
    """An entry of a set: what tells it apart, and its MessagePack."""

    key: bytes
    value: bytes


def block_id(block: bytes) -> bytes:
    """Return a block's name: SHA256, 32 bytes."""
    return hashlib.sha256(block).digest()


def entry_bytes(entry: Entry) -> int:
    """Return what an entry takes in a leaf."""
    return _LENGTHS + len(entry.value) + (0 if entry.key == entry.value else len(entry.key))


def kind_of(block: bytes) -> tuple[BlockKind, BlockKind]:
    """Return what a block is, and of what its tree consists: LEAF or PIECE. `NamespaceError`."""
    if not 2 <= len(block) <= BLOCK_MAX:
        raise NamespaceError(f"a block of {len(block)} bytes; it has 2 to {BLOCK_MAX}")
    kind, of = block[0], block[1] if block[0] == BlockKind.INNER else block[0]
    if kind > BlockKind.PIECE or of not in (BlockKind.LEAF, BlockKind.PIECE):
        raise NamespaceError(f"a block of unknown kind {kind} of {of}")
    return BlockKind(kind), BlockKind(of)


def make_inner(of: BlockKind, children: Iterable[Child]) -> bytes:
    """Return an inner block."""
    return bytes((BlockKind.INNER, of)) + b"".join(_CHILD.pack(*child) for child in children)


def read_inner(block: bytes) -> list[Child]:
    """Return the children of an inner block, whose kind is known. Raises `NamespaceError`."""
    most = SET_CHILDREN_MAX if block[1] == BlockKind.LEAF else TREE_CHILDREN_MAX
    count, rest = divmod(len(block) - 2, _CHILD.size)
    if rest or not 1 <= count <= most:
        raise NamespaceError(f"an inner block of {len(block)} bytes has not 1 to {most} children")
    children = [Child(*fields) for fields in _CHILD.iter_unpack(memoryview(block)[2:])]
    last = -1
    for child in children:
        if not last < child.digit < most:
            raise NamespaceError("the children of a block are not in order, each once")
        if not child.entries or not child.bytes:
            raise NamespaceError("a child with nothing below it")
        last = child.digit
    return children


def make_leaf(entries: Iterable[Entry]) -> bytes:
    """Return a leaf of entries that stand in order of their keys and fit (`check_entry`)."""
    parts = [bytes((BlockKind.LEAF,))]
    for key, value in entries:
        if key == value:
            parts += (_KEY_IS_ENTRY, _U16.pack(len(value)), value)
        else:
            parts += (_U16.pack(len(key)), key, _U16.pack(len(value)), value)
    return b"".join(parts)


def read_leaf(block: bytes) -> Sequence[Entry]:
    """Return the entries of a leaf, whose kind is known. Raises `NamespaceError`.

    They stand in order of their keys, each once; a key that is the entry itself is not spelled out.
    """
    entries: list[Entry] = []
    at, end, last = 1, len(block), None
    while at < end:
        is_itself = block[at : at + 2] == _KEY_IS_ENTRY
        key, at = (b"", at + 2) if is_itself else _take(block, at)
        value, at = _take(block, at)
        if is_itself:
            key = value
        elif key == value:
            raise NamespaceError("a leaf spells out a key that is the entry itself")
        if last is not None and key <= last:
            raise NamespaceError("the entries of a leaf are not in order of their keys, each once")
        last = key
        entries.append(Entry(key, value))
    return entries


def _take(block: bytes, at: int) -> tuple[bytes, int]:
    """Return the bytes behind a length at this place, and the place after them."""
    start = at + 2
    if start > len(block):
        raise NamespaceError("a leaf ends inside an entry")
    end = start + _U16.unpack_from(block, at)[0]
    if end > len(block):
        raise NamespaceError("a leaf ends inside an entry")
    return block[start:end], end


def check_entry(entry: Entry) -> None:
    """Check that an entry fits into a block. Raises `ValueTooBigError`."""
    size = entry_bytes(entry) - _LENGTHS
    if size > ENTRY_MAX:
        raise ValueTooBigError(
            f"an entry of a set has {ENTRY_MAX} bytes at most with its key, this has {size}",
            hint="nothing of it was published",
        )


def make_piece(data: bytes) -> bytes:
    """Return a piece of a plain value."""
    return bytes((BlockKind.PIECE,)) + data


def read_piece(block: bytes) -> bytes:
    """Return the bytes of a piece, whose kind is known."""
    return block[1:]

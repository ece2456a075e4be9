"""Trees that nobody planted: refused by name, in bounded work."""

from __future__ import annotations

import contextlib
import hashlib
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.errors import MissingBlocksError, NamespaceError
from skycore.model import trie
from skycore.model.blocks import (
    BlockKind,
    Child,
    Entry,
    block_id,
    entry_bytes,
    make_inner,
    make_leaf,
    make_piece,
    read_inner,
    read_leaf,
)
from skycore.model.limits import BLOCK_MAX, TREE_BYTES_MAX, TREE_DEPTH_MAX
from skycore.model.trie import (
    Manifest,
    assembled_bytes,
    check_set,
    children,
    harvest,
    plant_set,
    plant_value,
    reach,
    read_manifest,
)

LEAF, PIECE = BlockKind.LEAF, BlockKind.PIECE
RNG = random.Random(0)
ENTRIES = [Entry(RNG.randbytes(16), b"\xc4\xee" + RNG.randbytes(238)) for _ in range(60)]


def digit(entry, depth=0):
    return int(hashlib.sha256(entry.key).hexdigest()[depth], 16)


class Forge:
    """Blocks made by hand."""

    def __init__(self):
        self.blocks = {}

    def keep(self, block):
        self.blocks[block_id(block)] = block
        return block_id(block)

    def leaf(self, entries, at=0, **lies):
        name = self.keep(make_leaf(entries))
        child = Child(at, name, len(entries), sum(map(entry_bytes, entries)))
        return child._replace(**lies)

    def inner(self, below, at=0, of=LEAF):
        name = self.keep(make_inner(of, below))
        return Child(at, name, sum(c.entries for c in below), sum(c.bytes for c in below))

    def set(self, entries, split=None):
        """Return the children of the root of a set, split once, as planting does it."""
        rows = {}
        for entry in sorted(entries):
            rows.setdefault(digit(entry), []).append(entry)
        return [self.leaf(rows[d], d) for d in sorted(rows)]

    def manifest(self, root, entries, **lies):
        size = assembled_bytes(1, len(entries), sum(len(e.value) for e in entries))
        return msgspec.structs.replace(Manifest(1, len(entries), size, root.id), **lies)

    def refused(self, manifest, match):
        with pytest.raises(NamespaceError, match=match):
            harvest(manifest, self.blocks.get)


@pytest.fixture
def forge():
    return Forge()


def test_what_the_forge_makes_is_right(forge):
    """Otherwise nothing below shows anything."""
    root = forge.inner(forge.set(ENTRIES))
    manifest = forge.manifest(root, ENTRIES)
    planted = plant_set(1, ENTRIES, manifest.bytes)
    assert read_manifest(planted.manifest) == manifest
    assert planted.blocks == forge.blocks


def test_a_leaf_that_should_have_been_split(forge):
    few = sorted(ENTRIES[:20])
    root = forge.leaf(few)
    forge.refused(forge.manifest(root, few), "splits at 4096")


def test_a_block_that_should_not_have_been_split(forge):
    few = ENTRIES[:10]
    forge.refused(forge.manifest(forge.inner(forge.set(few)), few), "fit in one leaf")


def test_an_inner_block_with_one_child_where_a_leaf_would_do(forge):
    one = ENTRIES[:1]
    forge.refused(forge.manifest(forge.inner(forge.set(one)), one), "fit in one leaf")
    big = [Entry(b"k", bytes(5_000))]
    forge.refused(forge.manifest(forge.inner(forge.set(big)), big), "fit in one leaf")


def test_an_entry_at_another_path(forge):
    below = forge.set(ENTRIES)
    free = next(n for n in range(16) if n != below[0].digit)
    rest = [child for child in below if child.digit != free]
    moved = sorted([rest[0]._replace(digit=free), *rest[1:]])
    gone = [e for e in ENTRIES if digit(e) == free]
    held = [e for e in ENTRIES if e not in gone]
    forge.refused(forge.manifest(forge.inner(moved), held), "not its key's|in order")


def test_an_entry_out_of_order_or_twice(forge):
    two = sorted(ENTRIES[:2])
    for entries in (two[::-1], [two[0], two[0]]):
        forge.refused(forge.manifest(forge.leaf(entries), entries), "in order of their keys")


def test_a_key_that_is_spelled_out_though_it_is_the_entry(forge):
    block = b"\x01" + b"\x00\x01\x05" + b"\x00\x01\x05"
    with pytest.raises(NamespaceError, match="spells out"):
        read_leaf(block)
    assert read_leaf(b"\x01\xff\xff\x00\x01\x05") == [Entry(b"\x05", b"\x05")]


@pytest.mark.parametrize("lie", [{"entries": 99}, {"entries": 1}, {"bytes": 1}, {"bytes": 4_000}])
def test_counts_and_bytes_that_lie(forge, lie):
    below = forge.set(ENTRIES)
    below[3] = below[3]._replace(**lie)
    manifest = forge.manifest(forge.inner(below), ENTRIES)
    forge.refused(manifest, "another count or size")


@pytest.mark.parametrize("lie", [{"count": 61}, {"bytes": 5_000}, {"bytes": TREE_BYTES_MAX}])
def test_a_manifest_that_lies(forge, lie):
    root = forge.inner(forge.set(ENTRIES))
    forge.refused(forge.manifest(root, ENTRIES, **lie), "a manifest says")


def test_another_version_is_another_size_or_another_manifest(forge):
    root = forge.inner(forge.set(ENTRIES))
    forge.refused(forge.manifest(root, ENTRIES, version=300), "a manifest says")


def test_children_out_of_order_twice_or_too_many(forge):
    below = forge.set(ENTRIES)
    for wrong in (below[::-1], [below[0], *below], [*below, below[-1]._replace(digit=16)]):
        root = forge.inner(wrong)
        forge.refused(forge.manifest(root, ENTRIES), "in order, each once|children")


def test_a_tree_of_both_kinds(forge):
    below = forge.set(ENTRIES)
    below[2] = below[2]._replace(id=forge.keep(make_piece(b"x" * below[2].bytes)))
    forge.refused(forge.manifest(forge.inner(below), ENTRIES), "piece of a plain value")
    value = plant_value(b"v" * 9_000)
    forge.blocks |= value.blocks
    root = read_inner(value.blocks[next(iter(value.blocks))])
    mixed = [root[0]._replace(id=forge.leaf(ENTRIES[:1]).id), *root[1:]]
    manifest = Manifest(0, 1, 9_000, forge.inner(mixed, of=PIECE).id)
    forge.refused(manifest, "shape")


def test_a_plain_value_of_another_shape(forge):
    value = RNG.randbytes(9_000)
    pieces = [value[:4_096], value[4_096:8_192], value[8_192:]]

    def tree(parts, **lies):
        below = [
            Child(n, forge.keep(make_piece(part)), 1, len(part)) for n, part in enumerate(parts)
        ]
        return msgspec.structs.replace(
            Manifest(0, 1, 9_000, forge.inner(below, of=PIECE).id), **lies
        )

    assert harvest(tree(pieces), forge.blocks.get) == value
    forge.refused(tree([value[:4_000], value[4_000:8_000], value[8_000:]]), "count or size")
    forge.refused(tree(pieces[:2]), "shape")
    forge.refused(tree([*pieces, b"x"]), "shape")
    forge.refused(tree(pieces, count=3), "plain value is one")
    forge.refused(tree(pieces, bytes=4_096), "shape")
    forge.refused(tree(pieces, bytes=4_096 * 65), "shape")
    forge.refused(Manifest(0, 1, 9_000, forge.keep(make_piece(value[:4_096]))), "shape")
    longer = forge.inner([Child(0, forge.keep(make_piece(b"x")), 1, 1)], of=PIECE)
    forge.refused(Manifest(0, 1, 1, longer.id), "shape|piece")


def test_a_piece_of_another_length_than_its_place(forge):
    below = [
        Child(0, forge.keep(make_piece(b"x" * 4_095)), 1, 4_096),
        Child(1, forge.keep(make_piece(b"y" * 5)), 1, 4),
    ]
    root = forge.inner(below, of=PIECE)
    forge.refused(Manifest(0, 1, 4_100, root.id), "a piece of 4095 bytes where 4096 belong")


def test_bytes_that_are_not_what_their_hash_says(forge):
    tree = plant_set(1, ENTRIES, forge.manifest(forge.leaf(ENTRIES), ENTRIES).bytes)
    names = list(tree.blocks)
    wrong = {**tree.blocks, names[1]: tree.blocks[names[2]]}
    with pytest.raises(NamespaceError, match="not what its hash says"):
        harvest(read_manifest(tree.manifest), wrong.get)


@pytest.mark.parametrize("deep", [TREE_DEPTH_MAX, TREE_DEPTH_MAX + 1, 5_000])
@pytest.mark.parametrize("of", [LEAF, PIECE])
def test_a_chain_of_blocks_ends_at_the_bound(forge, deep, of):
    at = Child(0, forge.leaf(ENTRIES[:1]).id, 9, 9_000)
    for _ in range(deep):
        at = Child(0, forge.keep(make_inner(of, [at])), 9, 9_000)
    with pytest.raises(NamespaceError):
        harvest(Manifest(1, 9, 9_000, at.id), forge.blocks.get)
    if deep > TREE_DEPTH_MAX:
        with pytest.raises(NamespaceError, match="deeper than 16"):
            reach(at.id, forge.blocks.get, 10)
    else:
        assert len(reach(at.id, forge.blocks.get, 10)[0]) == deep + 1


@pytest.mark.parametrize(("of", "wide"), [(LEAF, 16), (PIECE, 64)])
def test_blocks_that_repeat_without_end_cost_what_they_are(forge, of, wide):
    """64^16 ways lead down; there are 17 blocks."""
    at = Child(0, forge.keep(make_piece(b"x" * 4_096)), 2, 4_097)
    for _ in range(TREE_DEPTH_MAX):
        below = [at._replace(digit=n) for n in range(wide)]
        at = Child(0, forge.keep(make_inner(of, below)), 2, 2**31)
    asked = []

    def get(name):
        asked.append(name)
        return forge.blocks[name]

    assert len(reach(at.id, get, 10)[0]) == len(asked) == TREE_DEPTH_MAX + 1
    asked.clear()
    with pytest.raises(NamespaceError):
        harvest(Manifest(0, 1, TREE_BYTES_MAX, at.id), get)
    assert len(asked) <= 2 * TREE_DEPTH_MAX


def test_more_blocks_than_a_tree_may_have_are_not_walked():
    big = bytes(BLOCK_MAX)
    asked = []

    def get(name):
        """An endless store: every id is an inner block with 64 children nobody has seen."""
        asked.append(name)
        level, number = name[0], int.from_bytes(name[1:], "big")
        if level == 4:
            return b"\x02" + big[1:]
        ids = ((level + 1, number * 64 + n) for n in range(64))
        return make_inner(
            PIECE,
            [Child(n, bytes((lv,)) + x.to_bytes(31, "big"), 1, 1) for n, (lv, x) in enumerate(ids)],
        )

    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(NamespaceError, match="over 3000000 "),
    ):
        patch.setattr(trie, "TREE_STORED_MAX", 3_000_000)
        reach(bytes(32), get, 10)
    assert len(asked) <= 1 + 3_000_000 // 2_626


@given(st.binary(max_size=3_000), st.sampled_from([b"", b"\0\1", b"\0\2", b"\1", b"\2"]))
def test_junk_is_refused_by_name(junk, head):
    block = head + junk
    blocks = {block_id(block): block}
    for version, count, size in ((1, 1, 5), (0, 1, 70_000), (1, 916, 219_845)):
        manifest = Manifest(version, count, size, block_id(block))
        for read in (lambda: children(block), lambda m=manifest: harvest(m, blocks.get),
                     lambda m=manifest: check_set(m, blocks.get)):  # fmt: skip
            with contextlib.suppress(NamespaceError, MissingBlocksError):
                read()


@given(st.data())
def test_one_bit_turned_anywhere_is_refused(data):
    """Even by whoever can make the hashes fit."""
    tree = plant_set(1, ENTRIES, assembled_bytes(1, 60, 60 * 240))
    names = list(tree.blocks)
    name = data.draw(st.sampled_from(names))
    block = bytearray(tree.blocks[name])
    block[data.draw(st.integers(0, len(block) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    fresh = {**tree.blocks, block_id(bytes(block)): bytes(block)}
    root = names[0]
    if name == root:
        root = block_id(bytes(block))
    else:
        top = tree.blocks[root].replace(name, block_id(bytes(block)))
        root = block_id(top)
        fresh[root] = top
    manifest = msgspec.structs.replace(read_manifest(tree.manifest), root=root)
    try:
        value = harvest(manifest, fresh.get)
    except (NamespaceError, MissingBlocksError):
        return
    # only an entry or its key can differ, the rest has one shape; a schema tells the key's truth
    assert len(value) == manifest.bytes
    read = []
    check_set(manifest, fresh.get, read.extend)
    assert sorted(read) != sorted(ENTRIES)
    assert len(read) == len(ENTRIES)


@pytest.mark.parametrize("size", [0, 1, BLOCK_MAX + 1])
def test_a_block_has_a_size(size):
    with pytest.raises(NamespaceError, match="bytes"):
        children(bytes(size))

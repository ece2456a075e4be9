"""Values in blocks through the gate: whole or not at all, bounded, and never a mix."""

from __future__ import annotations

import msgspec
import pytest

from skycore.contracts.store import Outcome
from skycore.model.limits import (
    MISSING_MAX,
)
from skycore.model.manifest import Tree
from skycore.model.trie import block_id

STORED, HELD, MISSING = int(Outcome.STORED), int(Outcome.HELD), int(Outcome.MISSING_BLOCKS)
CAS, TOO_LOW, SCHEMA, QUOTA, SIGNATURE = 301, 302, 402, 403, 206
replace = msgspec.structs.replace


def tags(count: int, *, text: str = "tag") -> list[str]:
    return [f"{text}{n:06}" + "x" * (n % 40) for n in range(count)]


def set_tree(house, entries) -> tuple[bytes, Tree]:
    value = house.namespaces.find(b"tags").encode(entries)
    return value, house.tree(b"tags", value)


async def value_of(house, signer="alice", salt=b"tags"):
    (stored,) = await house.read(signer, salt)
    return await house.gate.value(stored)


def blocks_of(*trees: Tree) -> list[bytes]:
    return [block for tree in trees for block in tree.blocks.values()]


# --- whole or not at all --------------------------------------------------------------------------


@pytest.mark.parametrize("count", [300, 552, 916, 5_000])
async def test_c18_a_large_set_comes_back_byte_for_byte(house, count):
    value, tree = set_tree(house, tags(count))
    head = house.head(tree)
    assert await house.put(head, blocks=blocks_of(tree)[::-1]) == [STORED]
    (stored,) = await house.read("alice", b"tags")
    assert await house.gate.value(stored) == value
    assert await house.gate.tree(stored.item) == tree.blocks
    assert list(await house.gate.tree(stored.item))[0] == block_id(blocks_of(tree)[0])
    assert house.gate.assemble(head, tree.blocks) == value
    assert await house.put(head) == [HELD]


@pytest.mark.parametrize("salt", [b"note", b"undeclared"])
async def test_c18_a_large_single_value_comes_back(house, salt):
    value = house.namespaces.find(b"note").encode("long " * 40_000)
    tree = house.tree(salt, value)
    assert await house.put(house.head(tree, salt=salt), blocks=blocks_of(tree)) == [STORED]
    assert await value_of(house, salt=salt) == value


async def test_c20_what_lacks_is_named_and_nothing_is_seen_until_all_is_there(house):
    value, tree = set_tree(house, tags(5_000))
    head, names = house.head(tree), list(tree.blocks)
    outcome, rounds, missing = None, 0, [names[0]]
    while outcome is None or outcome.code == MISSING:
        sent = [] if outcome is None else [tree.blocks[name] for name in outcome.missing[:50]]
        (outcome,) = await house.outcomes(head, blocks=sent)
        if outcome.code == MISSING:
            assert await house.read("alice", b"tags") == []
            assert set(await house.gate.blocks(names)) == {None}
            assert len(outcome.missing) <= MISSING_MAX
            assert missing != outcome.missing, "each round names others"
            missing = outcome.missing
        rounds += 1
    assert outcome.code == STORED
    assert rounds < 2 * len(names) // 50 + 5
    assert await value_of(house) == value


async def test_c20_a_change_needs_only_the_blocks_that_are_new(house):
    entries = tags(5_000)
    _, before = set_tree(house, entries)
    await house.put(house.head(before), blocks=blocks_of(before))
    house.clock.advance(1)
    entries[2_500] = "changed"
    value, after = set_tree(house, entries)
    new = [name for name in after.blocks if name not in before.blocks]
    assert len(new) < 12
    head = house.head(after)
    named, outcome = set(), None
    while outcome is None or outcome.code == MISSING:
        sent = outcome.missing if outcome else ()
        (outcome,) = await house.outcomes(head, blocks=[after.blocks[name] for name in sent])
        named.update(outcome.missing)
    assert outcome.code == STORED
    assert named == set(new)
    assert await value_of(house) == value


async def test_c20_a_page_of_small_heads_shares_its_blocks(house):
    heads, blocks = [], []
    for n in range(60):
        _, tree = set_tree(house, tags(200, text=f"{n % 7}-"))
        heads.append(house.head(tree, f"k{n}"))
        blocks += blocks_of(tree)
    house.store.calls.clear()
    assert set(await house.put(*heads, blocks=blocks)) == {STORED}
    assert house.store.calls == ["get", "signer_usage", "put_many", "usage"]


async def test_c12_c11_a_tombstone_ends_a_manifest_and_a_later_one_begins_anew(house):
    value, tree = set_tree(house, tags(400))
    await house.put(house.head(tree), blocks=blocks_of(tree))
    house.clock.advance(1)
    assert await house.put(house.item(v=None, salt=b"tags")) == [STORED]
    (gone,) = await house.read("alice", b"tags")
    assert await house.gate.value(gone) is None
    assert await house.gate.tree(gone.item) == {}
    house.clock.advance(1)
    assert await house.put(house.head(tree)) == [STORED], "its blocks are here still"
    assert await value_of(house) == value

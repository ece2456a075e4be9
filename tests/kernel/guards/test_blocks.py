"""Values in blocks through the gate: whole or not at all, bounded, and never a mix."""

from __future__ import annotations

import hashlib
import random

import anyio
import anyio.lowlevel
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skycore.contracts.namespace import Form, Namespace
from skycore.contracts.store import ChangeFilter, ItemKey, Outcome
from skycore.errors import MissingBlocksError, NamespaceError, QuotaError
from skycore.guards.blocks import PendingBlocks
from skycore.guards.shapes import Shapes
from skycore.model.blocks import (
    BlockKind,
    Child,
    Entry,
    make_inner,
    make_leaf,
    make_piece,
    read_inner,
)
from skycore.model.items import ItemClass, make_lease
from skycore.model.limits import (
    BLOCK_GRACE_S,
    LEAF_MAX,
    MISSING_MAX,
    PENDING_HEAD_S,
    TREE_DEPTH_MAX,
    VALUE_MAX,
)
from skycore.model.manifest import Manifest, Tree
from skycore.model.trie import Proven, block_id, plant_value
from skycore.testing.contracts.store_model import ranked
from skycore.testing.fakes import InlineWorkers, MemoryFiles, SeededEntropy
from store_memory.service import open_memory_store
from store_memory.settings import MemoryStoreSettings
from store_sqlite.service import open_sqlite_store
from store_sqlite.settings import SqliteStoreSettings

STORED, HELD, MISSING = int(Outcome.STORED), int(Outcome.HELD), int(Outcome.MISSING_BLOCKS)
TOO_LOW, SCHEMA, QUOTA, EXPIRED, SIGNATURE = 302, 402, 403, 404, 206
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
    assert next(iter(await house.gate.tree(stored.item))) == block_id(blocks_of(tree)[0])
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


# --- both stores ----------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite"])
def open_any_store(request):
    if request.param == "memory":
        return lambda: open_memory_store(MemoryStoreSettings(), SeededEntropy())
    return lambda: open_sqlite_store(
        SqliteStoreSettings(), MemoryFiles(), SeededEntropy(), InlineWorkers()
    )


@pytest.mark.parametrize("count", [1, 200, 552, 916, 5_000])
async def test_c18_sets_of_every_size_through_both_stores(open_house, open_any_store, count):
    """The sizes that the Go DHT lost: found whole, then changed by one entry, then whole again."""
    entries = [f"{n:064x}:" + "y" * 40 for n in range(count)]
    async with open_any_store() as store, open_house(store=store) as house:
        for generation in range(2):
            entries[count // 2] = f"changed {generation}"
            value = house.namespaces.find(b"tags").encode(entries)
            tree = house.namespaces.plant(b"tags", house.public("alice"), value)
            item = house.head(tree) if tree else house.item(salt=b"tags", v=value, life_s=300)
            blocks = list(tree.blocks.values()) if tree else []
            assert (tree is None) == (count < 40)
            assert await house.put(item, blocks=blocks) == [STORED]
            assert await value_of(house) == value
            house.clock.advance(1)
        (old,) = await house.gate.history(item.target, 9)
        assert "changed 0" in house.namespaces.find(b"tags").decode(await house.gate.value(old))
        held = sum(map(len, blocks))
        assert (await house.gate.usage())[b"tags"] == (1, len(item.v) + held)


async def test_c28_readers_of_a_replaced_head_have_two_minutes(open_house):
    settings = MemoryStoreSettings(history_versions_max=0)
    async with (
        open_memory_store(settings, SeededEntropy()) as store,
        open_house(store=store, sweep_interval_s=3_600) as house,
    ):
        value, old = set_tree(house, tags(400))
        await house.put(house.head(old), blocks=blocks_of(old))
        (seen,) = await house.read("alice", b"tags")
        house.clock.advance(1)
        newer = set_tree(house, tags(400, text="new"))[1]
        await house.put(house.head(newer), blocks=blocks_of(newer))
        house.clock.advance(BLOCK_GRACE_S - 1)
        await house.gate.sweep()
        assert await house.gate.value(seen) == value
        house.clock.advance(2)
        await house.gate.sweep()
        with pytest.raises(MissingBlocksError):
            await house.gate.value(seen)
        with pytest.raises(MissingBlocksError):
            await house.gate.tree(seen.item)
        house.clock.advance(1)
        (outcome,) = await house.outcomes(house.head(old))
        assert (outcome.code, outcome.missing) == (MISSING, (next(iter(old.blocks)),))
        again = house.head(old)
        (outcome,) = await house.outcomes(again, blocks=blocks_of(old)[:1])
        assert outcome.code == MISSING, "what is remembered of blocks does not stand for them"
        (outcome,) = await house.outcomes(again, blocks=[old.blocks[n] for n in outcome.missing])
        assert outcome.code == STORED
        assert await value_of(house) == value


async def test_o24_items_of_2863_bytes_and_pages_of_heads_go_through(open_house):
    async with open_house(unknown_items_max=10_000) as house:
        items = [house.item(f"k{n}", salt=b"other", v=bytes(2_863)) for n in range(300)]
        assert set(await house.put(*items)) == {STORED}
        trees = [set_tree(house, tags(300, text=f"{n} "))[1] for n in range(40)]
        heads = [house.head(tree, f"k{n}") for n, tree in enumerate(trees)]
        assert set(await house.put(*heads, blocks=blocks_of(*trees))) == {STORED}
        seen, cursor = [], None
        while True:
            page = await house.gate.changes(cursor, ChangeFilter(), 4_096, 64 * 1024)
            seen += page.entries
            cursor = page.cursor
            if not page.has_more:
                break
        assert [s.item for s in seen] == [*items, *heads]
        for n in (0, 17, 39):
            assert await house.gate.tree(heads[n]) == trees[n].blocks


# --- never a mix ----------------------------------------------------------------------------------


async def bring(house, dice, head, tree):
    """Put a head with a few blocks at a time, in any order, as they are asked for."""
    names: tuple[bytes, ...] = tuple(dice.sample(list(tree.blocks), 3))
    while True:
        sent = [tree.blocks[name] for name in names]
        dice.shuffle(sent)
        (outcome,) = await house.outcomes(head, blocks=sent[: dice.randint(1, 9)])
        await breathe(dice, 4)
        if outcome.code != MISSING:
            return
        names = outcome.missing


async def breathe(dice, longest):
    for _ in range(dice.randrange(longest)):
        await anyio.lowlevel.checkpoint()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
async def test_c16_a_reader_sees_one_generation_or_another_never_a_mix(open_house, seed):
    """Writers bring generations in pieces and in any order, while readers read all the time."""
    dice = random.Random(seed)
    async with open_house() as house:
        made = {}
        for generation in range(4):
            entries = [f"{n:03} of {generation if n % 50 < generation else 0}" for n in range(600)]
            value, tree = set_tree(house, entries)
            made[value] = (house.head(tree, seq=generation + 1), tree)

        seen = []

        async def read():
            while len(seen) < 60:
                for stored in await house.read("alice", b"tags"):
                    await breathe(dice, 3)
                    value = await house.gate.value(stored)
                    assert made[value][0] == stored.item
                    seen.append(stored.item.seq)
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            for head, tree in dice.sample(list(made.values()), 4):
                tasks.start_soon(bring, house, dice, head, tree)
        assert seen == sorted(seen)
        assert house.gate._heads._pending.bytes == 0


# --- lies -----------------------------------------------------------------------------------------


def head_of(house, root_block, blocks, *, count, size, salt=b"tags", version=1, **more):
    v = msgspec.msgpack.encode(Manifest(version, count, size, block_id(root_block)))
    return house.head(Tree(v, {}), salt=salt, **more), [root_block, *blocks]


def _leaf(entries):
    return make_leaf(Entry(msgspec.msgpack.encode(e), msgspec.msgpack.encode(e)) for e in entries)


async def test_wrong_bytes_are_nobodys_block(house):
    _, tree = set_tree(house, tags(916))
    head = house.head(tree)
    wrong = [block[:-1] + bytes((block[-1] ^ 1,)) for block in blocks_of(tree)]
    junk = [b"", b"\0", bytes(8_193), bytes(8_192), b"\1" * 100]
    (outcome,) = await house.outcomes(head, blocks=[*wrong, *junk])
    assert (outcome.code, outcome.missing) == (MISSING, (next(iter(tree.blocks)),))
    assert house.gate._heads._pending.bytes == 0
    assert await house.put(head, blocks=[*wrong, *blocks_of(tree), *junk]) == [STORED]
    assert set(await house.gate.blocks([block_id(b) for b in wrong])) == {None}


async def test_c19_blocks_without_a_verified_head_are_thrown_away(house):
    _, tree = set_tree(house, tags(916))
    head = house.head(tree)
    blocks = blocks_of(tree)
    forged = replace(head, sig=bytes(64))
    assert await house.put(forged, blocks=blocks) == [SIGNATURE]
    assert await house.put(house.item(), blocks=blocks) == [STORED]
    assert await house.put(blocks=blocks) == []
    pending = house.gate._heads._pending
    assert (pending.bytes, len(pending)) == (0, 0)
    assert set(await house.gate.blocks(list(tree.blocks))) == {None}
    (outcome,) = await house.outcomes(head)
    assert outcome.missing == (next(iter(tree.blocks)),)


@pytest.mark.parametrize("salt", [b"tags", b"note", b"undeclared"])
async def test_c19_a_small_block_repeated_does_not_claim_terabytes(house, salt):
    """Fourteen blocks that say, level by level, sixteen or sixty-four times the one below."""
    for of, width in ((BlockKind.LEAF, 16), (BlockKind.PIECE, 64)):
        below = _leaf(["x" * 4_000]) if of is BlockKind.LEAF else make_piece(bytes(LEAF_MAX))
        blocks, count, size = [below], 1, 4_004 if of is BlockKind.LEAF else LEAF_MAX
        for _ in range(13):
            row = [
                Child(digit, block_id(blocks[-1]), min(count, 2**32 - 1), min(size, 2**32 - 1))
                for digit in range(width)
            ]
            blocks.append(make_inner(of, row))
            count, size = count * width, size * width
        for claimed in (100_000, 16 * 1024 * 1024):
            head, given = head_of(
                house, blocks[-1], blocks, count=1, size=claimed, salt=salt, seq=claimed,
                version=0 if salt == b"undeclared" else 1,
            )  # fmt: skip
            assert await house.put(head, blocks=given) == [SCHEMA]
    assert house.gate._heads._pending.bytes == 0
    assert await house.contents() == {}


async def test_c19_a_tree_has_the_one_shape_that_its_content_gives(house):
    entries = sorted(tags(180))
    value, tree = set_tree(house, entries)
    root = blocks_of(tree)[0]
    whole = {"count": len(entries), "size": len(value)}
    cases = [
        head_of(house, root, blocks_of(tree), **(whole | {"count": len(entries) + 1})),
        head_of(house, root, blocks_of(tree), **(whole | {"size": len(value) + 1})),
        head_of(house, root, blocks_of(tree), **(whole | {"version": 2})),
        head_of(house, _leaf(entries[:90]), [], count=90, size=len(value)),
        head_of(house, blocks_of(tree)[1], blocks_of(tree), **whole),
        head_of(house, make_piece(value[:LEAF_MAX]), [], count=1, size=LEAF_MAX + 9),
    ]
    below = read_inner(root)
    turned = [Child(a.digit, *b[1:]) for a, b in zip(below, below[1:] + below[:1], strict=True)]
    cases.append(head_of(house, make_inner(BlockKind.LEAF, turned), [], **whole))
    for seq, (head, blocks) in enumerate(cases, 1):
        head = house.head(Tree(head.v, {}), seq=seq)
        (outcome,) = await house.outcomes(head, blocks=[*blocks, *blocks_of(tree)])
        assert outcome.code == SCHEMA, seq
        assert outcome.text
    assert await house.contents() == {}
    assert await house.put(house.head(tree), blocks=blocks_of(tree)) == [STORED]


async def test_a_tree_is_not_deeper_than_any_needs_to_be(house):
    blocks = [make_piece(bytes(LEAF_MAX))]
    for _ in range(TREE_DEPTH_MAX + 1):
        row = [Child(0, block_id(blocks[-1]), 1, LEAF_MAX)]
        blocks.append(make_inner(BlockKind.PIECE, row))
    head, given = head_of(house, blocks[-1], blocks, count=1, size=VALUE_MAX + 1, salt=b"note")
    (outcome,) = await house.outcomes(head, blocks=given)
    assert outcome.code == SCHEMA
    assert "deeper" in outcome.text


async def test_c22_an_entry_that_does_not_fit_is_refused_wherever_it_stands(open_house):
    """As a put, in a batch, from a peer's page with leases, with blocks at once or one by one."""
    numbers = Namespace(b"tags", 1, int, Form.SET, {ItemClass.OWNER: 300})
    async with open_house() as house, open_house("other", namespaces=[numbers]) as other:
        value = numbers.encode(range(10**9, 10**9 + 2_000))
        tree = other.tree(b"tags", value)
        head = house.head(tree)
        assert await house.put(head, blocks=blocks_of(tree)) == [SCHEMA]
        ok = house.item("bob")
        codes = await house.put(head, ok, blocks=blocks_of(tree), leases=[None, None])
        assert codes == [SCHEMA, STORED]
        code, names = MISSING, ()
        while code == MISSING:
            (outcome,) = await house.outcomes(head, blocks=[tree.blocks[n] for n in names])
            code, names = outcome.code, outcome.missing
        assert code == SCHEMA
        with pytest.raises(NamespaceError):
            house.gate.assemble(head, tree.blocks)
        assert house.gate._heads._pending.bytes == 0
        assert await other.put(head, blocks=blocks_of(tree)) == [STORED]
        assert await value_of(other) == value


async def test_c22_a_large_single_value_has_its_schema_too(house):
    for value in (msgspec.msgpack.encode((1, 5)) + bytes(VALUE_MAX), bytes(VALUE_MAX + 1)):
        tree = plant_value(value, 1)
        head = house.head(tree, salt=b"note")
        assert await house.put(head, blocks=blocks_of(tree)) == [SCHEMA]
    _, wrong_form = set_tree(house, tags(5_000))
    assert await house.put(house.head(wrong_form, salt=b"note"), blocks=blocks_of(wrong_form)) == [
        SCHEMA
    ]


# --- what waits -----------------------------------------------------------------------------------


async def test_what_waits_ends_with_its_head(house):
    pending = house.gate._heads._pending
    _, first = set_tree(house, tags(916))
    _, second = set_tree(house, tags(916, text="other"))
    half = lambda tree: blocks_of(tree)[: len(tree.blocks) // 2]  # noqa: E731
    one, two = house.head(first, seq=1), house.head(second, seq=2)
    assert await house.put(one, blocks=half(first)) == [MISSING]
    waits = pending.bytes
    assert 0 < waits < sum(map(len, first.blocks.values()))
    assert await house.put(one, blocks=half(first)) == [MISSING]
    assert pending.bytes == waits, "the same again takes no more"
    assert await house.put(two, blocks=half(second)) == [MISSING]
    assert len(pending) == 1, "a newer head of the slot takes the older one's place"
    assert await house.put(one, blocks=half(first)) == [MISSING]
    assert len(pending) == 1
    assert await house.put(two, sender="another", blocks=blocks_of(second)) == [STORED]
    assert (pending.bytes, len(pending)) == (0, 0)
    assert await house.put(one) == [TOO_LOW]
    three = house.head(first, seq=3)
    await house.put(three, blocks=half(first))
    house.clock.advance(PENDING_HEAD_S - 301)
    await house.gate.sweep()
    assert len(pending) == 1
    house.clock.advance(301)
    await house.gate.sweep()
    assert (pending.bytes, len(pending)) == (0, 0)
    assert await house.put(three, blocks=half(first)) == [EXPIRED]


async def test_two_senders_complete_one_head_together(house):
    value, tree = set_tree(house, tags(2_000))
    head, blocks = house.head(tree), blocks_of(tree)
    assert await house.put(head, sender="one", blocks=blocks[:40]) == [MISSING]
    assert await house.put(head, sender="two", blocks=blocks[40:]) == [STORED]
    assert await value_of(house) == value


async def test_c7_what_waits_is_bounded_for_each_sender(open_house):
    async with open_house(sender_pending_bytes_max=200_000) as house:
        trees = [set_tree(house, tags(2_000, text=f"{n} "))[1] for n in range(4)]
        heads = [house.head(tree, f"k{n}") for n, tree in enumerate(trees)]
        codes = [
            await house.put(head, blocks=blocks_of(tree)[:-1])
            for head, tree in zip(heads, trees, strict=True)
        ]
        assert codes == [[MISSING], [MISSING], [QUOTA], [QUOTA]]
        assert house.gate._heads._pending.bytes <= 200_000
        assert await house.put(heads[3], sender="other", blocks=blocks_of(trees[3])[:-1]) == [
            MISSING
        ]
        assert await house.put(heads[0], blocks=blocks_of(trees[0])[-1:]) == [STORED]
        assert await house.put(heads[2], blocks=blocks_of(trees[2])[:-1]) == [MISSING]


def test_where_all_have_one_bound_the_largest_gives_way():
    pending = PendingBlocks(10_000, 20_000, b"me")

    def head(name: bytes, seq: int = 1):
        return ranked(name, seq=seq)

    def bring(sender: bytes, number: int, size: int) -> None:
        blocks = {hashlib.sha256(sender + b"%d" % number).digest(): bytes(size)}
        pending.keep(head(sender + b"%d" % number), sender, blocks, 0.0)

    for number in range(9):
        bring(b"greedy", number, 900)
        bring(b"hungry", number, 900)
    bring(b"small", 0, 1_500)
    bring(b"small", 1, 1_500)
    assert pending.bytes <= 20_000
    assert pending.of(head(b"small0"))
    assert pending.of(head(b"small1"))
    assert not pending.of(head(b"greedy0"))
    with pytest.raises(QuotaError):
        bring(b"greedy", 9, 5_000)
    bring(b"me", 0, 12_000)  # what this node signs has no bound but the one for all
    assert pending.bytes <= 20_000
    with pytest.raises(QuotaError):
        bring(b"me", 1, 20_001)
    pending.expire(PENDING_HEAD_S)
    assert (pending.bytes, len(pending), pending._slots, pending._senders) == (0, 0, {}, {})


# --- room -----------------------------------------------------------------------------------------


async def test_c7_blocks_count_for_their_signer_and_before_they_are_sent(open_house):
    async with open_house(signer_bytes_max=300_000) as house:
        big = set_tree(house, tags(12_000))[1]
        head = house.head(big)
        assert await house.put(head) == [QUOTA], "told at once, not after 400 kB"
        assert await house.put(head, blocks=blocks_of(big)) == [QUOTA]
        fits = set_tree(house, tags(7_000))[1]
        house.clock.advance(1)
        assert await house.put(house.head(fits), blocks=blocks_of(fits)) == [STORED]
        for n in range(5):
            house.clock.advance(1)
            entries = tags(7_000)
            entries[n] = "changed"
            tree = set_tree(house, entries)[1]
            assert await house.put(house.head(tree), blocks=blocks_of(tree)) == [STORED]
        [used] = await house.store.signer_usage([house.public("alice")])
        assert used.bytes <= 300_000
        assert await house.put(house.item("alice", "n" * 60_000)) == [QUOTA]


async def test_c7_the_total_holds_with_blocks_to_the_byte(open_house):
    async with open_house(value_bytes_max=300_000) as house:
        codes = []
        for n in range(8):
            tree = set_tree(house, tags(1_500, text=f"{n} "))[1]
            codes += await house.put(house.head(tree, f"k{n}"), blocks=blocks_of(tree))
            assert sum(u.bytes for u in (await house.gate.usage()).values()) <= 300_000
        assert codes == [STORED] * codes.count(STORED) + [QUOTA] * codes.count(QUOTA)
        assert 3 <= codes.count(STORED) <= 6
        tree = set_tree(house, tags(5_000, text="mine"))[1]
        assert await house.put(house.head(tree, "me"), sender="me", blocks=blocks_of(tree)) == [
            STORED
        ]


async def test_c7_blocks_count_for_what_a_sender_may_hand_in(open_house):
    async with open_house(sender_bytes_per_minute=60_000) as house:
        one, two = (set_tree(house, tags(1_000, text=text))[1] for text in ("one", "two"))
        assert await house.put(house.head(one), blocks=blocks_of(one)) == [STORED]
        head = house.head(two, "bob")
        assert await house.put(head, blocks=blocks_of(two)) == [QUOTA]
        house.clock.advance(60)
        assert await house.put(head, blocks=blocks_of(two)) == [STORED]


# --- cost -----------------------------------------------------------------------------------------


async def test_l24_one_change_of_5000_reads_and_checks_what_is_new(house, monkeypatch):
    entries = tags(5_000)
    tree = set_tree(house, entries)[1]
    await house.put(house.head(tree), blocks=blocks_of(tree))
    checked = []
    check = house.namespaces.find(b"tags")._check_leaf
    monkeypatch.setattr(
        Namespace, "_check_leaf", lambda self, *args: checked.append(args) or check(*args)
    )
    house.store.calls.clear()
    house.clock.advance(1)
    entries[7] = "changed"
    after = set_tree(house, entries)[1]
    new = [block for name, block in after.blocks.items() if name not in tree.blocks]
    assert await house.put(house.head(after), blocks=new) == [STORED]
    assert len(checked) <= 2
    assert "blocks" not in house.store.calls


async def test_what_was_forgotten_of_a_tree_is_looked_up_again(house):
    """The caches are caches: without them all is the same, but slower."""
    entries = tags(3_000)
    tree = set_tree(house, entries)[1]
    await house.put(house.head(tree), blocks=blocks_of(tree))
    for forget in ("_proven", "_shapes", "both"):
        house.clock.advance(1)
        entries[11] = f"changed {forget}"
        value, after = set_tree(house, entries)
        new = [block for name, block in after.blocks.items() if name not in tree.blocks]
        if forget in ("_proven", "both"):
            house.gate._heads._proven = Proven()
        if forget in ("_shapes", "both"):
            house.gate._heads._shapes = Shapes(4, 1)
        assert await house.put(house.head(after), blocks=new) == [STORED]
        assert await value_of(house) == value
        tree = after


async def test_the_loop_breathes_while_large_trees_come_in(open_house):
    class Counting(InlineWorkers):
        runs = 0

        async def run(self, function):
            self.runs += 1
            return await super().run(function)

    workers = Counting()
    async with open_house(workers=workers) as house:
        tree = set_tree(house, tags(20_000))[1]
        workers.runs = 0
        assert await house.put(house.head(tree), blocks=blocks_of(tree)) == [STORED]
        assert workers.runs == 1, "the check of a large tree is a thread's work"
        await value_of(house)
        assert workers.runs == 2


async def test_a_batch_of_large_trees_is_taken_in_parts(house):
    """What is in memory at once is bounded, and the outcomes are those of each."""
    trees = [plant_value(bytes((n,)) * 5_000_000) for n in range(4)]
    heads = [house.head(tree, f"k{n}", salt=b"big") for n, tree in enumerate(trees)]
    small = [house.item(f"s{n}") for n in range(4)]
    both = [item for pair in zip(heads, small, strict=True) for item in pair]
    house.store.calls.clear()
    assert await house.put(*both, blocks=blocks_of(*trees)) == [STORED] * 8
    assert house.store.calls.count("put_many") == 4
    assert await value_of(house, "k3", b"big") == b"\3" * 5_000_000


async def test_what_a_batch_has_the_store_read_is_bounded(house, monkeypatch):
    trees = [plant_value(b"%d " % n * 100_000) for n in range(6)]
    heads = [house.head(tree, f"k{n}", salt=b"big") for n, tree in enumerate(trees)]
    assert await house.put(*heads, blocks=blocks_of(*trees)) == [STORED] * 6
    house.clock.advance(1)
    house.gate._heads._shapes = Shapes(4, 4)
    monkeypatch.setattr("skycore.guards.heads.LOADED_BYTES_MAX", 1_000)
    again = [house.head(tree, f"k{n}", salt=b"big") for n, tree in enumerate(trees)]
    assert set(await house.put(*again)) == {QUOTA}
    monkeypatch.undo()
    assert await house.put(*again) == [STORED] * 6


def tree_of_nothing(inners: int, mark: bytes = b"") -> list[bytes]:
    """Return blocks, the root first, that lead to 64 others each which nobody has."""
    row = [
        make_inner(
            BlockKind.PIECE,
            [Child(d, block_id(b"%s %d %d" % (mark, n, d)), 1, LEAF_MAX) for d in range(64)],
        )
        for n in range(inners)
    ]
    blocks = row
    while len(row) > 1:
        row = [
            make_inner(
                BlockKind.PIECE,
                [Child(d, block_id(b), 64, LEAF_MAX) for d, b in enumerate(row[at : at + 64])],
            )
            for at in range(0, len(row), 64)
        ]
        blocks = row + blocks
    return blocks


def small_claim(root: bytes) -> Tree:
    return Tree(msgspec.msgpack.encode(Manifest(0, 1, 5_000, root)), {})


async def test_c7_many_heads_of_one_tree_of_nothing_cost_no_more_than_one(house, monkeypatch):
    """Each head would walk, and remember, every name that the same few blocks lead to."""
    blocks = tree_of_nothing(20)
    monkeypatch.setattr("skycore.guards.heads.BLOCKS_MAX", 4_000)
    claim = small_claim(block_id(blocks[0]))
    heads = [house.head(claim, salt=b"u%d" % n) for n in range(40)]
    codes = await house.put(*heads, blocks=blocks)
    assert codes == [MISSING, MISSING, *[QUOTA] * 38]


async def test_c7_what_is_remembered_of_blocks_is_bounded_by_the_names_in_them():
    shapes = Shapes(1_000, 4)
    for n in range(10):
        for block in tree_of_nothing(5, b"%d" % n):
            shapes.learn(block_id(block), block)
            assert sum(1 + len(shape.children) for shape in shapes._shapes.values()) <= 1_000
    assert len(shapes) == 18, "three trees of 331 names"


async def test_c7_trees_that_must_be_read_to_be_refused_are_read_a_few_at_a_time(
    house, monkeypatch
):
    """Their shapes are known, and what is proven of them is so under another salt alone."""
    tree = set_tree(house, tags(3_000))[1]
    assert await house.put(house.head(tree), blocks=blocks_of(tree)) == [STORED]
    claim = small_claim(next(iter(tree.blocks)))
    size = sum(map(len, tree.blocks.values()))
    monkeypatch.setattr("skycore.guards.heads.LOADED_BYTES_MAX", 2 * size)
    heads = [house.head(claim, salt=b"u%d" % n) for n in range(9)]
    assert await house.put(*heads) == [SCHEMA] * 3 + [QUOTA] * 6


# --- telling of changes ---------------------------------------------------------------------------


async def test_c34_every_change_of_the_store_is_told(house):
    async def told(*work) -> bool:
        news = house.gate.changed()
        for one in work:
            await one
        return news.is_set()

    item, lease_until = house.item(life_s=100), house.clock.wall_s() + 900
    assert await told(house.put(item))
    assert not await told(house.put(item), house.read("alice"), house.gate.sweep())
    (stored,) = await house.read("alice")
    lease = make_lease(house.network, house.key("alice"), stored, lease_until)
    renew = lambda: house.gate.renew([lease], sender=house.public("peer"))  # noqa: E731
    assert await told(renew())
    assert not await told(renew())
    tree = set_tree(house, tags(400))[1]
    head = house.head(tree)
    assert not await told(house.put(head))
    assert await told(house.put(head, blocks=blocks_of(tree)))
    assert await told(house.gate.drop([ItemKey(item.target, 3)]))
    assert not await told(house.gate.drop([ItemKey(item.target, 3)]))
    house.clock.advance(301)
    assert await told(house.gate.sweep())


async def test_c31_fingerprints_are_of_what_is_live(open_house):
    whole = [(bytes(32), b"\xff" * 32)]
    async with (
        open_house(sweep_interval_s=3_600) as one,
        open_house(clock=one.clock, sweep_interval_s=3_600) as two,
    ):
        lasting = one.item("bob", life_s=600)
        await one.put(one.item(life_s=30), lasting)
        await two.put(lasting)
        assert await one.gate.fingerprints(None, whole) != await two.gate.fingerprints(None, whole)
        one.clock.advance(31)
        assert await one.gate.fingerprints(None, whole) == await two.gate.fingerprints(None, whole)
        assert (await one.gate.fingerprints(b"note", whole))[0].items == 1
        one.store.calls.clear()
        await one.gate.fingerprints(None, whole)
        assert one.store.calls == ["fingerprints"], "swept a moment ago"

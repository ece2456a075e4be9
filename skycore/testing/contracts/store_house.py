"""Blocks, history and counters: the part of StoreContract about what a store keeps beside items."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from skycore.contracts.store import ItemKey, ItemStore, Outcome, Usage
from skycore.model.items import ItemClass, Kind
from skycore.testing.contracts.store_model import START_S, lease_for, ranked

__all__ = ["HousekeepingContract", "OpenStore", "history_within_its_bytes"]

OpenStore = Callable[[], AbstractAsyncContextManager[ItemStore]]


def _block(text: str) -> tuple[bytes, bytes]:
    data = text.encode()
    return hashlib.sha256(data).digest(), data


async def history_within_its_bytes(store: ItemStore, counted: Callable[[], int]) -> None:
    """Check a store whose history has 20,000 bytes (and 50 versions a slot) for what it keeps."""
    dice = random.Random(20)
    blocks = dict(_block(f"{n} " * 300) for n in range(60))
    for seq in range(1, 121):
        subject, refs = b"s%d" % dice.randrange(3), dice.sample(list(blocks), 3)
        if dice.random() < 0.1:
            await store.drop([ItemKey(ranked(subject).target, 3)])
        [outcome] = await store.put_many([ranked(subject, seq=seq, refs=refs, v=refs[0])], blocks)
        assert outcome.code == Outcome.STORED
        told = [s for n in range(3) for s in await store.history(ranked(b"s%d" % n).target, 99)]
        size = counted()
        assert len(told) * 300 <= size <= 20_000
        for old in told:  # a version stands on the block that its value names, and on others
            assert await store.blocks([old.item.v]) == [blocks[old.item.v]]
    assert size > 10_000
    kept = {s.item.seq for s in told}
    assert min(kept) > 60, "the oldest went first"
    for n in range(3):
        await store.drop([ItemKey(ranked(b"s%d" % n).target, 3)])
    assert counted() == 0


class HousekeepingContract:
    """Inherited by StoreContract, which has the rest."""

    @pytest.fixture
    def open_store(self) -> OpenStore:
        """Return a function that opens a new, empty store."""
        raise NotImplementedError

    # --- blocks ---------------------------------------------------------------------------------

    async def test_c20_a_head_needs_its_blocks(self, open_store: OpenStore) -> None:
        """All or nothing; those that no head refers to are not kept."""
        async with open_store() as store:
            (a, a_data), (b, b_data), (c, c_data) = (_block(x) for x in "abc")
            head = ranked(kind=Kind.MANIFEST, refs=[a, b, a], v=b"root")
            [refused] = await store.put_many([head], {b: b_data})
            assert (refused.code, refused.missing) == (Outcome.MISSING_BLOCKS, (a,))
            assert await store.blocks([b]) == [None], "nothing was changed"
            blocks = {a: a_data, b: b_data, c: c_data}
            assert (await store.put_many([head], blocks))[0].code == Outcome.STORED
            assert list(await store.blocks([b, c, a])) == [b_data, None, a_data]
            assert await store.signer_usage([head.item.signer]) == [Usage(1, 6)]
            second = ranked(b"bob", kind=Kind.MANIFEST, refs=[a])
            assert (await store.put_many([second]))[0].code == Outcome.STORED

    async def test_c28_blocks_of_a_replaced_head_stay_for_its_readers(
        self, open_store: OpenStore
    ) -> None:
        """For 120 s, and as long as another head or a version in the history stands on them."""
        async with open_store() as store:
            (a, a_data), (b, b_data), (c, c_data) = (_block(x) for x in "abc")
            now = START_S
            await store.put_many(
                [ranked(refs=[a, b], until=now + 10), ranked(b"bob", refs=[b], until=now + 999)],
                {a: a_data, b: b_data},
            )
            await store.renew([lease_for(ranked(until=now + 10), now + 500)], 0)
            later = ranked(seq=2, refs=[c], admitted_ns=now * 10**9, until=now + 999)
            await store.put_many([later], {c: c_data})
            for seq in range(3, 103):  # until the first is history no more
                again = ranked(seq=seq, refs=[c], admitted_ns=now * 10**9, until=now + 999)
                await store.put_many([again])
            assert await store.sweep(now + 119) == 0
            assert list(await store.blocks([a, b, c])) == [a_data, b_data, c_data]
            await store.sweep(now + 121)
            await store.sweep(now + 242)
            assert list(await store.blocks([a, b, c])) == [None, b_data, c_data]
            assert await store.drop([ItemKey(later.target, 3)]) == 1
            now += 121
            await store.sweep(now + 130)
            await store.sweep(now + 249)
            assert (await store.blocks([c])) == [c_data]
            await store.sweep(now + 251)
            assert list(await store.blocks([b, c])) == [b_data, None]

    async def test_c47_versions_in_the_history_keep_their_blocks(
        self, open_store: OpenStore
    ) -> None:
        """Yesterday's list is still there, whole, for as long as its head is told of."""
        async with open_store() as store:
            blocks = dict(_block(f"block{n}") for n in range(40))
            names, heads, dice = list(blocks), {}, random.Random(47)
            for seq in range(1, 30):
                refs = dice.sample(names, dice.randrange(9))
                head = ranked(seq=seq, refs=refs, admitted_ns=START_S * 10**9, until=START_S + 9**6)
                heads[seq] = head
                assert (await store.put_many([head], blocks))[0].code == Outcome.STORED
                await store.sweep(START_S + seq * 200)
                told = await store.history(head.target, 100)
                for old in told:
                    told_of = heads[old.item.seq].refs
                    assert list(await store.blocks(told_of)) == [blocks[n] for n in told_of]
                [used] = (await store.usage()).values()
                assert used == (1, len(head.item.v) + sum(len(blocks[n]) for n in head.refs))
            assert len(told) >= 1
            await store.drop([ItemKey(head.target, 3)])
            await store.sweep(START_S + 10**5)
            await store.sweep(START_S + 10**5 + 121)
            assert set(await store.blocks(names)) == {None}

    async def test_l24_a_large_head_that_hardly_changes_costs_the_change(
        self, open_store: OpenStore
    ) -> None:
        """Blocks that stay need not come again, and are counted once."""
        async with open_store() as store:
            blocks = dict(_block(f"block{n}") for n in range(600))
            names = list(blocks)
            await store.put_many([ranked(refs=names[:500])], blocks)
            change = {name: blocks[name] for name in names[500:505]}
            second = ranked(seq=2, refs=[*names[5:500], *names[500:505]])
            assert (await store.put_many([second], change))[0].code == Outcome.STORED
            third = ranked(seq=3, refs=[*names[5:500], names[599]])
            [lacking] = await store.put_many([third])
            assert (lacking.code, lacking.missing) == (Outcome.MISSING_BLOCKS, (names[599],))
            size = len(second.item.v) + sum(len(blocks[name]) for name in second.refs)
            assert await store.usage() == {b"tp": Usage(1, size)}

    async def test_an_idle_block_is_taken_up_again(self, open_store: OpenStore) -> None:
        """A new head within the grace needs not send it."""
        async with open_store() as store:
            a, data = _block("a")
            await store.put_many([ranked(refs=[a])], {a: data})
            await store.put_many([ranked(seq=2, admitted_ns=START_S * 10**9)])
            assert (await store.put_many([ranked(seq=3, refs=[a])]))[0].code == Outcome.STORED
            await store.sweep(START_S + 200)
            assert await store.blocks([a]) == [data]

    # --- keeping house --------------------------------------------------------------------------

    async def test_c47_history_is_bounded_and_ends_with_its_slot(
        self, open_store: OpenStore
    ) -> None:
        """Newest first, no gap."""
        async with open_store() as store:
            for seq in range(1, 151):
                await store.put_many([ranked(seq=seq)])
            target = ranked().target
            versions = [s.item.seq for s in await store.history(target, 1_000)]
            assert versions == list(range(149, 149 - len(versions), -1))
            assert 1 <= len(versions) <= 100
            assert [s.item.seq for s in await store.history(target, 1)] == [149]
            await store.drop([ItemKey(target, 3)])
            assert await store.history(target, 10) == []

    async def test_drop_leaves_no_trace(self, open_store: OpenStore) -> None:
        """An older item may come in again."""
        async with open_store() as store:
            await store.put_many([ranked(seq=9), ranked(b"bob")])
            key = ItemKey(ranked().target, 3)
            assert await store.drop([key, key, ItemKey(key.target, 2)]) == 1
            assert await store.get([key.target]) == [()]
            assert (await store.put_many([ranked(seq=1)]))[0].code == Outcome.STORED

    async def test_o21_a_slot_that_changed_meanwhile_is_not_dropped(
        self, open_store: OpenStore
    ) -> None:
        """Whoever drops what he has read says which change he saw."""
        async with open_store() as store:
            old, other = ranked(), ranked(b"bob")
            await store.put_many([old, other])
            [[read], [bob]] = await store.get([old.target, other.target])
            await store.renew([lease_for(old, START_S + 900)], 0)
            keys = [ItemKey(old.target, 3), ItemKey(other.target, 3), ItemKey(other.target, 1)]
            assert await store.drop(keys, [read.position, bob.position, 1]) == 1
            [[renewed], gone] = await store.get([old.target, other.target])
            assert (renewed.until, gone) == (START_S + 900, ())
            await store.put_many([ranked(seq=2)])
            assert await store.drop(keys[:1], [renewed.position]) == 0
            [[newer]] = await store.get([old.target])
            assert (newer.item.seq, await store.drop(keys[:1], [newer.position])) == (2, 1)

    async def test_a_store_says_whether_others_write_there(self, open_store: OpenStore) -> None:
        """None, or a context whose iterator yields for what others change."""
        async with open_store() as store:
            watching = store.watch()
            if watching is not None:
                async with watching as news:
                    assert hasattr(news, "__anext__")

    async def test_usage_counts_what_is_held(self, open_store: OpenStore) -> None:
        """By salt and by signer, through every change."""
        async with open_store() as store:
            await store.put_many([ranked(v=b"12345"), ranked(b"bob", v=b"123", signer=b"m")])
            await store.put_many([ranked(seq=2, v=b"1", signer=b"m"), ranked(salt=b"svc", v=b"12")])
            assert await store.usage() == {b"tp": Usage(2, 4), b"svc": Usage(1, 2)}
            alice = ranked().item.signer
            assert list(await store.signer_usage([b"m", alice, b"?"])) == [(2, 4), (1, 2), (0, 0)]
            assert await store.sweep(START_S + 301) == 3
            assert await store.usage() == {}
            assert await store.signer_usage([b"m"]) == [(0, 0)]

    async def test_what_a_mirror_signs_counts_on_an_account_of_its_own(
        self, open_store: OpenStore
    ) -> None:
        """Else a mirror of thousands could not say anything of itself."""
        async with open_store() as store:
            own = ranked(b"m", v=b"1", signer=b"m")
            mirrored = ranked(b"bob", v=b"123", signer=b"m", item_class=ItemClass.MIRROR)
            await store.put_many([own, mirrored])
            accounts = [own.account, mirrored.account]
            assert list(await store.signer_usage(accounts)) == [(1, 1), (1, 3)]
            await store.drop([ItemKey(mirrored.target, ItemClass.MIRROR)])
            assert list(await store.signer_usage(accounts)) == [(1, 1), (0, 0)]

    async def test_items_at_every_limit_are_kept(self, open_store: OpenStore) -> None:
        """The largest and the smallest that the wire allows."""
        async with open_store() as store:
            top = 2**63 - 1
            edge = ranked(b"s" * 64, salt=b"\0" * 200, seq=top, v=bytes(65_536), until=top)
            small = ranked(b"s", salt=b"", seq=1, v=b"", until=0)
            await store.put_many([edge, small])
            [[big]], [[tiny]] = [await store.get([i.target]) for i in (edge, small)]
            assert (big.item, tiny.item) == (edge.item, small.item)
            assert await store.sweep(START_S) == 1

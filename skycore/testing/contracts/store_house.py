"""Blocks, history and counters: the part of StoreContract about what a store keeps beside items."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from skycore.contracts.store import ItemKey, ItemStore, Outcome, Usage
from skycore.model.items import Kind
from skycore.testing.contracts.store_model import START_S, lease_for, ranked

__all__ = ["HousekeepingContract", "OpenStore"]

OpenStore = Callable[[], AbstractAsyncContextManager[ItemStore]]


def _block(text: str) -> tuple[bytes, bytes]:
    data = text.encode()
    return hashlib.sha256(data).digest(), data


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
        """For 120 s, and as long as another head stands on them."""
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
            assert await store.sweep(now + 119) == 0
            assert list(await store.blocks([a, b, c])) == [a_data, b_data, c_data]
            await store.sweep(now + 121)
            assert list(await store.blocks([a, b, c])) == [None, b_data, c_data]
            assert await store.drop([ItemKey(later.target, 3)]) == 1
            await store.sweep(now + 130)
            await store.sweep(now + 249)
            assert (await store.blocks([c])) == [c_data]
            await store.sweep(now + 251)
            assert list(await store.blocks([b, c])) == [b_data, None]

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

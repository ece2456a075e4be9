"""What every ItemStore has to pass. Inherit `StoreContract` and give it `open_store`.

class TestMine(StoreContract):
    @pytest.fixture
    def open_store(self):
        return lambda: open_my_store(MySettings(), SeededEntropy())
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import anyio
import pytest
from hypothesis import HealthCheck, given, settings

from skycore.contracts.store import ChangeFilter, ItemKey, Outcome
from skycore.errors import CasMismatchError, CursorInvalidError, SeqTooLowError
from skycore.model.items import Cursor, Kind, StoredItem
from skycore.testing.contracts.store_house import HousekeepingContract, OpenStore
from skycore.testing.contracts.store_model import (
    EVERY_CHANGE,
    EVERYTHING,
    START_S,
    Player,
    Step,
    lease_for,
    ranked,
    read_all,
    read_pages,
    steps,
    targets_of,
)

__all__ = ["OpenStore", "StoreContract"]

_BIG = 1 << 30
_RANDOM_WORK = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


def _content(items: Sequence[StoredItem]) -> list[object]:
    return [(s.target, s.item_class, s.rank, s.digest, s.item) for s in items]


class StoreContract(HousekeepingContract):
    """The suite. Each test opens a store of its own, empty."""

    # --- slots ----------------------------------------------------------------------------------

    async def test_a_put_is_read_back_as_it_was(self, open_store: OpenStore) -> None:
        """Every field, the time of admission to the nanosecond."""
        async with open_store() as store:
            new = ranked(item_class=2, admitted_ns=1_234_567_890_123_456_789)
            assert [(o.code, o.seq) for o in await store.put_many([new])] == [(Outcome.STORED, 1)]
            [[held]] = await store.get([new.target])
            assert held == StoredItem(
                new.target, 2, new.rank, new.digest, new.item, b"sender",
                1_234_567_890_123_456_789, held.position, held.position,
            )  # fmt: skip
            assert len(store.store_id) == 16

    async def test_get_answers_in_order_highest_class_first(self, open_store: OpenStore) -> None:
        """One tuple a target, asked twice or not held at all."""
        async with open_store() as store:
            items = [ranked(item_class=c) for c in (1, 3, 2)] + [ranked(b"bob")]
            await store.put_many(items)
            alice, bob = targets_of(items)
            answer = await store.get([bob, b"\0" * 32, alice, bob])
            assert [[s.item_class for s in held] for held in answer] == [[3], [], [3, 2, 1], [3]]
            assert await store.get([]) == []

    async def test_the_higher_rank_stays(self, open_store: OpenStore) -> None:
        """The same is HELD, a lower one is told the seq that is there."""
        async with open_store() as store:
            outcomes = await store.put_many([ranked(seq=5), ranked(seq=5), ranked(seq=4)])
            assert [(o.code, o.seq) for o in outcomes] == [
                (Outcome.STORED, 5), (Outcome.HELD, 5), (SeqTooLowError.code, 5),
            ]  # fmt: skip
            assert [o.accepted for o in outcomes] == [True, True, False]
            assert (await store.put_many([ranked(seq=6)]))[0].code == Outcome.STORED
            assert [s.item.seq for s in await read_all(store)] == [6]

    async def test_a_batch_is_judged_in_the_order_given(self, open_store: OpenStore) -> None:
        """As if each item had come in a call of its own."""
        async with open_store() as store:
            batch = [
                ranked(seq=1, cas=0),
                ranked(seq=2, cas=1),
                ranked(seq=3, cas=1),
                ranked(seq=3),
            ]
            codes = [o.code for o in await store.put_many(batch)]
            assert codes == [0, 0, CasMismatchError.code, 0]
            history = await store.history(batch[0].target, 10)
            assert [s.item.seq for s in history] == [2, 1]

    async def test_c10_of_two_writers_one_succeeds(self, open_store: OpenStore) -> None:
        """The loser is told the seq of the winner."""
        async with open_store() as store:
            await store.put_many([ranked(seq=1)])
            first, second = await store.put_many(
                [ranked(seq=2, v=b"mine", cas=1), ranked(seq=3, v=b"yours", cas=1)]
            )
            assert (first.code, second.code, second.seq) == (0, CasMismatchError.code, 2)
            [again] = await store.put_many([ranked(seq=2, v=b"mine", cas=1)])
            assert again.code == Outcome.HELD, "a repeated put is told the truth"

    async def test_a_tombstone_reads_as_seq_0_but_is_beaten_by_rank(
        self, open_store: OpenStore
    ) -> None:
        """For `cas` there is nothing; for a put there is its seq."""
        async with open_store() as store:
            [dead] = await store.put_many([ranked(seq=9, v=b"", kind=Kind.TOMBSTONE)])
            assert (dead.code, dead.seq) == (Outcome.STORED, 0)
            [low] = await store.put_many([ranked(seq=8, cas=0)])
            assert (low.code, low.seq) == (SeqTooLowError.code, 9), "its owner must go beyond 9"
            [new] = await store.put_many([ranked(seq=10, cas=0)])
            assert (new.code, new.seq) == (Outcome.STORED, 10)

    async def test_c08_any_order_of_arrival_gives_the_same_bytes(
        self, open_store: OpenStore
    ) -> None:
        """Four orders, one content."""
        dice = random.Random(8)
        items = [
            ranked(b"s%d" % (i % 9), seq=1 + i % 4, v=b"v%d" % (i % 3), item_class=1 + i % 3)
            for i in range(120)
        ]
        seen = []
        for _ in range(4):
            dice.shuffle(items)
            async with open_store() as store:
                for start in range(0, len(items), 50):
                    await store.put_many(items[start : start + 50])
                seen.append(_content(await read_all(store)))
        assert all(content == seen[0] for content in seen)

    # --- leases ---------------------------------------------------------------------------------

    async def test_c17_a_lease_only_makes_life_longer(self, open_store: OpenStore) -> None:
        """It moves the item in the log, and keeps its bytes where they were."""
        async with open_store() as store:
            new, other = ranked(until=START_S + 10), ranked(v=b"other")
            await store.put_many([new])
            page = await store.changes(None, EVERY_CHANGE, 10, _BIG)
            leases = [
                lease_for(new, START_S + 20), lease_for(new, START_S + 20),
                lease_for(new, START_S + 5), lease_for(other, START_S + 50),
                lease_for(ranked(b"bob"), START_S + 50),
            ]  # fmt: skip
            outcomes = await store.renew(leases, 2)
            assert [(o.code, o.seq) for o in outcomes] == [
                (Outcome.RENEWED, 1), (Outcome.HELD, 1), (Outcome.HELD, 1),
                (Outcome.NOT_HELD, 1), (Outcome.NOT_HELD, 0),
            ]  # fmt: skip
            [entry] = (await store.changes(page.cursor, EVERY_CHANGE, 10, _BIG)).entries
            assert entry.until == START_S + 20
            assert entry.lease == leases[0]
            assert entry.item_position <= page.cursor.position < entry.position
            assert await store.sweep(START_S + 20) == 0
            assert await store.sweep(START_S + 21) == 1

    async def test_a_new_item_begins_without_a_lease(self, open_store: OpenStore) -> None:
        """A lease names one item, not a slot."""
        async with open_store() as store:
            await store.put_many([ranked(until=START_S + 10)])
            await store.renew([lease_for(ranked(until=START_S + 10), START_S + 90)], 0)
            await store.put_many([ranked(seq=2, until=START_S + 20)])
            [held] = await read_all(store)
            assert (held.lease, held.until) == (None, START_S + 20)

    # --- the change log -------------------------------------------------------------------------

    async def test_c24_paging_while_writing_repeats_and_misses_nothing(
        self, open_store: OpenStore
    ) -> None:
        """Each item that was there throughout comes exactly once."""
        dice = random.Random(24)
        async with open_store() as store:
            lasting = [ranked(b"stay%d" % i) for i in range(60)]
            moving = [ranked(b"move%d" % i) for i in range(20)]
            await store.put_many([*lasting, *moving])
            seen: list[StoredItem] = []
            cursor, has_more = None, True
            while has_more:
                page = await store.changes(cursor, EVERY_CHANGE, 7, _BIG)
                seen += page.entries
                cursor, has_more = page.cursor, page.has_more
                if len(seen) < 70:
                    await store.put_many(
                        [ranked(b"move%d" % dice.randrange(40), seq=len(seen) + 2)]
                    )
                    await store.drop([ItemKey(moving[dice.randrange(20)].target, 3)])
            assert [s.position for s in seen] == sorted({s.position for s in seen})
            stayed = {item.target for item in lasting}
            assert len([s for s in seen if s.target in stayed]) == len(lasting)
            assert {s.target for s in seen} >= {s.target for s in await read_all(store)}

    async def test_g07_ties_of_seq_do_not_confuse_paging(self, open_store: OpenStore) -> None:
        """A thousand items of one seq, in pages of 64."""
        async with open_store() as store:
            items = [ranked(b"s%d" % i, seq=7) for i in range(1_000)]
            await store.put_many(items)
            pages = await read_pages(store, limit=64)
            assert [len(p.entries) for p in pages] == [64] * 15 + [40]
            assert [s.target for p in pages for s in p.entries] == targets_of(items)

    async def test_a_second_sync_costs_what_changed(self, open_store: OpenStore) -> None:
        """Nothing, where nothing did; one entry for a slot written twice."""
        async with open_store() as store:
            await store.put_many([ranked(b"s%d" % i) for i in range(50)])
            last = (await read_pages(store))[-1].cursor
            [page] = await read_pages(store, after=last)
            assert (page.entries, page.cursor, page.has_more) == ((), last, False)
            await store.put_many([ranked(b"s3", seq=2), ranked(b"s3"), ranked(b"s3", seq=3)])
            [page] = await read_pages(store, after=last)
            assert [s.item.seq for s in page.entries] == [3]

    async def test_filters_are_exact_and_move_the_cursor(self, open_store: OpenStore) -> None:
        """q10: quotes, wildcards, NUL and 200 bytes are salts like others."""
        async with open_store() as store:
            salts = [
                b"tp",
                b"TP",
                b"tp\0",
                b"",
                b"%",
                b"_p",
                b"'; DROP TABLE items; --",
                b"\xff" * 200,
            ]
            await store.put_many([ranked(b"a", salt=s, seq=i + 1) for i, s in enumerate(salts)])
            await store.put_many([ranked(b"b", salt=b"tp", seq=30)])
            for salt in salts:
                [page] = await read_pages(store, ChangeFilter(salt=salt, subject=b"a"))
                assert [s.item.salt for s in page.entries] == [salt]
                assert page.cursor.position == 9
                assert {s.item.salt for s in await store.listing(salt, *EVERYTHING, 99)} == {salt}
            [page] = await read_pages(store, ChangeFilter(salt=b"none"))
            assert (page.entries, page.cursor.position) == ((), 9)
            [both] = await read_pages(store, ChangeFilter(salt=b"tp"))
            [subject] = await read_pages(store, ChangeFilter(subject=b"a"), limit=99)
            assert (len(both.entries), len(subject.entries)) == (2, 8)
            assert len(await store.usage()) == 8

    async def test_o01_since_seq_is_a_filter_not_a_cursor(self, open_store: OpenStore) -> None:
        """Paging goes by position, whatever the seqs."""
        async with open_store() as store:
            await store.put_many([ranked(b"s%d" % i, seq=1 + i % 5) for i in range(20)])
            for since, expected in ((0, 20), (3, 8), (4, 4), (5, 0)):
                pages = await read_pages(store, ChangeFilter(since_seq=since), limit=3)
                assert sum(len(p.entries) for p in pages) == expected
                assert pages[-1].cursor.position == 20

    async def test_c23_pages_are_bounded_by_bytes(self, open_store: OpenStore) -> None:
        """At the limit and one over; one entry always comes."""
        async with open_store() as store:
            await store.put_many([ranked(b"s%d" % i, v=b"x" * 700) for i in range(5)])
            sizes = []
            for bytes_max in (0, 999, 1_999, 2_000, 2_001, 5_000):
                page = await store.changes(None, EVERY_CHANGE, 10, bytes_max)
                sizes.append((len(page.entries), page.has_more))
            assert sizes == [(1, True), (1, True), (1, True), (2, True), (2, True), (5, False)]
            await store.put_many([ranked(b"big", v=b"x" * 65_536)])
            assert len((await store.changes(None, EVERY_CHANGE, 6, _BIG)).entries) == 6
            assert (await store.changes(None, EVERY_CHANGE, 5, _BIG)).has_more

    async def test_foreign_and_future_cursors_are_refused(self, open_store: OpenStore) -> None:
        """By name, so that the reader reconciles."""
        async with open_store() as store, open_store() as other:
            await store.put_many([ranked()])
            await other.put_many([ranked()])
            for bad in (Cursor(b"?" * 16, 0), Cursor(store.store_id, 2)):
                with pytest.raises(CursorInvalidError):
                    await store.changes(bad, EVERY_CHANGE, 1, 1)
            assert not (await store.changes(Cursor(store.store_id, 1), EVERY_CHANGE, 1, 1)).entries

    # --- ranges ---------------------------------------------------------------------------------

    async def test_c31_equal_ranges_have_equal_fingerprints(self, open_store: OpenStore) -> None:
        """Parts add up to the whole; a lease alone makes a difference."""
        items = [ranked(b"s%d" % i, salt=b"ab"[i % 2 :][:1]) for i in range(300)]
        sixteenths = [
            (bytes((i << 4,)) + bytes(31), bytes((i << 4 | 15,)) + b"\xff" * 31) for i in range(16)
        ]
        async with open_store() as one, open_store() as two:
            await one.put_many(items)
            await one.fingerprints(None, [EVERYTHING])  # now it keeps sums up to date
            await two.put_many(items[::-1])
            for salt in (None, b"a", b"b", b"c"):
                ranges = [EVERYTHING, *sixteenths, (items[0].target, items[0].target)]
                prints = await one.fingerprints(salt, ranges)
                assert list(prints) == list(await two.fingerprints(salt, ranges))
                whole, *parts, _ = prints
                assert whole.items == sum(p.items for p in parts)
                assert whole.value == sum(p.value for p in parts) % 2**256
            await two.renew([lease_for(items[7], START_S + 999)], 0)
            [a], [b] = [await s.fingerprints(None, [EVERYTHING]) for s in (one, two)]
            assert (a.items, a.value != b.value) == (b.items, True)
            await two.drop([ItemKey(item.target, 3) for item in items])
            assert await two.fingerprints(None, [EVERYTHING]) == [(0, 0)]

    async def test_a_listing_is_in_order_and_limited(self, open_store: OpenStore) -> None:
        """By target, then class, both bounds included."""
        async with open_store() as store:
            items = [ranked(b"s%d" % i, item_class=c) for i in range(40) for c in (3, 1)]
            await store.put_many(items)
            keys = sorted((i.target, i.item_class) for i in items)
            listed = await store.listing(None, *EVERYTHING, 1_000)
            assert [(s.target, s.item_class) for s in listed] == keys
            low, high = keys[10][0], keys[21][0]
            part = await store.listing(b"tp", low, high, 5)
            assert [(s.target, s.item_class) for s in part] == keys[10:15]
            assert len(await store.listing(None, low, high, 99)) == 12
            assert await store.listing(None, high, low, 99) == []
            assert await store.listing(None, b"", b"", 99) == []
            assert len(await store.listing(None, b"", b"\xff" * 33, 99)) == 80
            odd = [
                (b"", b""),
                (high, low),
                (b"", b"\xff" * 33),
                (low, low + b"\0"),
                (b"", high[:1]),
            ]
            counts = [p.items for p in await store.fingerprints(None, odd)]
            expected = [sum(a <= key[0] <= b for key in keys) for a, b in odd]
            assert counts == expected

    # --- everything at once ---------------------------------------------------------------------

    @_RANDOM_WORK
    @given(work=steps())
    def test_random_work_agrees_with_the_model(
        self, open_store: OpenStore, work: list[Step]
    ) -> None:
        """Puts, renewals, drops, sweeps, pages and fingerprints, interleaved."""

        async def play() -> None:
            async with open_store() as store:
                await Player(store).play(work)

        anyio.run(play)

"""The gate as a whole: what is kept, served, refused and said, and that no order matters."""

from __future__ import annotations

import itertools
import random

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skycore.contracts.namespace import Form, Namespace
from skycore.contracts.store import ChangeFilter, ItemKey
from skycore.model.items import ItemClass, Kind, make_lease, mutable_item_target
from skycore.model.limits import TOMBSTONE_LIFETIME_S
from skycore.runtime.workers import ThreadWorkers

STORED, RENEWED, HELD, NOT_HELD = 0, 1, 2, 4
ITEM, TOO_BIG, BAD_SIGNATURE, CAS, TOO_LOW, TOO_FAR = 400, 205, 206, 301, 302, 303
FOREIGN, SCHEMA, EXPIRED = 401, 402, 404
NOTE = Namespace(b"note", 1, str, Form.SINGLE, {})
replace = msgspec.structs.replace


async def test_an_item_is_stored_once_and_read_back(house):
    item = house.item()
    assert await house.put(item) == [STORED]
    (stored,) = await house.read("alice")
    assert stored.item == item
    assert stored.sender == house.public("peer")
    assert await house.put(item) == [HELD]
    assert house.gate.counters == {"stored": 1, "held": 1}


async def test_c15_o14_d18_each_item_gets_its_own_true_outcome(house):
    old, new = house.item("bob", seq=5), house.item("bob", seq=9)
    await house.put(new)
    forged = replace(house.item("carol"), sig=bytes(64))
    batch = [
        house.item("alice"),
        forged,
        old,
        new,
        house.item("mallory", subject=house.public("alice")),
        house.item("dave", v=b"\xc1"),
        house.item("erin", life_s=-1),
        house.item("frank", seq=2**62),
        replace(house.item("grace"), v=bytes(65_537)),
        replace(house.item("heidi"), subject=b""),
    ]
    outcomes = await house.outcomes(*batch)
    assert [o.code for o in outcomes] == [
        STORED, BAD_SIGNATURE, TOO_LOW, HELD, FOREIGN, SCHEMA, EXPIRED, TOO_FAR, TOO_BIG, ITEM,
    ]  # fmt: skip
    assert outcomes[2].seq == 9
    assert all(o.text for o in outcomes if o.code >= 200)
    assert len(await house.contents()) == 2
    assert house.gate.counters["SeqTooLowError"] == 1


async def test_a_refusal_does_not_repeat_what_a_stranger_wrote_at_length(open_house):
    from namespaces_skywire.declarations import DMSG

    async with open_house(namespaces=[DMSG]) as house:
        v = msgspec.msgpack.encode((1, {"static": "ab", "x\n" * 20_000: 1}))
        (outcome,) = await house.outcomes(house.item(salt=b"dmsg", v=v))
        assert outcome.code == SCHEMA
        assert len(outcome.text) <= 300


async def test_a_batch_costs_a_store_few_calls(house):
    await house.put(*(house.item(f"k{n}") for n in range(300)))
    assert house.store.calls == ["get", "signer_usage", "put_many"]


async def test_what_is_held_is_known_without_a_signature_check(house):
    items = [house.item(f"k{n}") for n in range(100)]
    await house.put(*items)
    before = house.suite.verified
    assert set(await house.put(*items)) == {HELD}
    assert set(await house.put(*(house.item(f"k{n}", seq=1) for n in range(100)))) == {TOO_LOW}
    assert house.suite.verified == before
    twin = replace(items[0], sig=bytes(64))
    assert await house.put(twin) == [BAD_SIGNATURE]


async def test_a_damaged_copy_of_what_is_held_is_not_held(house):
    item = house.item()
    await house.put(item)
    assert await house.put(replace(item, v=item.v + b"x")) == [SCHEMA]
    assert await house.put(replace(item, until=item.until + 1)) == [BAD_SIGNATURE]


async def test_o02_the_owner_cannot_be_overwritten(house):
    mine = house.item("alice", "mine")
    for forged in (
        house.item("mallory", "hers", subject=house.public("alice"), seq=2**63 - 1),
        house.item("mallory", "hers", subject=house.public("alice")),
        replace(house.item("mallory", "hers"), subject=house.public("alice")),
    ):
        assert await house.put(forged) != [STORED]
        assert await house.read("alice") == []
    assert await house.put(mine) == [STORED]
    assert [s.item for s in await house.read("alice")] == [mine]


async def test_c1_d14_0_of_10000_forged_puts_are_visible(open_house):
    """Every field of a valid item, damaged in every way that keeps its form."""
    async with open_house(sender_bytes_per_minute=10**9) as house:
        genuine, bob = house.item(seq=10**18), house.public("bob")
        forged = []
        for n in range(2_500):
            bit, place = 1 << n % 8, n // 8
            sig, v = bytearray(genuine.sig), bytearray(genuine.v)
            sig[place % 64] ^= bit
            v[-1 - place % 5] ^= bit & 0x1F or 1
            forged += (
                replace(genuine, sig=bytes(sig)),
                replace(genuine, v=bytes(v)),
                replace(genuine, seq=genuine.seq - 1 - n),
                replace(genuine, subject=bob, signer=bob, until=genuine.until + n % 500),
            )
        codes = await house.put(*forged)
        assert len(codes) == 10_000
        assert min(codes) > HELD
        assert await house.contents() == {}
        assert await house.put(genuine) == [STORED]
        await house.put(*forged[:1_000])
        assert [s.item for s in await house.read("alice")] == [genuine]


# --- order ----------------------------------------------------------------------------------------


async def test_d6_d10_an_old_item_never_returns(house):
    first, second = house.item(v="one", seq=10), house.item(v="two", seq=11)
    assert await house.put(first, second, first) == [STORED, STORED, TOO_LOW]
    assert await house.put(first) == [TOO_LOW]
    (stored,) = await house.read("alice")
    assert stored.item == second


async def test_d7_equal_seqs_are_decided_by_content_alone(open_house):
    async with open_house() as one, open_house() as two:
        items = [one.item(v=f"v{n}", seq=7) for n in range(6)]
        await one.put(*items)
        await two.put(*reversed(items))
        assert await one.contents() == await two.contents()
        assert len(await one.contents()) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 24))
async def test_c8_any_interleaving_gives_byte_identical_stores(open_house, seed, count):
    """Owners, delegates and mirrors, values, tombstones and manifests, leases, in any order.

    Blocks come with their head, some of them, none or too many, in one store or the other.
    """
    dice = random.Random(seed)
    async with open_house() as one, open_house() as two:
        pool, trees = _everybodys_items(one, dice, count)
        blocks = [block for tree in trees.values() for block in tree.blocks.values()]
        for house in (one, two):
            order = [*pool, *dice.choices(pool, k=count // 2)]
            dice.shuffle(order)
            while order:
                size = dice.randint(1, 5)
                batch, order = order[:size], order[size:]
                given = dice.sample(blocks, dice.randint(0, len(blocks)))
                leases = [lease for _, lease in batch]
                await house.put(*(i for i, _ in batch), leases=leases, blocks=given)
        # A lease that came before its item was overtaken is lost; both stores see all once more.
        for house in (one, two):
            await house.put(*(i for i, _ in pool), leases=[x for _, x in pool], blocks=blocks)
        assert await one.contents() == await two.contents()
        for _, _, item, _ in (await one.contents()).values():
            if item.kind == Kind.MANIFEST:
                assert await one.gate.tree(item) == trees[item.v].blocks
                assert await two.gate.tree(item) == trees[item.v].blocks
        best = {}
        for item, _ in pool:
            ranked = one.gate.judge(item)
            key = ItemKey(ranked.target, ranked.item_class)
            best[key] = max(best.get(key, b""), ranked.rank)
        assert {key: row[0] for key, row in (await one.contents()).items()} == best


def _everybodys_items(house, dice, count):
    pool = []
    planted = [house.tree(b"note", NOTE.encode(text * 70_000)) for text in "ab"]
    trees = {tree.manifest: tree for tree in planted}
    for _ in range(count):
        subject = dice.choice(["alice", "bob"])
        issuer = dice.choice([None, subject, "authority"])
        signer = subject if issuer is None else dice.choice(["carol", "dave"])
        v = dice.choice([None, "x", "y", *trees])
        item = house.item(
            signer,
            v,
            kind=Kind.MANIFEST if v in trees else None,
            subject=None if issuer is None else house.public(subject),
            delegation=issuer
            and house.delegation(issuer, signer, life_s=dice.choice([5_000, 6_000])),
            seq=house.clock.wall_ns() + dice.randint(0, 3),
            life_s=dice.randint(1, 100),
        )
        lease = None
        if item.kind != Kind.TOMBSTONE and dice.random() < 0.4:
            until = house.clock.wall_s() + dice.randint(100, 3_000)
            lease = make_lease(house.network, house.key(signer), house.gate.judge(item), until)
        pool.append((item, lease))
    return pool, trees


async def test_reading_gives_the_highest_class_first(house):
    alice = house.public("alice")
    mirror = house.item("m", subject=alice, delegation=house.delegation("authority", "m"))
    delegate = house.item("d", subject=alice, delegation=house.delegation("alice", "d"))
    owner = house.item("alice", seq=1)
    assert await house.put(mirror, delegate, owner) == [STORED] * 3
    assert [s.item for s in await house.read("alice")] == [owner, delegate, mirror]


# --- cas ------------------------------------------------------------------------------------------


async def test_c10_d9_of_two_writers_exactly_one_succeeds(house):
    await house.put(house.item(v="base", seq=100))
    won = 0

    async def write(name: str, seq: int) -> None:
        nonlocal won
        (outcome,) = await house.outcomes(house.item(v=name, seq=seq), cas=[100])
        won += outcome.code == STORED
        if outcome.code != STORED:
            assert outcome.code == CAS
            assert outcome.seq in (101, 102)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, "one", 101)
        tasks.start_soon(write, "two", 102)
    assert won == 1


async def test_c10_cas_0_means_absent_deleted_or_expired(house):
    assert await house.put(house.item(seq=1, life_s=50), cas=[7]) == [CAS]
    assert await house.put(house.item(seq=1, life_s=50), cas=[0]) == [STORED]
    assert await house.put(house.item(v="2", seq=2), cas=[0]) == [CAS]
    house.clock.advance(50)
    assert await house.put(house.item(v="3", seq=3), cas=[0]) == [STORED]
    await house.put(house.item(v=None))
    later = house.clock.wall_ns() + 5
    assert await house.put(house.item(v="4", seq=later), cas=[0]) == [STORED]
    assert await house.put(house.item(v="4", seq=later), cas=[0]) == [HELD]


# --- life and death -------------------------------------------------------------------------------


async def test_c11_c12_d28_a_delete_is_an_item_that_wins(house):
    before = house.item(v="before")
    await house.put(before)
    house.clock.advance(1)
    gone = house.item(v=None, life_s=TOMBSTONE_LIFETIME_S)
    assert await house.put(gone) == [STORED]
    (stored,) = await house.read("alice")
    assert (stored.item.kind, stored.item.v) == (Kind.TOMBSTONE, b"")
    assert await house.put(before) == [TOO_LOW]
    await house.gate.sweep()
    assert await house.put(before) == [TOO_LOW]
    house.clock.advance(TOMBSTONE_LIFETIME_S)
    assert await house.put(before) == [EXPIRED]  # long before its tombstone is forgotten


async def test_o11_what_has_expired_is_not_served_and_not_taken_again(open_house):
    async with open_house() as one, open_house() as two:
        two.clock = one.clock
        item = one.item(life_s=100)
        await one.put(item)
        one.clock.advance(60)
        await two.put(item)
        one.clock.advance(39)
        assert len(await one.read("alice")) == 1
        one.clock.advance(1)
        assert await one.read("alice") == []
        assert (await one.gate.changes(None, ChangeFilter(), 10, 10**6)).entries == ()
        assert await one.contents() == {}
        assert await one.put(item) == [EXPIRED]


async def test_an_expired_item_does_not_block_a_live_one(house):
    await house.put(house.item(seq=50, life_s=10))
    house.clock.advance(10)
    late = house.item(seq=40)
    assert await house.put(late) == [STORED]
    assert [s.item for s in await house.read("alice")] == [late]


async def test_a_sweep_drops_what_is_over_and_nothing_else(open_house):
    async with open_house(sweep_interval_s=3_600) as house:
        await house.put(house.item("alice", life_s=10), house.item("bob", life_s=20))
        house.clock.advance(11)
        assert await house.gate.sweep() == 1
        assert sum(used.items for used in (await house.gate.usage()).values()) == 1


async def test_c37_a_read_may_ask_for_a_greatest_age(house):
    await house.put(house.item())
    target = mutable_item_target(house.public("alice"), b"note")
    house.clock.advance(30)
    assert len(await house.gate.get(target, age_max_s=30)) == 1
    assert await house.gate.get(target, age_max_s=29) == ()
    assert len(await house.gate.get(target)) == 1


async def test_dropping_forgets(house):
    await house.put(house.item())
    target = mutable_item_target(house.public("alice"), b"note")
    assert await house.gate.drop([ItemKey(target, int(ItemClass.OWNER))]) == 1
    assert await house.read("alice") == []
    assert await house.put(house.item()) == [STORED]


async def test_pages_and_listings_skip_the_dead_and_end_only_at_the_end(house):
    live = [house.item(f"live{n}", life_s=1_000) for n in range(7)]
    dead = [house.item(f"dead{n}", life_s=10) for n in range(40)]
    await house.put(*dead[:20], *live[:3], *dead[20:], *live[3:])
    house.clock.advance(10)
    seen, cursor = [], None
    for _ in range(100):
        page = await house.gate.changes(cursor, ChangeFilter(), 5, 10**6)
        seen += [s.item for s in page.entries]
        cursor = page.cursor
        assert page.entries or not page.has_more
        if not page.has_more:
            break
    assert seen == live
    for limit in (1, 2, 6, 7, 8, 50):
        found = await house.gate.listing(None, bytes(32), b"\xff" * 32, limit)
        assert len(found) == min(limit, 7)
        assert [s.target for s in found] == sorted(i.target for i in live)[:limit]


# --- leases ---------------------------------------------------------------------------------------


async def test_c17_a_lease_prolongs_and_the_largest_wins(house):
    item = house.item(life_s=100)
    await house.put(item)
    (stored,) = await house.read("alice")
    now_s, key = house.clock.wall_s(), house.key("alice")
    near, far = (make_lease(house.network, key, stored, now_s + s) for s in (200, 300))

    async def renew(*leases):
        return [o.code for o in await house.gate.renew(leases, sender=house.public("peer"))]

    assert await renew(far, near, far) == [RENEWED, HELD, HELD]
    assert await renew(replace(far, until=far.until + 1)) == [BAD_SIGNATURE]
    assert await renew(replace(near, digest=bytes(32))) == [NOT_HELD]
    assert await renew(replace(near, target=bytes(32))) == [NOT_HELD]
    assert await renew(replace(far, until=now_s + 10**6)) == [EXPIRED]
    house.clock.advance(250)
    assert len(await house.read("alice")) == 1
    assert house.suite.verified <= 5
    house.clock.advance(50)
    assert await house.read("alice") == []
    assert await renew(make_lease(house.network, key, stored, house.clock.wall_s() + 9)) == [
        NOT_HELD
    ]


async def test_c17_a_lease_travels_with_its_item(open_house):
    """What one store keeps by a lease, another takes over after the item's own end."""
    async with open_house() as one, open_house(clock=one.clock) as two:
        item = one.item(life_s=100)
        await one.put(item)
        (stored,) = await one.read("alice")
        lease = make_lease(one.network, one.key("alice"), stored, one.clock.wall_s() + 900)
        await one.gate.renew([lease], sender=one.public("peer"))
        one.clock.advance(500)
        (stored,) = await one.read("alice")
        assert await two.put(item) == [EXPIRED]
        assert await two.put(item, leases=[replace(lease, sig=bytes(64))]) == [BAD_SIGNATURE]
        assert await two.put(stored.item, leases=[stored.lease]) == [STORED]
        assert await two.put(stored.item, leases=[stored.lease]) == [HELD]
        assert await one.contents() == await two.contents()


async def test_a_lease_with_an_item_that_is_held_renews_it(house):
    item = house.item(life_s=100)
    await house.put(item)
    (stored,) = await house.read("alice")
    until = house.clock.wall_s() + 900
    lease = make_lease(house.network, house.key("alice"), stored, until)
    bad = replace(lease, until=until + 1)
    assert await house.put(item, leases=[bad]) == [BAD_SIGNATURE]
    assert await house.put(item, leases=[lease]) == [RENEWED]
    house.clock.advance(500)
    await house.gate.sweep()
    assert (await house.read("alice"))[0].until == until


async def test_c17_an_expired_item_comes_back_with_a_live_lease(house):
    item = house.item(life_s=100)
    await house.put(item)
    (stored,) = await house.read("alice")
    house.clock.advance(200)
    lease = make_lease(house.network, house.key("alice"), stored, house.clock.wall_s() + 50)
    assert await house.put(item, leases=[lease]) == [RENEWED]
    assert len(await house.read("alice")) == 1


# --- many at once ---------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [64, 65, 511, 512, 513, 1_100])
async def test_big_batches_go_through_threads_and_keep_their_order(open_house, count):
    async with open_house(workers=ThreadWorkers(2), signer_items_max=5_000) as house:
        items = [house.item("alice", v=b"%d" % n, salt=b"s%d" % n) for n in range(count)]
        bad = set(range(0, count, 7))
        mixed = [replace(i, sig=bytes(64)) if n in bad else i for n, i in enumerate(items)]
        codes = await house.put(*mixed)
        assert codes == [BAD_SIGNATURE if n in bad else STORED for n in range(count)]
        assert len(await house.contents()) == count - len(bad)


async def test_the_loop_breathes_during_a_big_batch(open_house):
    async with open_house(signer_items_max=5_000) as house:
        items = [house.item("alice", v=bytes(9_000), salt=b"s%d" % n) for n in range(200)]
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            for turns in itertools.count():  # noqa: B007
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count_turns)
            assert set(await house.put(*items)) == {STORED}
            tasks.cancel_scope.cancel()
        assert turns >= 200 * 9_000 // (128 * 1024)


async def test_a_store_that_fails_fails_the_call_and_leaks_no_place(open_house):
    from skycore.errors import StoreError

    class Broken:
        def __init__(self, store):
            self._store = store

        def __getattr__(self, name):
            return getattr(self._store, name)

        async def put_many(self, items, blocks=None):
            raise StoreError("the disk is full")

    async with open_house(items_max=1) as house:
        sound = house.gate._storer._store
        house.gate._storer._store = Broken(sound)
        for n in range(3):
            with pytest.raises(StoreError):
                await house.put(house.item(f"k{n}"))
        house.gate._storer._store = sound
        assert await house.put(house.item()) == [STORED]

"""Room and rates: on every path, never at the cost of what is here, and said once."""

from __future__ import annotations

import hashlib
import logging

import anyio
import msgspec
import pytest
from pydantic import ValidationError

from skycore.contracts.store import CapacityChanged
from skycore.guards.quota import SENDERS_REMEMBERED_MAX, GateSettings
from skycore.model.limits import ENTRY_BYTES

STORED, HELD, MISSING, TOO_LOW, QUOTA = 0, 2, 3, 302, 403


async def test_c7_a_hostile_pusher_displaces_nothing(open_house):
    """Ten thousand items from a thousand keys against a small store."""
    async with open_house(items_max=200, signer_items_max=50) as house:
        mine = [house.item("me", salt=b"s%d" % n, v=b"mine") for n in range(20)]
        honest = [house.item(f"honest{n}") for n in range(30)]
        assert set(await house.put(*mine, sender="me")) == {STORED}
        assert set(await house.put(*honest)) == {STORED}
        for wave in range(10):
            flood = [
                house.item(f"sybil{wave}-{n % 100}", salt=b"x%d" % n, v=b"spam")
                for n in range(1_000)
            ]
            await house.put(*flood, sender="mallory")
        usage = await house.gate.usage()
        assert sum(used.items for used in usage.values()) == 200
        held = await house.contents()
        kept = {row[2] for row in held.values()}
        assert kept.issuperset(mine)
        assert kept.issuperset(honest)
        house.clock.advance(1)
        more = [house.item("me", salt=b"t%d" % n, v=b"mine") for n in range(50)]
        assert set(await house.put(*more, sender="me")) == {STORED}
        update = house.item("honest0", "news")
        assert await house.put(update) == [STORED]
        assert house.gate.counters["QuotaError"] > 9_000


@pytest.mark.parametrize(
    ("keys", "each"), [(1_000, 10), pytest.param(10_000, 10, marks=pytest.mark.soak)]
)
async def test_c07_a_flood_leaves_what_is_here_and_stays_within_its_bounds(
    open_house, monkeypatch, keys, each
):
    """Puts by keys without number: what we signed and what we hold stays, and room is bounded.

    Signatures are taken for good, whoever made them, so that the flood costs the attacker nothing.
    """
    limits = {"items_max": 2_000, "value_bytes_max": 1_500_000, "pending_bytes_max": 300_000}
    async with open_house(**limits, sender_bytes_per_minute=10**9) as house:
        mine = [house.item("me", salt=b"s%d" % n, v=b"mine") for n in range(50)]
        held = [house.item(f"honest{n}", "kept") for n in range(200)]
        tree = house.tree(b"note", b"\x92\x01\xdb" + (70_000).to_bytes(4, "big") + b"x" * 70_000)
        large = house.head(tree, "honest0", salt=b"other")
        assert set(await house.put(*mine, sender="me")) == {STORED}
        assert set(await house.put(*held)) == {STORED}
        assert await house.put(large, blocks=list(tree.blocks.values())) == [STORED]
        monkeypatch.setattr(house.suite, "verify", lambda *_: True)
        template = house.item("mallory", salt=b"spam", v=bytes(900), life_s=600)
        head = house.head(tree, "mallory", salt=b"spam", life_s=600)
        codes = set()
        for key in range(keys):
            name = hashlib.sha256(b"%d" % key).digest()
            flood = [
                msgspec.structs.replace(template, signer=name, subject=name, salt=b"x%d" % n)
                for n in range(each - 1)
            ]
            flood.append(msgspec.structs.replace(head, signer=name, subject=name))
            codes.update(await house.put(*flood, blocks=list(tree.blocks.values())[:9]))
            if key % 100 == 0:
                house.clock.advance(0.5)
                used = (await house.gate.usage()).values()
                assert sum(u.items for u in used) <= limits["items_max"]
                assert sum(u.bytes for u in used) <= limits["value_bytes_max"]
                assert house.gate._heads._pending.bytes <= limits["pending_bytes_max"]
        assert codes <= {STORED, MISSING, QUOTA}
        kept = {row[2] for row in (await house.contents()).values()}
        assert kept.issuperset([*mine, *held, large])
        (stored,) = await house.read("honest0", b"other")
        assert len(await house.gate.value(stored)) > 70_000
        assert len(house.gate._heads._pending) < 40


async def test_c25_o23_a_full_node_holds_exactly_as_many_as_it_says(open_house):
    """And its own advert always fits."""
    async with open_house(items_max=100) as house:
        with house.events.subscribe(CapacityChanged) as told:
            items = [house.item(f"k{n}") for n in range(130)]
            codes = await house.put(*items[:70]) + await house.put(*items[70:])
            assert codes == [STORED] * 100 + [QUOTA] * 30
            assert (await anext(told)).is_full
        assert sum(u.items for u in (await house.gate.usage()).values()) == 100
        (outcome,) = await house.outcomes(items[-1])
        assert outcome.code == QUOTA
        assert "full" in outcome.text
        assert await house.put(house.item("me", salt=b"advert", v=b""), sender="me") == [STORED]
        house.clock.advance(1)
        assert await house.put(house.item("me", salt=b"advert", v=b"2"), sender="me") == [STORED]


async def test_d16_o03_one_key_has_its_bound(open_house):
    async with open_house(signer_items_max=10) as house:
        items = [house.item("alice", salt=b"s%d" % n, v=b"") for n in range(12)]
        assert await house.put(*items) == [STORED] * 10 + [QUOTA] * 2
        assert await house.put(house.item("bob")) == [STORED]
        assert await house.put(*items[:10]) == [HELD] * 10
        house.clock.advance(1)
        newer = house.item("alice", salt=b"s0", v=b"new")
        assert await house.put(newer) == [STORED]


async def test_a_key_has_its_bytes(open_house):
    async with open_house(signer_bytes_max=1_000) as house:
        big = [house.item("alice", salt=b"%d" % n, v=bytes(400)) for n in range(3)]
        assert await house.put(*big) == [STORED, STORED, QUOTA]
        house.clock.advance(1)
        grown = house.item("alice", salt=b"0", v=bytes(601))
        assert await house.put(grown) == [QUOTA]
        assert await house.put(house.item("alice", salt=b"0", v=bytes(600))) == [STORED]


async def test_a_delegated_mirror_has_a_larger_bound(open_house):
    async with open_house(signer_items_max=5, mirror_items_max=30) as house:
        token = house.delegation("authority", "mirror")
        items = [
            house.item("mirror", subject=b"subject%d" % n, delegation=token) for n in range(32)
        ]
        assert await house.put(*items) == [STORED] * 30 + [QUOTA] * 2
        token = house.delegation("alice", "helper")
        alice = house.public("alice")
        assert await house.put(house.item("helper", subject=alice, delegation=token)) == [STORED]


async def test_unknown_salts_share_little_room(open_house):
    async with open_house(unknown_items_max=3) as house:
        strange = [house.item(f"k{n}", salt=b"strange", v=b"") for n in range(5)]
        assert await house.put(*strange) == [STORED] * 3 + [QUOTA] * 2
        assert await house.put(house.item("alice")) == [STORED]


async def test_bytes_of_values_are_bounded(open_house):
    async with open_house(value_bytes_max=1_000) as house:
        items = [house.item(f"k{n}", salt=b"x", v=bytes(300)) for n in range(5)]
        assert await house.put(*items) == [STORED] * 3 + [QUOTA] * 2


async def test_c7_many_updates_of_one_slot_make_no_room(open_house):
    """Each of a batch is smaller than what was there before the batch; the last one is not."""
    big = b"x" * 60_000
    async with open_house(value_bytes_max=200_000) as house:
        seq = house.clock.wall_ns()
        assert await house.put(house.item(salt=b"x", v=big, seq=seq)) == [STORED]
        small = [house.item(salt=b"x", v=b"small", seq=seq + n) for n in range(1, 20)]
        again = house.item(salt=b"x", v=big, seq=seq + 20)
        assert set(await house.put(*small, again)) == {STORED}
        more = [house.item(f"bob{n}", salt=b"x", v=big) for n in range(9)]
        assert await house.put(*more) == [STORED] * 2 + [QUOTA] * 7
        assert (await house.gate.usage())[b"x"].bytes == 180_000


async def test_what_shrinks_makes_room_at_once_where_it_is_needed(open_house):
    async with open_house(value_bytes_max=100_000) as house:
        assert await house.put(house.item(salt=b"x", v=b"x" * 60_000)) == [STORED]
        house.clock.advance(1)
        assert await house.put(house.item(salt=b"x", v=b"small")) == [STORED]
        assert await house.put(house.item("bob", salt=b"x", v=b"x" * 60_000)) == [STORED]


async def test_c25_a_full_store_says_so_once_and_again_when_it_has_room(open_house, caplog):
    caplog.set_level(logging.INFO, "skycore.guards.quota")
    async with open_house(items_max=10) as house:
        with house.events.subscribe(CapacityChanged) as changes:
            await house.put(*(house.item(f"k{n}", life_s=100) for n in range(30)))
            await house.put(*(house.item(f"m{n}", life_s=100) for n in range(30)))
            house.clock.advance(101)
            await house.gate.sweep()
            heard = [await anext(changes) for _ in range(2)]
            assert not changes._held
    assert [(c.is_full, c.items) for c in heard] == [(True, 10), (False, 0)]
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]


async def test_what_has_expired_makes_room_before_anybody_is_refused(open_house):
    async with open_house(items_max=10, sweep_interval_s=10_000) as house:
        assert set(await house.put(*(house.item(f"k{n}", life_s=50) for n in range(10)))) == {0}
        assert await house.put(house.item("late")) == [QUOTA]
        house.clock.advance(51)
        assert await house.put(house.item("later")) == [STORED]
        assert sum(used.items for used in (await house.gate.usage()).values()) == 1


async def test_a_sender_has_its_bytes_a_minute(open_house):
    cost = ENTRY_BYTES + len("hello") + 3
    async with open_house(sender_bytes_per_minute=10 * cost) as house:
        first = [house.item(f"a{n}") for n in range(12)]
        assert await house.put(*first, sender="mallory") == [STORED] * 10 + [QUOTA] * 2
        assert await house.put(house.item("b"), sender="bob") == [STORED]
        house.clock.advance(12)
        again = [house.item(f"b{n}") for n in range(4)]
        assert await house.put(*again, sender="mallory") == [STORED] * 2 + [QUOTA] * 2
        own = [house.item(f"c{n}") for n in range(30)]
        assert set(await house.put(*own, sender="me")) == {STORED}
        assert (await house.gate.renew([], sender=b"")) == []


async def test_senders_are_remembered_within_bounds(open_house):
    async with open_house() as house:
        quotas = house.gate._quotas
        for n in range(SENDERS_REMEMBERED_MAX + 50):
            quotas.take(n.to_bytes(4, "big"), 1, 0.0)
        assert len(quotas._senders) == SENDERS_REMEMBERED_MAX


async def test_admissions_at_the_same_time_do_not_share_one_place(open_house):
    async with open_house(items_max=10, signer_items_max=4) as house:
        async with anyio.create_task_group() as tasks:
            for n in range(20):
                tasks.start_soon(house.put, house.item("alice", salt=b"%d" % n, v=b""))
                tasks.start_soon(house.put, house.item(f"k{n}"))
        usage = await house.store.signer_usage([house.public("alice")])
        assert usage[0].items == 4
        assert len(await house.contents()) == 10
        assert house.gate._quotas._on_way == {}


@pytest.mark.parametrize("many", [1, 600])
async def test_quotas_hold_for_batches_and_single_puts_alike(open_house, many):
    async with open_house(signer_items_max=100) as house:
        items = [house.item("alice", salt=b"s%d" % n, v=b"") for n in range(600)]
        for start in range(0, 600, many):
            await house.put(*items[start : start + many])
        assert len(await house.contents()) == 100


@pytest.mark.parametrize("wrong", [{"items_max": -1}, {"sweep_interval_s": 0}])
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ValidationError):
        GateSettings(**wrong)


async def test_c7_what_a_mirror_signs_for_others_leaves_room_for_its_own_records(open_house):
    async with open_house(signer_items_max=2, mirror_items_max=5) as house:
        token = house.delegation("authority", "mirror")
        mirrored = [house.item("mirror", subject=b"%d" % n, delegation=token) for n in range(5)]
        assert await house.put(*mirrored) == [STORED] * 5
        own = [house.item("mirror", salt=b"own/%d" % n) for n in range(3)]
        assert await house.put(*own) == [STORED, STORED, QUOTA]

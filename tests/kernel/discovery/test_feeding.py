"""What a directory lists is what is published, also when it ends or the mirror was away."""

from __future__ import annotations

import contextlib
import random

import anyio
import pytest

from skycore.contracts.registry import RegistryWrite
from skycore.discovery.holding import HELD_S
from skycore.errors import NamespaceError, StoreError
from skycore.testing import sim_backend
from skycore.testing.fakes import identity
from skycore.testing.seams import SimClock
from tests.kernel.discovery.feedings import (
    ME,
    NETWORK,
    TABLE,
    Side,
    body_of,
    equal,
    key,
    listing,
    open_side,
    service,
    until,
)


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=12 * 3_600)


@pytest.fixture
async def side():
    async with open_side(SimClock()) as one:
        yield one


async def test_what_is_listed_is_published_and_compared(side):
    async with side.feeding() as feeding:
        await side.tell(listing("alice", 1, 2), listing("bob", 3))
        await anyio.sleep(1)
        assert await side.standing() == {key("alice"): [1, 2], key("bob"): [3]}
        await side.tell(listing("alice", 2))
        await anyio.sleep(1)
        assert await side.standing() == side.listed()
        await feeding.verify()
        fields = feeding.status_fields()
        assert fields["differences"] == 0 and fields["feed_waiting"] == 0
        assert fields["feed_published"] == 3 and "feed_trouble" not in fields


async def test_l6_what_ends_or_is_removed_is_deleted_there_within_one_sweep(side):
    async with side.feeding(sweep_s=5) as feeding:
        await side.tell(listing("alice", 1, lifetime_s=20), listing("bob", 2, lifetime_s=300))
        await anyio.sleep(1)
        assert len(await side.standing()) == 2
        await anyio.sleep(19 + 5 + 1)
        assert await side.standing() == {key("bob"): [2]}
        await side.tell(listing("bob"))
        await anyio.sleep(1)
        assert await side.standing() == {}
        await feeding.verify()
        assert feeding.differences == 0


async def test_l6_a_backfill_deletes_what_an_earlier_run_published(side):
    async with side.feeding():
        await side.tell(listing("alice", 1), listing("bob", 2))
        await anyio.sleep(1)
    await side.registry.write(TABLE, [listing("bob"), listing("carol", 3)])
    async with side.feeding() as feeding:
        await anyio.sleep(1)
        assert await side.standing() == {key("alice"): [1], key("carol"): [3]}
        await feeding.verify()
        assert feeding.differences == 0


async def test_l9_unchanged_listings_are_not_signed_again_also_over_a_restart(side):
    async with side.feeding() as feeding:
        await side.tell(listing("alice", 1), listing("bob", 2))
        await anyio.sleep(1)
        sent = side.mirror.items_sent
        for _ in range(10):
            await anyio.sleep(90)
            await side.tell(listing("alice", 1), listing("bob", 2))
        assert side.mirror.items_sent == sent == 2
    async with side.feeding() as feeding:
        await anyio.sleep(1)
        assert side.mirror.items_sent == sent
        assert feeding.counters["unchanged"] == 2


async def test_l22_a_mirror_that_is_away_holds_up_nothing_and_is_caught_up(side):
    async with side.feeding() as feeding:
        side.mirror.is_down = True
        for turn in range(30):
            await side.tell(*(listing(f"visor{n}", turn + 1) for n in range(20)))
            await anyio.sleep(10)
        assert await side.standing() == {}
        assert feeding.waiting == 20  # subjects, not changes
        fields = feeding.status_fields()
        assert fields["feed_trouble"] == "away" and fields["feed_lag_s"] > 250
        side.mirror.is_down = False
        await until(lambda: equal(side), 75)
        await feeding.verify()
        assert feeding.status_fields()["differences"] == 0 and feeding.waiting == 0


async def test_without_a_delegation_everything_waits_and_the_command_is_named(side):
    async with side.feeding(salts=()) as feeding:
        await side.tell(listing("alice", 1))
        await anyio.sleep(30)
        fields = feeding.status_fields()
        assert fields["feed_waiting"] == 1 and "no delegation" in fields["feed_trouble"]
        assert f"skynode network delegate {ME.public.hex()} --salt svc" in fields["feed_hint"]
        assert await side.standing() == {}
    async with side.feeding() as feeding:
        await anyio.sleep(1)
        assert await side.standing() == {key("alice"): [1]}


async def test_one_bad_listing_does_not_hold_up_the_others(side):
    def make_body(listed):
        if listed.subject == key("mallory"):
            raise NamespaceError("not what it should be")
        return body_of(listed)

    async with side.feeding(make_body=make_body) as feeding:
        foreign = RegistryWrite(key("eve"), put=(service("alice", 1),))  # the gate's rule refuses
        await side.tell(
            *(listing(f"visor{n}", 1) for n in range(10)), listing("mallory", 1), foreign
        )
        await anyio.sleep(1)
        assert len(await side.standing()) == 10
        await feeding.verify()
        fields = feeding.status_fields()
        assert fields["feed_refused"] == 2 and fields["differences"] == 2
        assert {row[:8] for row in fields["feed_refusals"]} == {
            key("mallory").hex()[:8], key("eve").hex()[:8],
        }  # fmt: skip
        refused = feeding.counters["refused"]
        await anyio.sleep(300)
        assert feeding.counters["refused"] == refused  # no try that cannot end otherwise
        await side.tell(RegistryWrite(key("eve"), put=(service("eve", 4),), whole=True))
        await anyio.sleep(1)
        assert (await side.standing())[key("eve")] == [4]


async def test_m16_what_something_else_published_under_the_salt_stays(side):
    """An imported recording on the node that runs the service: it lists none of it."""
    async with side.feeding() as feeding:
        await side.tell(listing("alice", 1), listing("bob", 2))
        await anyio.sleep(1)
        await feeding.verify()
        other = Side(side.clock)  # the same key publishes, but not this feeding
        other.own, other.mirrors = side.own, side.mirrors
        async with other.feeding():
            await other.tell(listing("imported", 9))
            await anyio.sleep(1)
        for _ in range(3):
            await feeding.verify()
            await anyio.sleep(2)
        assert feeding.differences == 0
        assert (await side.standing())[key("imported")] == [9]


async def test_own_record_is_this_node_s_own_business(side):
    async with side.feeding() as feeding:
        await side.tell(RegistryWrite(bytes(ME.public), put=(service("server", 1),)))
        await anyio.sleep(1)
        assert await side.standing() == {}
        await feeding.verify()
        assert feeding.differences == 0


async def test_a_registry_that_lost_everything_takes_nothing_down_with_it(side):
    async with side.feeding(sweep_s=5) as feeding:
        everybody = [listing(f"visor{n}", n + 1) for n in range(60)]
        await side.tell(*everybody)
        await anyio.sleep(1)
        assert len(await side.standing()) == 60
        side.registry.flush()
        await anyio.sleep(20)
        assert len(side.directory) == 0 and len(await side.standing()) == 60
        await side.tell(*everybody[:59])  # all but one come back
        await anyio.sleep(HELD_S)
        await feeding.verify()
        await anyio.sleep(2)
        assert await side.standing() == side.listed() and len(side.directory) == 59


async def test_l6_who_comes_back_last_was_never_away(side):
    """A registry is emptied, and visors register again one after the other over 80 s."""
    async with side.feeding(sweep_s=5):
        everybody = [listing(f"visor{n}", n + 1) for n in range(80)]
        await side.tell(*everybody)
        await anyio.sleep(1)
        side.registry.flush()
        await anyio.sleep(8)
        for one in everybody:
            await side.tell(one)
            await anyio.sleep(1)
            assert len(await side.standing()) == 80
        await side.tell(RegistryWrite(key("visor0"), whole=True))  # a deletion is one again
        await anyio.sleep(1)
        assert len(await side.standing()) == 79


async def test_if_everybody_is_really_gone_so_are_the_records(side):
    async with side.feeding(sweep_s=5) as feeding:
        await side.tell(*(listing(f"visor{n}", 1, lifetime_s=60) for n in range(60)))
        await anyio.sleep(70)
        assert len(side.directory) == 0
        await anyio.sleep(HELD_S + 10)
        assert await side.standing() == {}
        await feeding.verify()
        assert feeding.differences == 0


async def test_a_registry_that_is_down_deletes_nothing(side):
    async with side.feeding():
        await side.tell(listing("alice", 1, lifetime_s=3_600))
        await anyio.sleep(1)
    side.registry.is_down = True
    async with side.feeding() as feeding:
        await anyio.sleep(200)
        assert await side.standing() == {key("alice"): [1]}
        side.registry.is_down = False
        await anyio.sleep(100)
        assert feeding.differences == 0 and await side.standing() == {key("alice"): [1]}


async def test_records_stay_alive_for_as_long_as_they_are_listed(side):
    async with side.feeding() as feeding:
        await side.tell(listing("alice", 1, lifetime_s=86_400))
        await anyio.sleep(5 * 3_600)
        assert await side.standing() == {key("alice"): [1]}
        assert feeding.differences == 0
        assert side.mirror.items_sent == 1 and side.mirror.leases_sent >= 4


@pytest.mark.parametrize("seed", range(6))
async def test_l6_l22_whatever_happens_in_the_end_both_sides_say_the_same(side, seed):
    """Visors come, change and go; the mirror and the registry fail; the server is restarted."""
    dice = random.Random(seed)
    names = [f"visor{n}" for n in range(40)]
    for _ in range(4):
        async with side.feeding() as feeding:
            for _ in range(40):
                await anyio.sleep(dice.choice([0.05, 1, 20]))
                side.mirror.is_down = dice.random() < 0.3
                side.registry.is_down = dice.random() < 0.2
                many = dice.sample(names, dice.randint(1, 15))
                writes = [
                    listing(
                        name, *dice.sample(range(1, 6), dice.randint(0, 3)),
                        lifetime_s=dice.choice([5, 300, 3_600]),
                    )
                    for name in many
                ]  # fmt: skip
                with contextlib.suppress(StoreError):
                    await side.tell(*writes)
    side.mirror.is_down = side.registry.is_down = False
    async with side.feeding() as feeding:
        await anyio.sleep(HELD_S + 90)
        side.registry.is_down = dice.random() < 0.5  # nothing more ends while we look
        assert await side.standing() == side.listed() == await side.standing(side.own)
        await feeding.verify()
        assert feeding.waiting == 0


async def test_without_a_mirror_it_is_said(side):
    side.mirrors.clear()
    async with side.feeding() as feeding:
        await side.tell(listing("alice", 1))
        await anyio.sleep(1)
        assert "no mirror is up" in feeding.status_fields()["feed_note"]
        assert await side.standing(side.own) == {key("alice"): [1]}
        side.mirrors.append(side.mirror)  # it comes up later: everything is brought there
        await anyio.sleep(65)
        assert await side.standing() == {key("alice"): [1]}
        assert "feed_note" not in feeding.status_fields()


async def test_two_services_on_one_registry_and_one_store_do_not_quarrel(side):
    other = Side(side.clock, identity("other server", NETWORK))
    other.registry, other.own, other.peer = side.registry, side.own, side.peer
    other.mirrors = side.mirrors
    async with side.feeding() as one, other.feeding() as two:
        await side.tell(*(listing(f"visor{n}", n + 1, lifetime_s=3_600) for n in range(20)))
        await anyio.sleep(200)
        sent = side.mirror.items_sent
        await anyio.sleep(1_500)
        assert side.mirror.items_sent == sent, "neither signs what the other has said already"
        await one.verify()
        await two.verify()
        assert (one.differences, two.differences) == (0, 0)
        await other.tell(listing("visor3"), listing("visor4", 9, lifetime_s=3_600))
        await anyio.sleep(130)
        assert await side.standing() == side.listed() == other.listed()
        assert (one.differences, two.differences) == (0, 0)


async def test_l14_what_ends_at_another_service_is_not_gone_from_the_dht_for_long(side):
    """Two services with an authority, each with its own registry: a visor left one of them."""
    other = Side(side.clock, identity("other server", NETWORK))
    other.own, other.peer, other.mirrors = side.own, side.peer, side.mirrors
    async with side.feeding() as one, other.feeding():
        await side.tell(listing("alice", 1, lifetime_s=30_000))
        await other.tell(listing("alice", 1, lifetime_s=300))
        await anyio.sleep(310)
        assert await side.standing() == {}, "it took its own word back"
        await anyio.sleep(70)
        assert await side.standing() == side.listed()
        await anyio.sleep(70)
        assert one.differences == 0


async def test_l14_two_services_that_list_something_else_sign_seldom(side):
    other = Side(side.clock, identity("other server", NETWORK))
    other.own, other.peer, other.mirrors = side.own, side.peer, side.mirrors
    async with side.feeding() as one, other.feeding() as two:
        await side.tell(listing("alice", 1, lifetime_s=30_000))
        await other.tell(listing("alice", 2, lifetime_s=30_000))
        await anyio.sleep(300)
        sent = side.mirror.items_sent
        await anyio.sleep(3_600)
        assert side.mirror.items_sent - sent <= 2 * 12 + 2
        assert one.differences + two.differences == 1, "and it shows"

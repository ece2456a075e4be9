"""What reached nobody goes out once somebody is there."""

from __future__ import annotations

import anyio
import pytest

from dht_kademlia.status import DhtStatus
from skycore.model.items import make_lease
from skycore.testing.fakes import TEST_NETWORK, identity

RETRY_S = 30.0
"""The default of `bootstrap_retry_s`."""


def lease_of(member, name, item, more_s=60):
    ranked = member.items.judge(item)
    return make_lease(TEST_NETWORK, identity(name).secret, ranked, item.until + more_s)


async def waiting(member):
    return (await DhtStatus(member.node).status()).fields["waiting"]


@pytest.mark.parametrize("count", [1, 40])
def test_what_was_put_alone_goes_out_within_one_retry_period(virtual, make_network, make, count):
    async def story():
        network = make_network()
        async with network.node("n1", seeds=("n0",)) as alone:
            items = [make(f"u{i}") for i in range(count)]
            assert {r.stored for r in await alone.dht.put_many(items)} == {1}
            assert await waiting(alone) == count
            await anyio.sleep(60)
            async with network.node("n0", full_node=True, full_nodes_max=0) as full:
                await anyio.sleep(RETRY_S + 0.5)
                assert {s.item for s in full.items.held.values()} == set(items)
                assert await waiting(alone) == 0

    virtual(story)


def test_a_full_node_without_seeds_hands_out_to_whoever_comes(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.node("n0", full_node=True, full_nodes_max=0) as full:
            await full.dht.put(make("u1"))
            await anyio.sleep(60)
            async with network.node("n1", seeds=("n0",)) as late:
                await anyio.sleep(RETRY_S + 0.5)
                assert [s.item for s in late.items.held.values()] == [make("u1")]

    virtual(story)


def test_only_the_newest_goes_out_and_nothing_that_ended(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.node("n1", seeds=("n0",)) as alone:
            one, two = make("u1", seq=1), make("u1", seq=2)
            await alone.dht.put(one)
            await alone.dht.put(two)
            await alone.dht.put(make("u2", until=alone.node.clock.wall_s() + 20))
            await alone.dht.put(make("u3", seq=1))
            await alone.items.admit([make("u3", seq=7)], sender=b"")  # from elsewhere
            assert await waiting(alone) == 3
            await anyio.sleep(60)
            async with network.node("n0", full_node=True, full_nodes_max=0) as full:
                await anyio.sleep(RETRY_S + 0.5)
                assert {s.item for s in full.items.held.values()} == {two, make("u3", seq=7)}
                assert await waiting(alone) == 0

    virtual(story)


def test_peers_that_do_not_answer_are_asked_again_with_growing_pauses(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.nodes(3, check_interval_s=1e6) as members:
            writer, others = members[0], members[1:]
            network.exchange.deaf = {m.public for m in others}
            await writer.dht.put(make("u1"))
            assert await waiting(writer) == 1
            await anyio.sleep(200)
            assert await waiting(writer) == 1
            network.exchange.deaf = set()
            await anyio.sleep(330)  # a bootstrap interval: by then they ask for themselves, too
            assert await waiting(writer) == 0
            assert all(m.items.held for m in others)

    virtual(story)


def test_a_newer_value_elsewhere_ends_the_wait(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.node("n1", seeds=("n0",)) as alone:
            await alone.dht.put(make("u1", seq=1))
            async with network.node("n0", full_node=True, full_nodes_max=0) as full:
                await full.items.admit([make("u1", seq=9)], sender=b"")
                await anyio.sleep(RETRY_S + 0.5)
                assert [s.item.seq for s in full.items.held.values()] == [9]
                assert await waiting(alone) == 0

    virtual(story)


def test_a_put_that_expected_something_still_does(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.node("n1", seeds=("n0",)) as alone:
            await alone.dht.put(make("u1", seq=9), cas=0)
            async with network.node("n0", full_node=True, full_nodes_max=0) as full:
                await full.items.admit([make("u1", seq=5)], sender=b"")
                await anyio.sleep(RETRY_S + 0.5)
                assert [s.item.seq for s in full.items.held.values()] == [5]
                assert await waiting(alone) == 0

    virtual(story)


def test_a_lease_that_reached_nobody_goes_out_with_its_item(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.node("n1", seeds=("n0",)) as alone:
            item = make("u1")
            await alone.items.admit([item], sender=b"")  # put long ago, at nodes that are gone
            lease = lease_of(alone, "u1", item)
            assert (await alone.mirror.renew([lease]))[0].stored == 1
            stranger = lease_of(alone, "u2", make("u2"))
            assert (await alone.mirror.renew([stranger]))[0].stored == 0
            assert await waiting(alone) == 1  # of the other one its publisher knows: he was told
            async with network.node("n0", full_node=True, full_nodes_max=0) as full:
                await anyio.sleep(RETRY_S + 0.5)
                (stored,) = full.items.held.values()
                assert (stored.item, stored.until) == (item, lease.until)

    virtual(story)


def test_a_lease_for_what_the_others_lost_brings_the_item_back(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.nodes(3) as members:
            item = make("u1")
            await members[0].dht.put(item)
            for other in members[1:]:
                other.items.held.clear()
            (report,) = await members[0].mirror.renew([lease_of(members[0], "u1", item)])
            assert report.stored == 3
            assert all(m.items.held for m in members)

    virtual(story)

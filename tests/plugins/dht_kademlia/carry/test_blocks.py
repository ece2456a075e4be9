"""Values in blocks between real nodes over real gates: whole or not at all, and little to move."""

from contextlib import asynccontextmanager

import anyio
import pytest

from dht_kademlia.carry.push import push
from dht_kademlia.core.messages import PutValue
from skycore.contracts.store import ItemKey, Outcome
from skycore.errors import MissingBlocksError
from skycore.model.items import Kind, make_lease
from skycore.testing.fakes import TEST_NETWORK, identity

QUIET = {"repair_interval_s": 0, "full_nodes_max": 0, "check_interval_s": 1e6}


@asynccontextmanager
async def three(network, **settings):
    """A full node, and two that know it."""
    async with (
        network.node("n0", full_node=True, gate={}, **QUIET) as alice,
        network.node("n1", seeds=("n0",), gate={}, **QUIET) as bob,
        network.node("n2", seeds=("n0",), gate={}, **QUIET, **settings) as carol,
    ):
        await anyio.sleep(1)
        yield alice, bob, carol


@asynccontextmanager
async def newcomer(network, name):
    """A node that knows the others and holds nothing."""
    async with network.node(name, seeds=("n0",), gate={}, **QUIET) as late:
        await anyio.sleep(1)
        yield late


def test_c18_hub_of_5000_is_complete(virtual, make_network, record, tags):
    """Put by one node, read by all others and by one that holds nothing; the same by sync."""

    async def story():
        network, value = make_network(), tags(5_000)
        async with three(network) as (alice, bob, carol):
            item, blocks = record("n1", value, salt=b"tags")
            report = await bob.dht.put(item, blocks=blocks)
            assert (report.outcome.code, report.stored) == (0, 3)
            for member in (alice, bob, carol):
                found = await member.dht.get(item.subject, b"tags")
                assert (found.item, found.value) == (item, value)
            async with newcomer(network, "n3") as late:
                found = await late.dht.get(item.subject, b"tags")
                assert found.value == value
                assert found.sender in {m.public for m in (alice, bob, carol)}
            async with network.node("n4", gate={}, **QUIET) as copy:
                synced = await copy.dht.sync(alice.public)
                assert (synced.stored, synced.refused, synced.complete) == (1, 0, True)
                assert (await copy.dht.get(item.subject, b"tags", local=True)).value == value

    virtual(story)


def test_c18_a_read_of_a_hub_from_ones_own_store_asks_nobody(virtual, make_network, record, tags):
    async def story():
        network = make_network()
        async with three(network) as (alice, bob, _):
            item, blocks = record("n1", tags(5_000))
            await bob.dht.put(item, blocks=blocks)
            moved = network.exchange.bytes_moved
            assert await alice.dht.get(item.subject, b"tags")
            assert network.exchange.bytes_moved == moved
            assert alice.node.stats.reads["local"] == 1

    virtual(story)


@pytest.mark.parametrize(
    "size", [1, 4_096, 65_536, 65_537, 100_000, 1_000_000, 10_000_000], ids=lambda s: f"{s}B"
)
def test_c20_1_b_to_10_mb_for_a_single_value(virtual, make_network, record, size):
    async def story():
        network = make_network()
        value = b"".join(n.to_bytes(4, "big") for n in range(size // 4 + 1))[:size]
        async with three(network) as (_, bob, carol):
            item, blocks = record("n1", value, salt=b"blob")
            assert (item.kind == Kind.MANIFEST) == (size > 65_536)
            report = await bob.dht.put(item, blocks=blocks)
            assert report.stored == 3
            found = await carol.dht.get(item.subject, b"blob")
            assert found.value == value
            async with newcomer(network, "n3") as late:
                assert (await late.dht.get(item.subject, b"blob")).value == value

    virtual(story)


def test_c28_one_change_of_5000_moves_little(virtual, make_network, record, tags):
    async def story():
        network = make_network()
        async with (
            network.node("n0", full_node=True, gate={}, **QUIET) as alice,
            network.node("n1", seeds=("n0",), gate={}, **QUIET) as bob,
        ):
            await anyio.sleep(1)
            one, blocks = record("n1", tags(5_000), seq=1)
            await bob.dht.put(one, blocks=blocks)
            await anyio.sleep(1)
            before = network.exchange.bytes_moved
            value = tags(5_000, changed={2_500})
            two, more = record("n1", value, seq=2)
            report = await bob.dht.put(two, blocks=more)
            await anyio.sleep(0.1)
            assert [r.code for r in report.replicas] == [0]
            assert network.exchange.bytes_moved - before <= 16 * 1024
            assert (await alice.dht.get(two.subject, b"tags", local=True)).value == value
            # a sync and a read of one that has the version before cost as little
            for age in (None, 0):
                async with newcomer(network, "n5") as reader:
                    await reader.items.admit([one], sender=b"x", blocks=list(blocks.values()))
                    await anyio.sleep(0.1)
                    before = network.exchange.bytes_moved
                    if age is None:
                        assert (await reader.dht.sync(alice.public)).stored == 1
                    found = await reader.dht.get(two.subject, b"tags", age_max_s=age)
                    assert found.value == value
                    assert network.exchange.bytes_moved - before <= 16 * 1024

    virtual(story)


def test_c28_after_a_restart_the_store_knows_what_was_sent(virtual, make_network, record, tags):
    async def story():
        network = make_network()
        async with three(network) as (_, bob, _):
            one, blocks = record("n1", tags(5_000), seq=1)
            await bob.dht.put(one, blocks=blocks)
            bob.node.sent.__init__()
            before = network.exchange.bytes_moved
            two, more = record("n1", tags(5_000, changed={9}), seq=2)
            assert (await bob.dht.put(two, blocks=more)).stored == 3
            assert network.exchange.bytes_moved - before <= 3 * 16 * 1024

    virtual(story)


def test_a_replica_with_another_version_is_brought_up_by_what_it_names(
    virtual, make_network, record, tags
):
    async def story():
        network = make_network()
        async with three(network) as (alice, bob, carol):
            versions = [record("n1", tags(3_000, changed=set(range(n))), n + 1) for n in range(3)]
            for item, blocks in versions[:1]:
                await bob.dht.put(item, blocks=blocks)
            network.exchange.cut = {frozenset((bob.public, carol.public))}
            await bob.dht.put(versions[1][0], blocks=versions[1][1])
            network.exchange.cut = set()
            report = await bob.dht.put(versions[2][0], blocks=versions[2][1])
            assert report.stored == 3
            for member in (alice, carol):
                found = await member.dht.get(identity("n1").public, b"tags", local=True)
                assert found.value == tags(3_000, changed={0, 1})

    virtual(story)


def test_o11_a_lease_for_a_hub_that_a_replica_lost_brings_its_blocks_too(
    virtual, make_network, record, tags
):
    async def story():
        network, value = make_network(), tags(5_000)
        async with three(network) as (alice, bob, carol):
            item, blocks = record("n1", value, until=network.clock.wall_s() + 600)
            await bob.dht.put(item, blocks=blocks)
            (stored,) = await carol.items.get(item.target)
            await carol.items.drop([ItemKey(stored.target, stored.item_class)])
            lease = make_lease(TEST_NETWORK, identity("n1").secret, stored, item.until + 600)
            (report,) = await bob.mirror.renew([lease])
            assert sorted(r.code for r in report.replicas) == [0, 1]
            for member in (alice, bob, carol):
                (held,) = await member.items.get(item.target)
                assert held.until == lease.until
                assert await member.items.value(held) == value

    virtual(story)


def test_c16_a_publisher_that_dies_between_blocks_leaves_nothing_half(
    virtual, make_network, record
):
    async def story():
        network = make_network(latency_s=0.01)
        value = b"".join(n.to_bytes(4, "big") for n in range(750_000))
        async with three(network) as (alice, bob, carol):
            old, _ = record("n1", b"old", 1, salt=b"blob")
            await bob.dht.put(old)
            new, blocks = record("n1", value, 2, salt=b"blob")
            before = network.exchange.bytes_moved
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: bob.dht.put(new, blocks=blocks))
                while network.exchange.bytes_moved < before + 1_000_000:
                    await anyio.sleep(0.01)
                network.exchange.stop(bob.public)
            for member in (alice, carol):
                (held,) = await member.items.get(old.target)
                assert held.item in (old, new)
                if held.item == new:  # then all of it
                    assert await member.items.value(held) == value
            found = await carol.dht.get(old.subject, b"blob", age_max_s=0)
            assert found.value in (b"old", value)

    virtual(story)


def test_c16_a_reader_during_replacements_gets_one_version_or_the_other(
    virtual, make_network, record, tags
):
    async def story():
        network = make_network(latency_s=0.005)
        async with (
            three(network) as (_, bob, _),
            newcomer(network, "n3") as reader,
        ):
            versions = [tags(3_000, changed=set(range(40 * n, 40 * n + 40))) for n in range(8)]
            seen = []

            async def write():
                for n, value in enumerate(versions):
                    item, blocks = record("n1", value, n + 1)
                    await bob.dht.put(item, blocks=blocks)
                    await anyio.sleep(0.02)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write)
                for _ in range(60):
                    found = await reader.dht.get(identity("n1").public, b"tags", age_max_s=0)
                    seen.append(found.value if found else None)
                    await anyio.sleep(0.005)
            assert {v for v in seen if v is not None} <= set(versions)
            assert len(set(seen)) > 2
            assert (await reader.dht.get(identity("n1").public, b"tags")).value == versions[-1]

    virtual(story)


def test_a_holder_that_fails_is_replaced_by_another(virtual, make_network, record, tags):
    async def story():
        network, value = make_network(), tags(5_000)
        async with (
            three(network) as (alice, bob, carol),
            newcomer(network, "n3") as reader,
        ):
            item, blocks = record("n1", value)
            await bob.dht.put(item, blocks=blocks)

            async def none(hashes):
                return [None] * len(hashes)

            alice.items.blocks = none
            carol.items.blocks = none
            found = await reader.dht.get(item.subject, b"tags", age_max_s=0)
            assert found.value == value
            await anyio.sleep(1)
            for member in (bob, reader):
                member.items.blocks = none
            async with newcomer(network, "n4") as other:
                with pytest.raises(MissingBlocksError, match="does not have them"):
                    await other.dht.get(item.subject, b"tags")

    virtual(story)


def test_push_by_itself_takes_the_blocks_from_our_own_store(virtual, make_network, record, tags):
    async def story():
        network, value = make_network(), tags(5_000)
        async with three(network) as (_, bob, carol):
            item, blocks = record("n9", value)
            await bob.items.admit([item], sender=b"x", blocks=list(blocks.values()))
            contact = network.contact_of("n2")
            other = record("n8", tags(900))[0]  # its blocks are nowhere
            said = await push(bob.node, contact, [PutValue(item), PutValue(other)])
            assert [s.code for s in said] == [0, Outcome.MISSING_BLOCKS]
            assert "not stored" in said[1].text
            assert (await carol.dht.get(item.subject, b"tags", local=True)).value == value
            (again,) = await push(bob.node, contact, [PutValue(item)], lean=True)
            assert again.code == Outcome.HELD

    virtual(story)


def test_o25_a_put_without_its_blocks_says_so_and_sends_nothing(
    virtual, make_network, record, make, tags
):
    async def story():
        network = make_network()
        async with three(network) as (alice, bob, _):
            item, blocks = record("n1", tags(500))
            some = dict(list(blocks.items())[:-1])
            report = await bob.dht.put(item, blocks=some)
            assert (report.outcome.code, report.replicas) == (Outcome.MISSING_BLOCKS, ())
            broken = make("n1", seq=2, v=b"no manifest", salt=b"tags", kind=Kind.MANIFEST)
            report = await bob.dht.put(broken, blocks=blocks)
            assert (report.outcome.code, report.replicas) == (402, ())
            plain, _ = await bob.dht.put_many([make("n1", salt=b"x"), item])
            assert plain.stored == 3
            assert not await alice.items.get(item.target)
            assert (await bob.dht.put(item, blocks=blocks)).stored == 3

    virtual(story)

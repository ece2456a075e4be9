"""Small networks of real nodes on virtual time: finding, replacing, healing."""

from contextlib import AsyncExitStack

import anyio
import pytest

from dht_kademlia.bootstrap import TABLE_FILE, check_contacts, load_table
from dht_kademlia.core.contacts import id_of
from dht_kademlia.core.messages import ErrorCode
from dht_kademlia.plugin import skycore_dht, skycore_services, skycore_settings
from skycore.model.items import Kind, make_lease
from skycore.testing.contracts.dht import DhtContract
from skycore.testing.fakes import TEST_NETWORK, MemoryFiles, identity


class TestKademlia(DhtContract):
    @pytest.fixture
    def dht_story(self, virtual, make_network):
        def run(story):
            async def main():
                network = make_network()
                async with (
                    network.node("n0", full_node=True, full_nodes_max=0) as alice,
                    network.node("n1", seeds=("n0",)) as bob,
                    network.node("n2", seeds=("n0",)) as carol,
                ):
                    await anyio.sleep(1)
                    await story([alice.dht, bob.dht, carol.dht], network.clock.wall_s)

            virtual(main)

        return run


def test_every_record_is_found_from_everywhere(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.nodes(50) as members:
            items = [make(f"u{i}") for i in range(30)]
            for i, item in enumerate(items):
                report = await members[i % 50].dht.put(item)
                assert 19 <= report.stored <= 21
            await anyio.sleep(61)
            for i, item in enumerate(items):
                found = await members[(7 * i + 3) % 50].dht.get(item.subject, item.salt)
                assert found is not None
                assert found.item == item

    virtual(story)


def test_c26_a_regular_node_keeps_its_share(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.nodes(200, check_interval_s=1e6, bootstrap_interval_s=1e6) as members:
            reports = await members[3].dht.put_many([make(f"u{i}") for i in range(200)])
            assert min(r.stored for r in reports) >= 19
            share = sum(len(m.items.held) for m in members) / len(members) / 200
            assert 0.8 * 20 / 200 <= share <= 1.3 * 20 / 200

    virtual(story)


def test_c44_five_dead_of_twenty_do_not_hold_up_a_put(virtual, make_network, make):
    async def story():
        network = make_network(latency_s=0.01)
        async with network.nodes(21) as members:
            network.exchange.deaf = {m.public for m in members[1:6]}
            start = anyio.current_time()
            report = await members[10].dht.put(make("u1"))
            assert anyio.current_time() - start < 2.0
            assert report.stored >= 15
            silent = [r for r in report.replicas if r.code == ErrorCode.NO_ANSWER]
            assert {r.peer for r in silent} <= network.exchange.deaf

    virtual(story)


def test_c15_a_put_with_nobody_there_says_so(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.node("n1", seeds=("n0",)) as alone:
            report = await alone.dht.put(make("u1"))
            assert report.replicas == ()
            assert report.stored == 1  # its own copy, and it says that it is one
            assert (await alone.dht.put_many([make("u2"), make("u3")]))[0].stored == 1
            status = alone.node.stats
            assert status.puts == 3

    virtual(story)


def test_o09_c37_a_far_node_reads_the_new_value(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.nodes(60) as members:
            one, two = make("u1", seq=1), make("u1", seq=2)
            await members[0].dht.put(one)
            target = int.from_bytes(one.target, "big")
            far = max(members, key=lambda m: m.node.table.own_id ^ target)
            found = await far.dht.get(one.subject, one.salt)
            assert found.item == one
            await members[0].dht.put(two)
            found = await far.dht.get(one.subject, one.salt)
            assert found.item == two
            assert not far.items.held

    virtual(story)


def test_c37_an_old_copy_is_not_served_beyond_its_age(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.nodes(5) as members:
            item = make("u1")
            await members[0].dht.put(item)
            await anyio.sleep(120)
            mine = members[1]
            assert (await mine.dht.get(item.subject, b"t", age_max_s=30)) is not None  # confirmed
            network.exchange.deaf = {m.public for m in members if m is not mine}
            assert await mine.dht.get(item.subject, b"t", age_max_s=30) is None
            assert await mine.dht.get(item.subject, b"t") is not None
            assert await mine.dht.get(item.subject, b"t", age_max_s=30, local=True) is None

    virtual(story)


def test_d10_a_replica_that_missed_the_news_is_outvoted(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.nodes(21) as members:
            one, two = make("u1", seq=1), make("u1", seq=2)
            for member in members[:15]:
                await member.items.admit([one], sender=b"")
            for member in members[15:18]:
                await member.items.admit([two], sender=b"")
            found = await members[20].dht.get(one.subject, b"t", age_max_s=0)
            assert found.item == two  # the strict read asks them all
            await members[19].dht.put(two)
            found = await members[20].dht.get(one.subject, b"t")
            assert found.item == two

    virtual(story)


def test_c39_dead_peers_leave_and_newcomers_enter(virtual, make_network):
    async def story():
        network = make_network()
        async with network.nodes(12, check_interval_s=30) as members, AsyncExitStack() as later:
            assert members[0].dht.peer_count == 11
            gone = {m.public for m in members[6:]}
            for public in gone:
                network.exchange.stop(public)
            fresh = await later.enter_async_context(network.node("n20", seeds=("n0",)))
            await anyio.sleep(4 * 30)
            for member in members[:6]:
                known = {p.public for p in member.dht.peers()}
                assert not known & gone
                assert fresh.public in known

    virtual(story)


def test_o05_c40_a_seed_that_is_late_is_found_within_half_a_minute(virtual, make_network):
    async def story():
        network = make_network()
        async with network.node("n1", seeds=("n0",)) as bob:
            await anyio.sleep(0.3)
            async with network.node("n0"):
                await anyio.sleep(30.1)
                assert bob.dht.peer_count == 1

    virtual(story)


@pytest.mark.parametrize("silent", [False, True])
def test_c40_a_seed_away_for_a_minute_is_rejoined(virtual, make_network, silent):
    async def story():
        network = make_network()
        async with network.node("n1", seeds=("n0",)) as bob:
            async with network.node("n0") as seed:
                await anyio.sleep(100)
                assert bob.dht.peer_count == 1
            if silent:
                network.exchange.deaf.add(seed.public)
            await anyio.sleep(3_600)
            assert bob.dht.peer_count == 0
            network.exchange.deaf.clear()
            async with network.node("n0"):
                await anyio.sleep(30.5)
                assert bob.dht.peer_count == 1

    virtual(story)


def test_c43_c55_any_start_order_and_a_lookup_is_answered_in_seconds(virtual, make_network, make):
    async def story():
        network = make_network()
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(network.node("n2", seeds=("n0",)))
            second = await stack.enter_async_context(network.node("n1", seeds=("n0",)))
            await anyio.sleep(1)
            await stack.enter_async_context(network.node("n0", seeds=("n0",)))  # itself in the list
            await anyio.sleep(31)
            item = make("u1")
            assert (await first.dht.put(item)).stored == 3
            assert (await second.dht.get(item.subject, b"t")).item == item
            late = await stack.enter_async_context(network.node("n3", seeds=("n0",)))
            await anyio.sleep(5)
            assert (await late.dht.get(item.subject, b"t")).item == item

    virtual(story)


def test_the_table_outlives_a_restart_without_any_seed(virtual, make_network):
    async def story():
        network, files = make_network(), MemoryFiles()
        async with network.node("n0"):
            async with network.node("n1", seeds=("n0",), files=files):
                await anyio.sleep(1)
            async with network.node("n1", files=files) as again:
                await anyio.sleep(1)
                assert again.dht.peer_count == 1
        assert load_table(files, 33) == ()  # keys of another suite
        files.write(TABLE_FILE, b"\xc1")
        assert load_table(files, 32) == ()

    virtual(story)


def test_partition_and_heal(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.nodes(10, check_interval_s=30) as members:
            left, right = members[:5], members[5:]
            network.exchange.cut = {frozenset((a.public, b.public)) for a in left for b in right}
            item = make("u1")
            report = await left[0].dht.put(item)
            assert report.stored == 5
            network.exchange.cut = set()
            await anyio.sleep(310)
            await left[0].dht.put(item)
            found = await right[0].dht.get(item.subject, b"t")
            assert found is not None
            assert right[0].dht.peer_count == 9

    virtual(story)


def test_two_parts_of_the_id_space_with_more_than_k_nodes_each_find_each_other(
    virtual, make_network
):
    """A lookup from within one part ends there: those beyond both have to be asked."""
    parts = {"00": [], "01": [], "1": []}
    for i in range(210):
        bits = f"{id_of(identity(f'n{i}').public):0256b}"
        parts[next(p for p in parts if bits.startswith(p))].append(f"n{i}")
    ours, theirs, beyond = parts["00"][:25], parts["01"][:25], parts["1"][:4]

    async def story():
        network = make_network()
        stop = anyio.Event()

        async def live(name, *, task_status):
            async with network.node(name, check_interval_s=1e6) as member:
                task_status.started(member)
                await stop.wait()

        def tell(names, of):
            for name in names:
                for other in of:
                    contact = network.contact_of(other)
                    network.members[name].node.heard(contact.public, contact.addresses)

        async with anyio.create_task_group() as tasks:
            for name in (*ours, *theirs, *beyond):
                await tasks.start(live, name)
            tell(ours, [*ours, *beyond])
            tell(theirs, [*theirs, *beyond])
            tell(beyond, [*ours[:10], *theirs[:10]])
            node = network.members[ours[0]].node
            (hidden,) = node.table.overdue(node.joined_s, node.clock.now())
            target = node.table.target_in(hidden, 0)
            lookup = await node.find_nodes(target)
            assert {c.public for c in lookup.closest()}.isdisjoint(
                identity(name).public for name in theirs
            )
            await anyio.sleep(1)
            calls = sum(network.members[n].node.stats.calls_served for n in network.members)
            await check_contacts(node)
            known = {p.public for p in node.peers()}
            assert sum(identity(name).public in known for name in theirs) >= 15
            after = sum(network.members[n].node.stats.calls_served for n in network.members)
            assert after - calls <= 3 * 120
            stop.set()

    virtual(story)


def test_one_dead_seed_does_not_hold_up_the_other(virtual, make_network):
    async def story():
        network = make_network()
        network.exchange.deaf.add(identity("n9").public)
        async with (
            network.node("n9"),
            network.node("n0"),
            network.node("n1", seeds=("n9", "n0")) as bob,
        ):
            await anyio.sleep(1)
            assert bob.dht.peer_count == 1

    virtual(story)


def test_the_mirror_renews_without_the_item(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.nodes(4) as members:
            items = [make("u1"), make("u2")]
            await members[0].mirror.mirror(items)
            leases = [
                make_lease(
                    TEST_NETWORK,
                    identity(name).secret,
                    members[0].items.judge(item),
                    item.until + 60,
                )
                for name, item in zip(("u1", "u2"), items, strict=True)
            ]
            reports = await members[0].mirror.renew(leases)
            assert [r.stored for r in reports] == [4, 4]
            (single,) = await members[0].mirror.renew(leases[:1])
            assert single.outcome.code == 2
            unknown = make("u9")
            (missing,) = await members[0].mirror.renew(
                [
                    make_lease(
                        TEST_NETWORK,
                        identity("u9").secret,
                        members[0].items.judge(unknown),
                        unknown.until + 60,
                    )
                ]
            )
            assert {r.code for r in missing.replicas} == {4}

    virtual(story)


def test_a_tombstone_reaches_all_and_stays(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.nodes(6) as members:
            await members[0].dht.put(make("u1", seq=1))
            await members[0].dht.put(make("u1", seq=2, v=b"", kind=Kind.TOMBSTONE))
            await members[5].dht.put(make("u1", seq=1))
            found = await members[3].dht.get(identity("u1").public, b"t")
            assert found.item.kind == Kind.TOMBSTONE

    virtual(story)


def test_the_plugin_declares_its_parts():
    from dht_kademlia.comparisons import Comparisons
    from dht_kademlia.node import Kademlia

    node, comparisons, _ = skycore_services()
    assert (node.contract, comparisons.contract) == (Kademlia, Comparisons)
    assert skycore_settings().model_fields
    assert len(skycore_dht()) == 1

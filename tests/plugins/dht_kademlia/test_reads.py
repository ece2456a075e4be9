"""How reads are answered: from here, in one hop, or by looking further (C41)."""

import anyio

from skycore.testing.streams import MemoryTransports

QUIET = {"repair_interval_s": 0, "full_nodes_max": 0, "check_interval_s": 1e6}


class Linked(MemoryTransports):
    """Transports that have a link to everybody."""

    def find(self, remote):
        return object()


def test_c41_reads_are_counted_by_how_they_were_answered(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.nodes(60, **QUIET) as members:
            items = [make(f"u{i}") for i in range(20)]
            await members[0].dht.put_many(items)
            await anyio.sleep(61)
            for member in members[20:40]:
                for item in items:
                    assert (await member.dht.get(item.subject, b"t")).item == item
                    await member.dht.get(item.subject, b"t", local=True)
                reads = member.node.stats.reads
                assert reads.total() == 40
                assert reads["local"] >= 20
            one_hop = sum(m.node.stats.reads["one_hop"] for m in members)
            assert one_hop > 0

    virtual(story)


def test_c41_a_full_node_that_is_linked_is_among_the_first_asked(virtual, make_network, make):
    async def story():
        network = make_network()
        async with (
            network.nodes(40, **QUIET) as members,
            network.node("n90", seeds=("n0",), full_node=True, **QUIET) as full,
            network.node("n91", seeds=("n0",), transports=Linked(), **QUIET) as reader,
        ):
            await anyio.sleep(1)
            await reader.node.ping(network.contact_of("n90"))
            assert {e.mode for e in reader.node.table if e.contact.public == full.public} == {
                "full"
            }
            served = full.node.stats.calls_served
            news = [make(f"u{i}", seq=2) for i in range(10)]
            await full.items.admit(news, sender=b"")
            for member in members[:5]:
                await member.items.admit([make(f"u{i}") for i in range(10)], sender=b"")
            for item in news:  # nobody but the full node has heard of it
                assert (await reader.dht.get(item.subject, b"t")).item == item
            assert full.node.stats.calls_served - served >= 10

    virtual(story)


def test_c41_a_network_without_full_nodes_resolves_all(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.nodes(60, **QUIET) as members:
            item = make("u1")
            await members[0].dht.put(item)
            for member in members:
                assert (await member.dht.get(item.subject, b"t", age_max_s=0)).item == item

    virtual(story)


def test_alone_is_local(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.node("n1") as alone:
            await alone.dht.put(make("u1"))
            await anyio.sleep(100)
            assert (await alone.dht.get(make("u1").subject, b"t")).item == make("u1")
            assert await alone.dht.get(make("u2").subject, b"t") is None
            assert alone.node.stats.reads == {"local": 2}

    virtual(story)

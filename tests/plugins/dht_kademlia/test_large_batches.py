"""Large items in pages and batches: all arrive, or an error names what did not."""

import anyio
import pytest

from skycore.contracts.store import Outcome

QUIET = {"repair_interval_s": 0, "full_nodes_max": 0, "check_interval_s": 1e6}
BIG = {"signer_bytes_max": 10**9, "unknown_items_max": 10**6, "sender_bytes_per_minute": 10**9}


@pytest.mark.parametrize("size", [2_862, 2_863, 2_864, 65_536])
def test_o24_pages_of_2863_byte_items_pass(virtual, make_network, make, size):
    """4 MiB were counted before the encoding there, and the client always asked for 1,000."""

    async def story():
        network = make_network()
        count = 1_000 if size < 10_000 else 100
        async with (
            network.node("n0", full_node=True, **QUIET) as alice,
            network.node("n1", seeds=("n0",), sync_page_bytes=1024 * 1024, **QUIET) as bob,
        ):
            await anyio.sleep(1)
            await alice.items.admit(
                [make(f"u{i}", v=bytes(size)) for i in range(count)], sender=b""
            )
            report = await bob.dht.sync()
            assert (report.stored, report.refused, report.complete) == (count, 0, True)

    virtual(story)


@pytest.mark.parametrize("size", [2_900, 3_500, 5_000, 10_000, 65_536])
def test_o25_no_batch_is_dropped_silently(virtual, make_network, make, size):
    """1,000 items of each size: what arrived is what was said to have arrived."""

    async def story():
        network = make_network()
        async with (
            network.node("n0", full_node=True, **QUIET) as alice,
            network.node("n1", seeds=("n0",), **QUIET) as bob,
        ):
            await anyio.sleep(1)
            items = [make(f"u{i}", v=i.to_bytes(2, "big") * (size // 2)) for i in range(1_000)]
            reports = await bob.dht.put_many(items)
            said = [r.replicas[0] for r in reports]
            assert [len(r.replicas) for r in reports] == [1] * 1_000
            arrived = {s.item for s in alice.items.held.values()}
            assert arrived == {i for i, r in zip(items, said, strict=True) if r.code == 0}
            assert len(arrived) == 1_000

    virtual(story)


def test_o25_what_a_full_store_refuses_is_named(virtual, make_network, make):
    async def story():
        network = make_network()
        async with (
            network.node("n0", full_node=True, gate={"items_max": 600}, **QUIET) as alice,
            network.node("n1", seeds=("n0",), gate=BIG, **QUIET) as bob,
        ):
            await anyio.sleep(1)
            items = [make(f"u{i}", v=bytes(2_900)) for i in range(1_000)]
            reports = await bob.dht.put_many(items)
            said = [r.replicas[0] for r in reports]
            held = sum(used.items for used in (await alice.items.usage()).values())
            assert 0 < held < 1_000
            assert sum(r.code == Outcome.STORED for r in said) == held
            assert all(r.code == 403 and r.text for r in said if r.code)

    virtual(story)


def test_o25_a_node_that_dies_in_a_batch_is_said_so_item_by_item(virtual, make_network, make):
    async def story():
        network = make_network(latency_s=0.01)
        async with (
            network.node("n0", full_node=True, **QUIET) as alice,
            network.node("n1", seeds=("n0",), **QUIET) as bob,
        ):
            await anyio.sleep(1)
            items = [make(f"u{i}", v=bytes(5_000)) for i in range(1_000)]

            async def kill():
                while len(alice.items.held) < 300:
                    await anyio.sleep(0.005)
                network.exchange.stop(alice.public)

            reports = []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(kill)
                reports += await bob.dht.put_many(items)
            said = [r.replicas[0] for r in reports]
            stored = {i for i, r in zip(items, said, strict=True) if r.code == 0}
            arrived = {s.item for s in alice.items.held.values()}
            assert stored <= arrived
            assert 0 < len(stored) < 1_000
            assert {r.code for r in said} == {0, 408}

    virtual(story)


def test_a_batch_of_hubs_arrives_whole(virtual, make_network, record, tags):
    async def story():
        network = make_network()
        async with (
            network.node("n0", full_node=True, gate={}, **QUIET) as alice,
            network.node("n1", seeds=("n0",), gate={}, **QUIET) as bob,
            network.node("n2", gate={}, **QUIET) as copy,
        ):
            await anyio.sleep(1)
            hubs = [record(f"h{i}", tags(100 + 40 * i, changed={i})) for i in range(40)]
            blocks = {name: block for _, more in hubs for name, block in more.items()}
            reports = await bob.dht.put_many([item for item, _ in hubs], blocks=blocks)
            assert [r.stored for r in reports] == [2] * 40
            synced = await copy.dht.sync(alice.public)
            assert (synced.stored, synced.refused) == (40, 0)
            for i, (item, _) in enumerate(hubs):
                found = await copy.dht.get(item.subject, b"tags", local=True)
                assert found.value == tags(100 + 40 * i, changed={i})

    virtual(story)

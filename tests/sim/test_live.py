"""Live full nodes: what changes at one of them is on all of them within seconds."""

from __future__ import annotations

from collections import defaultdict

import anyio
import pytest

from skycore.contracts.dht import Dht

SALT = b"note"


@pytest.fixture(autouse=True)
def no_repair(monkeypatch):
    """Keep the repair of replicas out of it, which would bring what these tests wait for too."""

    async def nothing(node):
        await anyio.sleep_forever()

    monkeypatch.setattr("dht_kademlia.service.keep_replicas", nothing)


class Arrivals:
    """When each record came to each node, by the node's own change log."""

    def __init__(self, nodes):
        self.nodes = nodes
        self.at = defaultdict(dict)

    async def note(self, node):
        async with node.get(Dht).watch(SALT) as changes:
            async for stored in changes:
                self.at[stored.item.sig][node.name] = anyio.current_time()

    def delays(self, written):
        """Return, sorted, the seconds from each writing to its last arrival."""
        return sorted(
            max(self.at[sig].get(n.name, float("inf")) for n in self.nodes) - at
            for sig, at in written.items()
        )


async def spread(live, nodes, count, pause_s=0.1):
    """Write at the nodes in turn; return the delays until the last of them had each record."""
    arrivals, written = Arrivals(nodes), {}
    async with anyio.create_task_group() as tasks:
        for node in nodes:
            tasks.start_soon(arrivals.note, node)
        await anyio.sleep(1)
        for turn in range(count):
            item = await live.write_at(nodes[turn % len(nodes)], f"writer {turn % 40}", str(turn))
            written[item.sig] = anyio.current_time()
            await anyio.sleep(pause_s)
        await anyio.sleep(60)
        tasks.cancel_scope.cancel()
    return arrivals.delays(written)


async def test_c33_a_change_is_on_every_full_node_within_5_s(world, live):
    nodes = await live.start(world, 5)
    delays = await spread(live, nodes, 200)
    assert delays[int(len(delays) * 0.99)] < 5
    assert delays[-1] < 5


@pytest.mark.parametrize("end", [1, 4])
async def test_c33_a_dead_link_delays_a_change_by_less_than_a_minute(world, live, end):
    nodes = await live.start(world, 5)
    world.network.cut(nodes[0].address, nodes[end].address)
    world.network.cut(nodes[end].address, nodes[0].address)
    delays = await spread(live, nodes, 60, pause_s=1)
    assert delays[-1] < 60

"""A network that starts all at once is one network, not islands that do not know of each other."""

from __future__ import annotations

import anyio
import pytest

from skycore.contracts.dht import Dht
from skycore.model.keys import node_id


def bucket_of(one, other):
    """Return how many leading bits of two node ids are the same."""
    return 256 - (int.from_bytes(node_id(one)) ^ int.from_bytes(node_id(other))).bit_length()


def blind_spots(nodes):
    """Return (node, depth) wherever a bucket is empty although nodes for it exist."""
    found = []
    for node in nodes:
        there = {bucket_of(node.public, n.public) for n in nodes if n is not node}
        known = {bucket_of(node.public, p.public) for p in node.get(Dht).peers()}
        found += [(node.name, depth) for depth in sorted(there - known)]
    return found


@pytest.mark.soak
async def test_a_hundred_nodes_started_at_once_leave_no_bucket_empty(world):
    await world.full_node()
    await world.spawn("visor", n=99)
    await anyio.sleep(35)
    spots = blind_spots(world.nodes)
    assert not spots, f"{len(spots)} of them: {spots[:5]}"


async def test_nodes_started_one_after_the_other_leave_no_bucket_empty(world):
    await world.full_node()
    await world.spawn("visor", n=29, pause_s=1)
    await anyio.sleep(10)
    assert not blind_spots(world.nodes)

"""Cut networks: both sides go on, and after the cut nothing that was acknowledged is lost.

Cases S3 and S4. "Equal" is what a reader sees: every node reads the newest acknowledged record of
every writer.
"""

from __future__ import annotations

import anyio
import pytest

from skycore.contracts.dht import Dht
from skycore.contracts.store import Items

CONVERGED_S = 300


async def network(world, visors=8):
    """Start two full nodes and some visors; return them when they have met."""
    full = [await world.full_node(), await world.full_node()]
    nodes = await world.spawn("visor", n=visors)
    await anyio.sleep(90)
    return full, nodes


async def test_s3_halves_for_ten_minutes_both_write_and_agree_after(world, notes):
    full, nodes = await network(world)
    for node in nodes:
        assert await notes.write(node, "before")
    left = [full[0], *nodes[:4]]
    right = [full[1], *nodes[4:]]
    world.partition(left, right)
    for minute in range(10):
        await anyio.sleep(60)
        for node in (nodes[minute % 4], nodes[4 + minute % 4]):
            await notes.write(node, f"minute {minute}")
    world.heal()
    await notes.converge(world, [*full, *nodes])
    assert await notes.write(nodes[0], "after")
    await notes.converge(world, nodes)


async def test_s3_full_nodes_hold_the_same_after_a_cut(world, notes):
    full, nodes = await network(world)
    world.partition([full[0], *nodes[:4]], [full[1], *nodes[4:]])
    for node in nodes:
        await anyio.sleep(60)
        await notes.write(node, "during")
    world.heal()
    await anyio.sleep(CONVERGED_S)
    held = []
    for node in full:
        items = await node.get(Items).listing(None, bytes(32), b"\xff" * 32, 1_000)
        held.append({(i.target, i.item_class): i.rank for i in items})
    assert held[0] == held[1]
    assert len(held[0]) >= len(notes.acknowledged)


async def test_s4_a_one_way_cut_loses_nothing(world, notes):
    full, nodes = await network(world)
    for other in (*full, *nodes[1:]):
        world.network.cut(nodes[0].address, other.address)
    for turn in range(5):
        await anyio.sleep(60)
        for node in nodes:
            await notes.write(node, f"turn {turn}")
    world.heal()
    await notes.converge(world, [*full, *nodes])


async def test_s4_an_isolated_node_comes_back(world, notes):
    full, nodes = await network(world)
    world.network.isolate(nodes[0].address)
    for turn in range(5):
        await anyio.sleep(60)
        await notes.write(nodes[1], f"turn {turn}")
    assert not await notes.write(nodes[0], "alone")
    world.heal()
    await notes.converge(world, [*full, *nodes])
    assert await notes.write(nodes[0], "back")
    await notes.converge(world, [*full, *nodes])


async def test_s4_a_bridge_keeps_both_sides_in_touch(world, notes):
    full, nodes = await network(world)
    world.partition(nodes[:4], nodes[4:])  # the full nodes stand in no group: they are the bridge
    for node in nodes:
        await anyio.sleep(10)
        assert await notes.write(node, "over the bridge")
    await notes.converge(world, [*full, *nodes])
    world.heal()


async def test_s4_a_clogged_node_only_delays(world, notes):
    full, nodes = await network(world)
    world.network.clog(nodes[2].address)
    for turn in range(3):
        await anyio.sleep(20)
        await notes.write(nodes[1], f"turn {turn}")
    world.network.unclog(nodes[2].address)
    await notes.converge(world, [*full, *nodes])


async def test_a_read_across_a_cut_ends_by_its_deadline(world, notes):
    _, nodes = await network(world)
    await notes.write(nodes[0], "here")
    world.network.isolate(nodes[7].address)
    with anyio.fail_after(120):
        await nodes[7].get(Dht).get(nodes[0].public, b"nowhere", age_max_s=0)


@pytest.mark.soak
@pytest.mark.parametrize("fifth", range(5))
async def test_s3_fifty_nodes(world, notes, fifth):
    full, nodes = await network(world, visors=48)
    for node in nodes:
        assert await notes.write(node, "before")
    world.partition([full[0], *nodes[fifth::2]], [full[1], *nodes[1 - fifth % 2 :: 2]])
    for minute in range(10):
        await anyio.sleep(60)
        for node in nodes[minute % 5 :: 5]:
            await notes.write(node, f"minute {minute}")
    world.heal()
    await notes.converge(world, [*full, *nodes[::7]])

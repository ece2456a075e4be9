"""Restarts: what a node knew it knows again, and the others take it back."""

from __future__ import annotations

import anyio

from skycore.contracts.dht import Dht


async def test_the_routing_table_is_kept_so_no_seed_is_needed_twice(world, notes):
    seed = await world.full_node()
    nodes = await world.spawn("visor", n=5)
    await world.until(lambda: all(notes.peers(n) >= 4 for n in nodes), limit_s=180)
    await anyio.sleep(60)
    await world.kill(seed)
    await world.kill(nodes[0])
    await anyio.sleep(30)
    await world.start(nodes[0])
    took = await world.until(lambda: notes.peers(nodes[0]) >= 3, limit_s=60)
    assert took <= 45


async def test_a_stopped_node_comes_back_with_the_same_key_and_another_instance(world, notes):
    await world.full_node()
    alice, bob = await world.spawn("visor", n=2)
    await notes.all_meet(world)
    key, instance = alice.node.identity.public, alice.node.identity.instance_id
    await world.restart(alice)
    assert alice.node.identity.public == key
    assert alice.node.identity.instance_id != instance
    await notes.all_meet(world)
    assert await notes.write(alice, "I am back")
    found = await bob.get(Dht).get(alice.public, b"note", age_max_s=0)
    assert found.item.v == b"I am back"


async def test_a_full_node_that_lost_everything_syncs_it_back(world, notes):
    keeper = await world.full_node()
    loser = await world.full_node()
    nodes = await world.spawn("visor", n=4)
    await anyio.sleep(90)
    for node in nodes:
        assert await notes.write(node, "kept by the others")
    await world.kill(loser)
    loser.disk.clear()
    await world.start(loser)
    await world.until(lambda: notes.peers(loser), limit_s=60)
    report = await loser.get(Dht).sync(keeper.public)
    assert report.complete
    for node in nodes:
        assert await loser.get(Dht).get(node.public, b"note", local=True) is not None


async def test_killed_over_and_over_it_always_comes_back(world, notes):
    await world.full_node()
    nodes = await world.spawn("visor", n=3)
    await notes.all_meet(world)
    for _ in range(10):
        await world.kill(nodes[0])
        await world.start(nodes[0])
        await anyio.sleep(5)
    await world.until(lambda: notes.peers(nodes[0]) >= 2, limit_s=120)
    assert await notes.write(nodes[0], "still here")
    await notes.converge(world, nodes)


async def test_everybody_restarts_at_once(world, notes):
    await world.full_node()
    nodes = await world.spawn("visor", n=4)
    await world.until(lambda: all(notes.peers(n) >= 3 for n in nodes), limit_s=180)
    await anyio.sleep(60)
    async with anyio.create_task_group() as tasks:
        for node in world.nodes:
            tasks.start_soon(world.restart, node)
    await notes.all_meet(world, limit_s=90)

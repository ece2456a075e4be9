"""Swizzle: clog nodes one by one, let them go in another order. After FoundationDB."""

from __future__ import annotations

import anyio


async def test_whatever_is_clogged_and_let_go_in_any_order_the_network_heals(world, notes):
    full = [await world.full_node(), await world.full_node()]
    nodes = await world.spawn("visor", n=6)
    await anyio.sleep(90)

    async def write_on():
        turn = 0
        while True:
            turn += 1
            for node in nodes:
                await notes.write(node, f"turn {turn}")
                await anyio.sleep(5)

    for _ in range(2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_on)
            await world.network.swizzle([n.address for n in world.nodes], step_s=15)
            tasks.cancel_scope.cancel()
    assert notes.acknowledged
    await notes.converge(world, [*full, *nodes])


async def test_swizzle_with_kills(world, notes):
    full = [await world.full_node(), await world.full_node()]
    nodes = await world.spawn("visor", n=6)
    await anyio.sleep(90)
    for node in nodes:
        await notes.write(node, "before")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.network.swizzle, [n.address for n in world.nodes])
        for node in (nodes[1], nodes[3], nodes[5]):
            await anyio.sleep(20)
            await world.kill(node)
            await anyio.sleep(5)
            await world.start(node)
    await notes.converge(world, [*full, *nodes])

"""A run with a bit of everything; as a program it prints the hash of what happened."""

from __future__ import annotations

import sys

import anyio

from skycore.contracts.dht import Dht
from skycore.model.items import make_item
from skycore.testing import World, simulate


async def put(node, text):
    identity = node.node.identity
    item = make_item(
        identity.network,
        identity.secret,
        salt=b"note",
        seq=node.clock.wall_ns(),
        until=node.clock.wall_s() + 3_600,
        v=text.encode(),
    )
    await node.get(Dht).put(item)


async def everything(seed):
    """Meet, write, part, swizzle, kill, restart, read."""
    async with World(seed, keep_max=200_000) as world:
        await world.full_node()
        await world.full_node()
        nodes = await world.spawn("visor", n=8)
        await anyio.sleep(40)
        for node in nodes:
            await put(node, f"first of {node.index}")
        world.partition(world.nodes[:5], world.nodes[5:])
        await anyio.sleep(60)
        await put(nodes[0], "on one side")
        await put(nodes[7], "on the other")
        await anyio.sleep(60)
        world.heal()
        await world.kill(nodes[3])
        await world.network.swizzle([n.address for n in nodes[4:]])
        await world.start(nodes[3])
        await world.restart(nodes[5])
        await anyio.sleep(300)
        async with anyio.create_task_group() as tasks:
            for node in nodes:
                tasks.start_soon(node.get(Dht).get, nodes[0].public, b"note")
        await anyio.sleep(300)
    return world.trace


if __name__ == "__main__":
    print(simulate(everything, int(sys.argv[1]), limit_s=10_000).digest)

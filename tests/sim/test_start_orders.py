"""Start orders: whoever starts first, everybody meets and every feature works (C55, S11)."""

from __future__ import annotations

import itertools
import random

import anyio
import pytest

from skycore.contracts.dht import Dht


async def start_in(world, nodes, dice):
    """Start nodes in a random order, with random pauses between."""
    order = list(nodes)
    dice.shuffle(order)
    for node in order:
        await world.start(node)
        await anyio.sleep(dice.choice([0, 0.01, 1, 10]))


@pytest.mark.parametrize("number", range(12))
async def test_s11_any_start_order_meets(world, notes, number):
    dice = random.Random(number)
    nodes = [*world.prepare("fullnode", n=2), *world.prepare("visor", n=4)]
    await start_in(world, nodes, dice)
    await world.until(
        lambda: all(notes.peers(n) for n in nodes), limit_s=90, what="everybody has a peer"
    )


@pytest.mark.soak
@pytest.mark.parametrize("number", range(1_000))
async def test_s11_a_thousand_start_orders(world, notes, number):
    dice = random.Random(number)
    nodes = [*world.prepare("fullnode", n=2), *world.prepare("visor", n=6)]
    await start_in(world, nodes, dice)
    await world.until(lambda: all(notes.peers(n) for n in nodes), limit_s=90)


@pytest.mark.parametrize("order", list(itertools.permutations(["full", "visor"])))
async def test_c55_dht_put_get_and_sync_in_both_start_orders(world, notes, order):
    (full,) = world.prepare("fullnode")
    (visor,) = world.prepare("visor")
    for name in order:
        await world.start(full if name == "full" else visor)
        await anyio.sleep(3)
    await world.until(lambda: notes.peers(full) and notes.peers(visor), limit_s=60)
    assert await notes.write(visor, "from the visor")
    assert await notes.write(full, "from the full node")
    await notes.converge(world, [full, visor])
    report = await visor.get(Dht).sync()
    assert report.complete
    assert report.received >= 2

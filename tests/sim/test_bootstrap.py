"""Bootstrap: every 30 s until one peer answers, then every 5 min; nobody is written off."""

from __future__ import annotations

import itertools

import anyio
import pytest

from skycore.contracts.dht import Dht, DhtMode


@pytest.fixture
def world_options():
    return {"keep_max": 100_000}


def dials(world, source, target):
    """Return the seconds at which one host tried to connect to another; a burst counts once."""
    times = []
    for line in world.trace.kept:
        time, _, rest = line.partition(" ")
        if rest.endswith(" syn") and rest.startswith(f"{source.address}:"):
            at = float(time)
            if f">{target.address}:" in rest and (not times or at - times[-1] > 15):
                times.append(at)
    return times


async def test_a_node_finds_everybody_through_one_seed(world, notes):
    seed = await world.full_node()
    nodes = await world.spawn("visor", n=5)
    await world.until(lambda: all(notes.peers(n) == 5 for n in (seed, *nodes)), limit_s=120)
    assert seed.get(Dht).mode is DhtMode.FULL
    assert nodes[0].get(Dht).mode is DhtMode.REGULAR


@pytest.mark.parametrize("late_s", [0.3, 60, 601])
async def test_c40_o05_a_seed_that_comes_up_late_is_found_within_30_s(world, notes, late_s):
    (seed,) = world.prepare("fullnode")
    (visor,) = await world.spawn("visor")
    await anyio.sleep(late_s)
    assert notes.peers(visor) == 0
    await world.start(seed)
    took = await world.until(lambda: notes.peers(visor), limit_s=45)
    assert took <= 30 + 11  # a dial that was under way may still have to fail


async def test_every_30_s_until_a_peer_answers_then_every_5_min(world, notes):
    alice, bob = world.prepare("fullnode", n=2)
    alone = {"node": {"disable": ["dmsg_client"]}}  # it dials them as relays, at its own times
    (visor,) = await world.spawn("visor", seeds=[alice, bob], settings=alone)
    await anyio.sleep(100)
    before = dials(world, visor, bob)
    assert len(before) == 4
    assert all(25 <= b - a <= 45 for a, b in itertools.pairwise(before))
    await world.start(alice)
    await world.until(lambda: notes.peers(visor), limit_s=45)
    found_at = anyio.current_time()
    await anyio.sleep(1_000)
    after = [t for t in dials(world, visor, bob) if t > found_at]
    assert len(after) == 3
    assert all(270 <= b - a <= 335 for a, b in itertools.pairwise(after))


async def test_c40_a_seed_that_was_away_is_found_again_within_a_retry(world, notes):
    seed = await world.full_node()
    (visor,) = await world.spawn("visor")
    await notes.all_meet(world)
    await world.kill(seed)
    await world.until(
        lambda: not notes.peers(visor), limit_s=600, what="the dead seed is forgotten"
    )
    await world.start(seed)
    assert await world.until(lambda: notes.peers(visor), limit_s=60) <= 30 + 11


async def test_a_node_without_seeds_waits_to_be_found(world, notes):
    (hermit,) = await world.spawn("visor", seeds=[])
    await anyio.sleep(600)
    assert notes.peers(hermit) == 0
    await world.spawn("visor", seeds=[hermit])
    await world.until(lambda: notes.peers(hermit), limit_s=60)

"""A server, a discovery, a full node and two visors behind NATs, started in every order (C40, C55).

Nobody is configured with the server: it is found in the DHT or at the discovery, whichever is there
first. Whoever comes early waits seconds for the others, not minutes.
"""

from __future__ import annotations

import random

import anyio
import pytest

from relay_dmsg.client.service import DmsgClient
from relay_dmsg.server.relay import Relay
from skycore.contracts.transport import Transports
from skycore.errors import SkycoreError
from skycore.testing.nat import NatKind
from skycore.testing.world import World

NAMES = ("discovery", "server", "full node", "alice", "bob")
SEEDS = 1_000
PORT = 9_080
FOUND_S = 30.0
"""A visor without a session looks for servers every 20 s at the latest (±20 %)."""
MET_S = 10.0


def town(world):
    """Prepare the five; none of them runs."""
    (discovery,) = world.prepare(
        "fullnode",
        settings={
            "node": {
                "enable": ["registry_sqlite", "http_server", "discovery_dmsg_server"],
                "disable": ["dmsg_server"],
            },
            "http_server": {"listen": f":{PORT}", "requests_per_minute": 0},
            "discovery_dmsg_server": {"take": False, "feed": False},  # who registers, no others
        },
        seeds=[],
    )
    asks = {"discovery_dmsg": {"url": f"http://{discovery.address}:{PORT}/dmsgd"}}
    (full,) = world.prepare("fullnode", settings={"node": {"disable": ["dmsg_server"]}}, seeds=[])
    (server,) = world.prepare("fullnode", settings=asks, seeds=[full, discovery])
    visors = world.prepare(
        "visor",
        2,
        {**asks, "node": {"disable": ["transport_sudph"]}, "transport_stcpr": {"listen": ""}},
        seeds=[full],
        nat=NatKind.SYMMETRIC,
    )
    return dict(zip(NAMES, (discovery, server, full, *visors), strict=True))


async def meets(world, one, other):
    """Wait until one reaches the other; return the seconds."""
    began = anyio.current_time()
    while True:
        try:
            return await one.get(Transports).ensure(other.public, "user")
        except SkycoreError as failed:
            assert anyio.current_time() - began < MET_S, failed
            world.check()
            await anyio.sleep(0.2)


async def start_in_order(seed):
    """Start the town in the order of a seed, each up to 4 s after the one before; use it."""
    dice = random.Random(seed)
    order = dice.sample(NAMES, len(NAMES))
    async with World(seed=seed) as world:
        nodes = town(world)
        for name in order:
            await world.start(nodes[name])
            await anyio.sleep(dice.uniform(0.0, 4.0))
        alice, bob, server = nodes["alice"], nodes["bob"], nodes["server"]
        took = await world.until(
            lambda: all(n.get(DmsgClient).keeper.sessions for n in (alice, bob)),
            limit_s=FOUND_S,
            what=f"sessions, after the order {order}",
        )
        link = await meets(world, alice, bob)
        assert link.type == "dmsg" and len(server.get(Relay).sessions) == 2, order
        return took


@pytest.mark.parametrize("seed", range(1, 21))
async def test_t4486_c55_any_order_of_starts(seed):
    assert await start_in_order(seed) <= FOUND_S


@pytest.mark.soak
@pytest.mark.parametrize("first", range(0, SEEDS, 50))
async def test_t4486_c55_a_thousand_orders_of_starts(first):
    for seed in range(first, first + 50):
        assert await start_in_order(seed) <= FOUND_S

"""Relays in bad company: clocks that are wrong, and a relay that restarts again and again."""

from __future__ import annotations

import anyio
import pytest

from relay_dmsg.client.service import DmsgClient
from relay_dmsg.server.relay import Relay
from skycore.contracts.dht import Dht
from skycore.contracts.publish import Fact, Publisher
from skycore.contracts.transport import Transports
from skycore.errors import SkycoreError
from skycore.testing.nat import NatKind

SERVER = {"node": {"enable": ["dmsg_server"]}}
HOUR_S = 3_600.0


def hidden(*servers):
    """Return settings of a visor that takes no connections but through relays."""
    return {
        "node": {"enable": ["dmsg_client"], "disable": ["transport_sudph"]},
        "dmsg_client": {"servers": [s.contact for s in servers]},
        "transport_stcpr": {"listen": ""},
    }


async def attached(world, server, *nodes, limit_s=30):
    def are():
        return all(n.node and server.public in n.get(DmsgClient).keeper.sessions for n in nodes)

    return await world.until(are, limit_s=limit_s, what="attached")


@pytest.mark.parametrize("off_s", [HOUR_S, -HOUR_S])
async def test_c13_a_wrong_clock_among_two_is_named_by_who_refuses_the_dial(world, off_s):
    """Three peers are needed to correct it; until then the person reads why, not of a timeout."""
    server = await world.full_node(SERVER)
    (alice,) = await world.spawn("visor", settings=hidden(server), nat=NatKind.SYMMETRIC)
    (bob,) = world.prepare("visor", settings=hidden(server), nat=NatKind.SYMMETRIC)
    bob.clock.offset_s = off_s
    await world.start(bob)
    await attached(world, server, alice, bob)
    began = anyio.current_time()
    with pytest.raises(SkycoreError) as caught:
        await bob.get(Transports).ensure(alice.public, "user")
    assert anyio.current_time() - began < 10
    assert "STALE" in str(caught.value) and "clock" in str(caught.value)


async def test_a_relay_that_restarts_twenty_times_gets_every_visor_back(world):
    """Sessions that never last cost patience, at most the longest wait; and links work again."""
    server = await world.full_node(SERVER)
    alice, bob = await world.spawn("visor", n=2, settings=hidden(server), nat=NatKind.SYMMETRIC)
    await attached(world, server, alice, bob)
    for turn in range(20):
        await (world.stop(server) if turn % 2 else world.kill(server))
        await anyio.sleep(turn % 5)
        await world.start(server)
        await attached(world, server, alice, bob, limit_s=75)  # the longest wait, and 20 %
    await world.until(lambda: len(server.get(Relay).sessions) == 2, limit_s=10, what="sessions")
    with anyio.fail_after(30):
        while True:
            try:
                await alice.get(Transports).ensure(bob.public, "user")
                break
            except SkycoreError:
                await anyio.sleep(0.5)


async def test_m29_twenty_visors_behind_nats_and_one_relay_are_a_dht(world):
    """Every record is read by the others, over the sessions: the relay, a full node, has them all.

    So the DHT makes next to no relayed streams; what there is of them is bounded.
    """
    server = await world.full_node(SERVER)
    visors = await world.spawn("visor", n=20, settings=hidden(server), nat=NatKind.SYMMETRIC)
    await attached(world, server, *visors, limit_s=60)
    relay = server.get(Relay)
    for n, visor in enumerate(visors[:5]):
        published = await visor.get(Publisher).publish(Fact(b"notes", b"%d" % n))
        assert published
    for reader in visors[10:15]:
        for n, visor in enumerate(visors[:5]):
            found = await reader.get(Dht).get(visor.public, b"notes", age_max_s=0)
            assert found is not None and found.item.v == b"%d" % n
    before = dict(relay.counters)
    await anyio.sleep(600)
    moved = relay.counters["bytes"] - before.get("bytes", 0)
    dials = relay.counters["dials"] - before.get("dials", 0)
    assert len(relay.sessions) == 20 and len(relay.splices) <= 190
    assert moved / 600 < 20_000 and dials <= 20 * 10

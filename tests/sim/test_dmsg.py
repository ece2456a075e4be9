"""DMSG in worlds: visors behind NATs, a relay, and what holds them together."""

from __future__ import annotations

import pytest

from skycore.contracts.dht import Dht
from skycore.contracts.transport import Transports
from skycore.model.items import make_item
from skycore.testing import World
from skycore.testing.nat import NatKind

HIDDEN = {"transport_stcpr": {"listen": ""}}


def client(world, *servers, **more):
    """Return settings of a visor that is reached through relays only."""
    return {
        "node": {"enable": ["dmsg_client"]},
        "dmsg_client": {"servers": [s.contact for s in servers], **more},
        "transport_stcpr": {"listen": ""},
    }


SERVER = {"node": {"enable": ["dmsg_server"]}}


def sessions(node):
    from relay_dmsg.client.service import DmsgClient

    return list(node.get(DmsgClient).keeper.sessions)


async def test_two_visors_behind_nats_talk_through_a_relay():
    async with World(seed=7) as world:
        server = await world.full_node(SERVER)
        alice, bob = await world.spawn(
            "visor", n=2, settings=client(world, server), nat=NatKind.SYMMETRIC
        )
        await world.until(lambda: sessions(alice) and sessions(bob), limit_s=10)
        link = await alice.get(Transports).ensure(bob.public, "user")
        assert link.type == "dmsg"
        await world.until(lambda: bob.get(Transports).find(alice.public), limit_s=5)
        identity = alice.node.identity
        item = make_item(
            identity.network,
            identity.secret,
            salt=b"note",
            seq=alice.clock.wall_ns(),
            until=alice.clock.wall_s() + 600,
            v=b"hello",
        )
        await alice.get(Dht).put(item)
        found = await bob.get(Dht).get(alice.public, b"note", age_max_s=0)
        assert found.item.v == b"hello"

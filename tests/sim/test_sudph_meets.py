"""Visors behind NATs that know a resolver's URL and nothing of each other: whole nodes, seeded."""

from __future__ import annotations

import pytest

from skycore.contracts.transport import Transports
from skycore.testing import NatKind

SERVER = {
    "node": {"enable": ["registry_sqlite", "http_server", "discovery_address_server"]},
    "discovery_address_server": {"private_addresses": True, "udp_listen": ":30178"},
    "discovery_address": {"publish": False},
    "http_server": {"listen": ":9080", "requests_per_minute": 0},
}


@pytest.mark.parametrize("kind", [NatKind.FULL_CONE, NatKind.PORT_RESTRICTED])
async def test_one_line_of_config_is_enough_to_meet_behind_nats(world, kind):
    (server,) = world.prepare("fullnode", 1, SERVER, seeds=())
    await world.start(server)
    one_line = {"discovery_address": {"url": f"http://{server.address}:9080/ar"}}
    alice, bob = await world.spawn("visor", n=2, settings=one_line, seeds=(), nat=kind)

    def is_bound(node):
        told = [a for a in node.get(Transports).listening() if a.kind == "sudph"]
        return any(a.endpoint.startswith(f"{node.nat.host}:") for a in told)

    await world.until(lambda: is_bound(alice) and is_bound(bob), limit_s=120)
    made = await alice.get(Transports).ensure(bob.public, look_up=False)
    assert (made.type, made.remote) == ("sudph", bob.public)
    far = [t for t in bob.get(Transports).all() if t.remote == alice.public]
    assert [t.type for t in far] == ["sudph"]

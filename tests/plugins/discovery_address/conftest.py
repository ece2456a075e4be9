"""Whole nodes on virtual time: an address resolver, and visors that look for each other."""

from __future__ import annotations

import pytest

from skycore.testing import World, sim_backend

PORT = 9_080
SERVER = {
    "node": {"enable": ["http_server", "registry_sqlite", "discovery_address_server"]},
    "http_server": {"requests_per_minute": 0},
    "discovery_address_server": {"private_addresses": True, "requests_per_minute": 0},
}


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=12 * 3_600)


class Country:
    """A world with what its tests do again and again."""

    def __init__(self, world):
        self.world = world

    async def resolver(self, **settings):
        """Start a resolver: a full node that serves HTTP; nobody starts from it."""
        (node,) = self.world.prepare("fullnode", 1, {}, seeds=[])
        self.world.seeds.clear()
        for name, values in SERVER.items():
            node.settings[name] = {
                **node.settings.get(name, {}),
                **values,
                **settings.get(name, {}),
            }
        node.settings["node"]["enable"] = [*SERVER["node"]["enable"], "store_memory"]
        node.settings["http_server"] |= {"listen": f"{node.address}:{PORT}"}
        await self.world.start(node)
        return node

    def url(self, node):
        return f"http://{node.address}:{PORT}/ar"

    async def visor(self, url="", *, seeds=(), dht=True, **sections):
        """Start a visor that knows its seeds alone: by a relay it would need no address."""
        (node,) = self.world.prepare("visor", 1, seeds=list(seeds))
        self.world.seeds.clear()
        enable = [*node.settings["node"].get("enable", ()), "http_client", "discovery_address"]
        disable = [*node.settings["node"].get("disable", ()), "dmsg_client"]
        node.settings["node"] |= {"enable": enable, "disable": disable}
        node.settings["discovery_address"] = {"url": url}
        for name, values in sections.items():
            node.settings[name] = {**node.settings.get(name, {}), **values}
        await self.world.start(node)
        return node


@pytest.fixture
async def country(request):
    async with World(seed=11) as world:
        yield Country(world)

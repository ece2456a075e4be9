"""Whole visors behind NATs that know each other's key alone, and a resolver with both its sides."""

from __future__ import annotations

import os

import anyio
import pytest

from discovery_address.server.desk import AddressDesk
from discovery_address.server.udp import UdpSide
from skycore.contracts.transport import Transports
from skycore.testing import World, sim_backend
from skycore.testing.netns import missing

HTTP, UDP, PEERS = 9_080, 30_178, 7_777


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=12 * 3_600)


class Country:
    """A world with a resolver, and visors that speak UDP to each other and nothing else."""

    def __init__(self, world):
        self.world = world
        self.resolver = None

    async def start_resolver(self):
        (node,) = self.world.prepare("fullnode", 1, {}, seeds=[])
        node.settings["node"]["enable"] = [
            "http_server", "registry_sqlite", "store_memory", "discovery_address_server",
        ]  # fmt: skip
        node.settings["http_server"] = {
            "listen": f"{node.address}:{HTTP}",
            "requests_per_minute": 0,
        }
        node.settings["discovery_address_server"] = {
            "private_addresses": True,
            "requests_per_minute": 0,
            "udp_listen": f"{node.address}:{UDP}",
            "udp_other_port": UDP + 1,
        }
        await self.world.start(node)
        self.resolver = node
        return node

    async def visor(self, nat=None, *, dht=True, dmsg=False, **sections):
        """Start a visor that tells nobody of TCP."""
        (node,) = self.world.prepare("visor", 1, seeds=[self.resolver] if dht else [], nat=nat)
        own = node.settings
        own["node"]["enable"] = [*own["node"].get("enable", ()), "transport_sudph"]
        switch = "enable" if dmsg else "disable"
        own["node"][switch] = [*own["node"].get(switch, ()), "dmsg_client"]
        own["transport_stcpr"] = {"listen": ""}
        own["discovery_address"] = {"url": f"http://{self.resolver.address}:{HTTP}/ar"}
        own["transport_sudph"] = {
            "listen": f"{node.address}:{PEERS}",
            "resolver": f"{self.resolver.address}:{UDP}",
        }
        for name, values in sections.items():
            own[name] = {**own.get(name, {}), **values}
        await self.world.start(node)
        return node

    @property
    def core(self):
        return self.resolver.get(UdpSide).core

    @property
    def desk(self):
        return self.resolver.get(AddressDesk)

    async def bound(self, *nodes, limit_s=70.0):
        """Wait until nodes are bound and their NATs are known; return the seconds."""

        def all_known():
            found = [self.core.sessions.of_key(node.public) for node in nodes]
            return all(session is not None and session.nat for session in found)

        return await self.world.until(all_known, limit_s=limit_s, what="visors are bound")


async def ensure(node, other, label="user"):
    """Link two nodes; return the link and the seconds that it took."""
    began = anyio.current_time()
    link = await node.get(Transports).ensure(other.public, label)
    return link, anyio.current_time() - began


@pytest.fixture
def link():
    return ensure


@pytest.fixture
async def country(sim_seed):
    async with World(seed=sim_seed) as world:
        country = Country(world)
        await country.start_resolver()
        yield country


@pytest.fixture(scope="session")
def needs_lab():
    """Skip where no namespaces can be made, unless this is CI: there that is a failure."""
    if os.environ.get("SKYCORE_NETNS") == "off":
        pytest.skip("SKYCORE_NETNS=off: this machine gives nobody a network namespace")
    if missing():
        if os.environ.get("CI") == "true":
            pytest.fail(missing())
        pytest.skip(missing())

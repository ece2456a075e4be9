"""Whole nodes: entries over HTTP, and who gets into the DHT by them (M14, C40, C43)."""

from __future__ import annotations

import anyio
import pytest

from skycore.contracts.dht import Dht
from skycore.contracts.discovery import EntrySource
from skycore.contracts.dmsg import DmsgPresence
from skycore.contracts.rpc import Caller, Rpc
from skycore.contracts.status import StatusSource
from skycore.contracts.transport import Transports
from skycore.model.addresses import parse_contact
from skycore.model.delegation_token import encode_delegation
from skycore.model.entries import DmsgServer
from skycore.model.items import make_delegation
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.testing import World, sim_backend
from skycore.testing.fakes import identity

SERVER = {
    "node": {"enable": ["registry_sqlite", "http_server", "discovery_dmsg_server"]},
    "http_server": {"listen": ":9080"},
}


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=4 * 3_600)


# What nodes say of themselves is for these tests to say, who would otherwise say what they are.
RELAYS = ("dmsg_server", "dmsg_client")


def facts(node, *, bootstrap):
    """Return what a node says of itself: where it takes sessions is not where it takes links."""
    return DmsgServer(f"{node.address}:8081", 100, dht_bootstrap=bootstrap)


AUTHORITY = identity("authority").secret
NETWORK = NetworkConstants(ED25519, "skycore-test", ED25519.public(AUTHORITY))
UNTIL = 1_800_000_000 + 20 * 86_400


class Deployment:
    """A discovery service that is in nobody's DHT, and nodes that know it alone."""

    def __init__(self, world):
        self.world = world

    async def start(self, **settings):
        (self.server,) = await self.world.spawn("visor", 1, {**SERVER, **settings}, seeds=())
        self.client = {
            "node": {"enable": ["http_client", "discovery_dmsg"], "disable": list(RELAYS)},
            "discovery_dmsg": {"url": f"http://{self.server.address}:9080/dmsgd"},
        }
        return self

    async def dmsg_server(self, *, bootstrap):
        """Start a full node that is a DMSG server."""
        (node,) = await self.world.spawn("fullnode", 1, self.client, seeds=())
        self.say(node, bootstrap=bootstrap)
        await self.world.until(lambda: node.get(DmsgPresence).registered, limit_s=10)
        return node

    def say(self, node, *, bootstrap):
        node.get(DmsgPresence).set_server(facts(node, bootstrap=bootstrap))

    async def visor(self, *knows):
        """Start a visor without bootstrap nodes that knows addresses of some."""
        (visor,) = self.world.prepare("visor", 1, self.client, seeds=())
        await self.world.start(visor)
        for node in knows:
            contact = parse_contact(ED25519, node.contact)
            visor.get(Transports).addresses.learn(contact, pinned=True)
        return visor


async def test_m14_a_visor_gets_in_by_servers_with_the_flag_and_dials_no_other():
    async with World(seed=14) as world:
        deployment = await Deployment(world).start()
        one = await deployment.dmsg_server(bootstrap=True)
        other = await deployment.dmsg_server(bootstrap=False)
        visor = await deployment.visor(one, other)
        await world.until(lambda: visor.get(Dht).peer_count, limit_s=40)
        await anyio.sleep(900)
        assert {peer.public for peer in visor.get(Dht).peers()} == {one.public}
        assert visor.get(Transports).find(other.public) is None
        assert other.get(Transports).find(visor.public) is None
        # a flip of the flag is seen at the next look, and dialled
        deployment.say(other, bootstrap=True)
        await world.until(lambda: visor.get(Dht).peer_count == 2, limit_s=310)


async def test_m14_a_server_whose_flag_is_gone_is_not_dialled_any_more():
    async with World(seed=15) as world:
        deployment = await Deployment(world).start()
        one = await deployment.dmsg_server(bootstrap=True)
        deployment.say(one, bootstrap=False)
        await anyio.sleep(2)
        visor = await deployment.visor(one)
        await anyio.sleep(600)
        assert visor.get(Dht).peer_count == 0
        assert one.get(Transports).find(visor.public) is None


async def test_c40_bootstrap_goes_on_while_the_service_is_away():
    async with World(seed=16) as world:
        deployment = await Deployment(world).start()
        one = await deployment.dmsg_server(bootstrap=True)
        await world.kill(deployment.server)
        visor = await deployment.visor(one)
        await anyio.sleep(120)
        assert visor.get(Dht).peer_count == 0
        await world.start(deployment.server)
        await world.until(lambda: visor.get(Dht).peer_count, limit_s=120)


async def test_m6_servers_are_listed_by_the_http_service_and_by_the_dht():
    async with World(seed=17) as world:
        deployment = await Deployment(world).start()
        one = await deployment.dmsg_server(bootstrap=True)
        visor = await deployment.visor(one)
        await world.until(lambda: visor.get(Dht).peer_count, limit_s=40)
        told = await visor.get(Rpc).call(Caller(), "dmsg.servers", {})
        (row,) = told["servers"]
        assert row["pk"] == one.public.hex() and row["dht_bootstrap"]
        assert row["free_sessions"] == 100 and row["server_type"] == "community"
        assert row["source"] == "http" and row["signed"]
        assert {source["name"] for source in told["sources"]} >= {"http"}
        names = {source.name for source in visor.node._parts[EntrySource]}
        assert names == {"dht", "http"}


async def test_a_node_that_stops_is_listed_no_more():
    async with World(seed=18) as world:
        deployment = await Deployment(world).start()
        one = await deployment.dmsg_server(bootstrap=True)
        visor = await deployment.visor()
        sources = visor.node._parts[EntrySource]
        source = next(s for s in sources if s.name == "http" and b"dmsg" in s.salts)
        assert len((await source.records(b"dmsg-server")).records) == 1
        await world.stop(one)
        await anyio.sleep(3)
        assert (await source.records(b"dmsg-server")).records == ()


async def test_m14_the_address_of_such_a_server_is_looked_up_where_it_is_not_known():
    async with World(seed=19) as world:
        server = {
            "node": {"enable": [*SERVER["node"]["enable"], "discovery_address_server"]},
            "discovery_address_server": {"private_addresses": True},
        }
        deployment = await Deployment(world).start(**server)
        client = deployment.client
        client["node"]["enable"].append("discovery_address")
        client["discovery_address"] = {"url": f"http://{deployment.server.address}:9080/ar"}
        one = await deployment.dmsg_server(bootstrap=True)
        other = await deployment.dmsg_server(bootstrap=False)
        visor = await deployment.visor()
        await world.until(lambda: visor.get(Dht).peer_count, limit_s=200)
        assert {peer.public for peer in visor.get(Dht).peers()} == {one.public}
        assert other.get(Transports).find(visor.public) is None


async def test_l6_what_the_service_lists_is_read_back_out_of_the_dht_and_ends_there_too():
    network = {"network": {"name": NETWORK.name, "authority": NETWORK.authority.hex()}}
    async with World(seed=20, settings=network) as world:
        node = {"node": {**SERVER["node"], "disable": list(RELAYS)}}
        service = world.prepare("fullnode", 1, {**SERVER, **node})[0]
        service.settings["publisher"] = {
            "delegations": [
                encode_delegation(make_delegation(NETWORK, AUTHORITY, service.public, salt, UNTIL))
                for salt in (b"dmsg", b"dmsg-server")
            ]
        }
        await world.start(service)
        client = {
            "node": {"enable": ["http_client", "discovery_dmsg"], "disable": list(RELAYS)},
            "discovery_dmsg": {"url": f"http://{service.address}:9080/dmsgd"},
        }
        people = await world.spawn("visor", 3, client)
        for node in people:
            node.get(DmsgPresence).set_server(facts(node, bootstrap=False))
        (reader,) = await world.spawn(
            "fullnode", 1, {"node": {"enable": ["discovery_dmsg"], "disable": list(RELAYS)}}
        )

        async def listed():
            told = await reader.get(Rpc).call(Caller(), "dmsg.servers", {"source": "dht"})
            return {row["pk"] for row in told["servers"]}

        everybody = {node.public.hex() for node in people}
        await until(listed, everybody, limit_s=30)
        await world.kill(people[0])  # it says no goodbye
        await until(listed, everybody - {people[0].public.hex()}, limit_s=130)
        await world.stop(people[1])
        await until(listed, {people[2].public.hex()}, limit_s=10)
        (source,) = (s for s in service.node._parts[StatusSource] if s.name == "dmsg_discovery")
        await anyio.sleep(61)
        assert (await source.status()).fields["differences"] == 0


async def until(ask, wanted, *, limit_s):
    with anyio.fail_after(limit_s):
        while (await ask()) != wanted:
            await anyio.sleep(1)

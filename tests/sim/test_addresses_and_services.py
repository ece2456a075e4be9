"""Addresses and services: what visors register over HTTP is what the DHT says, and the other way.

Whole nodes on virtual time: a full node with both servers, another full node that hears of them
only through the DHT, and visors with the real clients.
"""

from __future__ import annotations

import anyio
import pytest

from discovery_address.server.desk import AddressDesk
from discovery_address.server.service import AddressExchange
from discovery_service.server.desk import ServiceDesk
from discovery_service.server.service import ServiceExchange
from skycore.contracts.discovery import EntrySource
from skycore.contracts.rpc import Caller, Rpc
from skycore.contracts.services import OfferedServices
from skycore.contracts.status import StatusSource
from skycore.contracts.transport import Transports
from skycore.model.delegation_token import encode_delegation
from skycore.model.entries import ServiceEntry
from skycore.model.items import make_delegation
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.testing import World, sim_backend
from skycore.testing.fakes import identity

AUTHORITY = identity("authority").secret
NETWORK = NetworkConstants(ED25519, "sim", ED25519.public(AUTHORITY))
NAMED = {"network": {"name": "sim", "authority": NETWORK.authority.hex()}}
SALTS = (b"addr", b"svc")
TWO = [{"type": "vpn", "port": 44, "country": "DE"}, {"type": "skysocks", "port": 3}]


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=6 * 3_600)


class Deployment:
    """Servers, a reader, and visors."""

    def __init__(self, world):
        self.world = world

    async def start(self):
        enable = ["registry_sqlite", "http_server", "discovery_address_server"]
        (self.server,) = self.world.prepare(
            "fullnode",
            1,
            {
                "node": {"enable": [*enable, "discovery_service_server"]},
                "discovery_address_server": {"private_addresses": True},
                "discovery_address": {"publish": False},
                "http_server": {"listen": ":9080", "requests_per_minute": 0},
            },
        )
        until = self.server.clock.wall_s() + 20 * 86_400
        tokens = [
            encode_delegation(make_delegation(NETWORK, AUTHORITY, self.server.public, salt, until))
            for salt in SALTS
        ]
        self.server.settings["publisher"] = {"delegations": tokens}
        await self.world.start(self.server)
        self.reader = await self.world.full_node({"discovery_address": {"publish": False}})
        return self

    async def visor(self, services=TWO, *, url=True, publish=True):
        base = f"http://{self.server.address}:9080" if url else ""
        (node,) = await self.world.spawn(
            "visor",
            1,
            {
                "node": {"enable": ["http_client", "discovery_address", "discovery_service"]},
                "discovery_address": {"url": base and f"{base}/ar", "publish": publish},
                "discovery_service": {
                    "url": base and f"{base}/sd", "publish": publish, "services": services,
                },
            },
        )  # fmt: skip
        return node

    def over_http(self):
        """Return what the servers list, by salt and key."""
        desks = self.server.get(AddressDesk), self.server.get(ServiceDesk)
        return {
            salt: {one.subject: len(one.entries) for one in desk.directory}
            for salt, desk in zip(SALTS, desks, strict=True)
        }

    async def over_dht(self):
        """Return the same from the other full node's store."""
        (source,) = [s for s in self.reader.node._parts[EntrySource] if s.name == "dht"]
        found = {}
        for salt in SALTS:
            records = (await source.records(salt)).records
            bodies = {r.subject: r.body for r in records if r.body}
            found[salt] = {
                s: len(b) if salt == b"svc" else (b.stcpr is not None) + (b.sudph is not None)
                for s, b in bodies.items()
            }
        return found

    async def settled(self, expected, limit_s=30):
        end = anyio.current_time() + limit_s
        while True:
            told = self.over_http(), await self.over_dht()
            if told == (expected, expected):
                return
            self.world.check()
            assert anyio.current_time() < end, told
            await anyio.sleep(1)

    async def differences(self):
        found = []
        for part in (AddressExchange, ServiceExchange):
            feeding = self.server.get(part).feeding
            await feeding.verify()
            found.append(feeding.differences)
        return found

    async def fields(self, node, name):
        (source,) = [s for s in node.node._parts[StatusSource] if s.name == name]
        return (await source.status()).fields


def listed(*visors, services=2):
    addresses = {bytes(v.public): 1 for v in visors}
    return {b"addr": addresses, b"svc": {bytes(v.public): services for v in visors}}


async def test_l1_l6_what_is_registered_is_fed_and_what_is_gone_is_gone_on_both_sides():
    async with World(seed=70, settings=NAMED) as world:
        deployment = await Deployment(world).start()
        alice, bob, carol = [await deployment.visor(publish=False) for _ in range(3)]
        await deployment.settled(listed(alice, bob, carol))
        assert await deployment.differences() == [0, 0]
        await anyio.sleep(1_000)  # more than three lifetimes: the loops keep them listed
        await deployment.settled(listed(alice, bob, carol), limit_s=1)
        await world.stop(carol)  # says goodbye
        await deployment.settled(listed(alice, bob), limit_s=5)
        await world.kill(bob)  # does not
        await anyio.sleep(300 + 10)
        await deployment.settled(listed(alice), limit_s=5)
        assert await deployment.differences() == [0, 0]
        for name in ("address_resolver", "service_discovery"):
            fields = await deployment.fields(deployment.server, name)
            assert fields["differences"] == 0
            assert fields["subjects"] == 1


async def test_what_visors_say_in_the_dht_alone_is_listed_over_http_too():
    async with World(seed=71, settings=NAMED) as world:
        deployment = await Deployment(world).start()
        alice = await deployment.visor(url=False)
        await deployment.settled(listed(alice), limit_s=120)
        await anyio.sleep(1_000)
        await deployment.settled(listed(alice), limit_s=1)
        await world.stop(alice)  # takes its records back
        await deployment.settled({b"addr": {}, b"svc": {}}, limit_s=60)


async def test_who_does_both_is_listed_once_and_its_own_word_counts():
    async with World(seed=72, settings=NAMED) as world:
        deployment = await Deployment(world).start()
        alice = await deployment.visor()
        await deployment.settled(listed(alice), limit_s=120)
        await anyio.sleep(400)
        await deployment.settled(listed(alice), limit_s=5)
        assert await deployment.differences() == [0, 0]
        fields = await deployment.fields(alice, "address")
        assert fields["bound"] and fields["published"]
        assert fields["seen_at"] == {"stcpr": alice.address}
        fields = await deployment.fields(alice, "services")
        assert (fields["listed"], fields["published"]) == (2, 2)


async def test_l25_offers_of_plugins_come_and_go_in_few_requests():
    async with World(seed=73, settings=NAMED) as world:
        deployment = await Deployment(world).start()
        alice = await deployment.visor([])
        await anyio.sleep(20)
        offered = alice.get(OfferedServices)
        before = (await deployment.fields(alice, "services"))["requests"].get("signed", 0)
        assert before == 0  # nothing to say, nothing said
        one = ServiceEntry(f"{alice.public.hex()}:1", "chat", "v1")
        two = ServiceEntry(f"{alice.public.hex()}:2", "chat", "v1")
        with offered.offer(one):
            for _ in range(100):
                with offered.offer(two):
                    await anyio.sleep(0.01)
            with offered.offer(two):
                await anyio.sleep(20)
                assert deployment.over_http()[b"svc"] == {bytes(alice.public): 2}
            await anyio.sleep(20)
            assert deployment.over_http()[b"svc"] == {bytes(alice.public): 1}
        await anyio.sleep(20)
        assert deployment.over_http()[b"svc"] == {}
        signed = (await deployment.fields(alice, "services"))["requests"]["signed"]
        assert signed <= 5


async def test_c21_svc_ls_asks_everybody_and_says_what_is_missing():
    async with World(seed=74, settings=NAMED) as world:
        deployment = await Deployment(world).start()
        alice, bob = await deployment.visor(), await deployment.visor(url=False)
        await deployment.settled(listed(alice, bob), limit_s=120)

        async def ls(**params):
            return await alice.get(Rpc).call(Caller(), "svc.ls", params)

        told = await ls()
        assert len(told["services"]) == 4
        assert {s["name"] for s in told["sources"]} == {"dht", "http"}
        assert not told["partial"]  # the server knows all; the node's own store is not the network
        assert (await ls(source="dht"))["partial"]
        told = await ls(source="http", type="proxy")
        assert not told["partial"]
        assert {row["address"] for row in told["services"]} == {
            f"{v.public.hex()}:3" for v in (alice, bob)
        }
        (row,) = [
            r for r in (await ls(type="vpn"))["services"] if alice.public.hex() in r["address"]
        ]
        assert row["country"] == "DE" and "http" in row["sources"]
        world.network.isolate(deployment.server.address)
        told = await ls()
        assert told["partial"]
        assert "http" in told["failed"]
        assert any(alice.public.hex() in row["address"] for row in told["services"])


async def test_a_visor_that_moves_is_found_where_it_is_now():
    async with World(seed=75, settings=NAMED) as world:
        deployment = await Deployment(world).start()
        alice, bob = await deployment.visor(), await deployment.visor()
        await deployment.settled(listed(alice, bob), limit_s=120)
        await world.stop(bob)
        bob.settings["transport_stcpr"] = {"listen": f"{bob.address}:7878"}
        await world.start(bob)
        await anyio.sleep(10)
        link = await alice.get(Transports).ensure(bob.public, "user")
        assert link.remote == bob.public

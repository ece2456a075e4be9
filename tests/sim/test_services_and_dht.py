"""What visors tell a discovery service, fed into the DHT and read back out of it: equal sets.

Whole nodes on virtual time: a service on a full node, another full node that knows the service over
HTTP as well and compares the two all the time, and a fleet of production's shape that registers.
"""

from __future__ import annotations

import json
import random

import anyio
import pytest

from benchmarks.workloads import FLEET_HUBS, fleet
from dht_kademlia.comparisons import Comparisons
from discovery_dmsg.server.desk import DmsgDesk
from discovery_transport.server.desk import TransportDesk
from discovery_transport.server.service import TransportExchange
from skycore.contracts.discovery import EntrySource
from skycore.contracts.dmsg import DmsgPresence
from skycore.contracts.rpc import Caller, Rpc
from skycore.contracts.status import StatusSource
from skycore.contracts.store import ItemKey, Items
from skycore.contracts.transport import Transports
from skycore.discovery.sources import list_all, merge_sets
from skycore.model.addresses import parse_contact
from skycore.model.delegation_token import encode_delegation
from skycore.model.entries import DmsgServer
from skycore.model.items import ItemClass, make_delegation, mutable_item_target
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.model.packets import transport_id
from skycore.model.requests import signed
from skycore.testing import World, sim_backend
from skycore.testing.contracts.http import call_app
from skycore.testing.fakes import identity

AUTHORITY = identity("authority").secret
NETWORK = NetworkConstants(ED25519, "sim", ED25519.public(AUTHORITY))
NAMED = {"network": {"name": "sim", "authority": NETWORK.authority.hex()}}
VISORS = 60


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=6 * 3_600)


def part_of_the_fleet(count, seed=0):
    """Return the transports of the largest hub and of the first visors after the hubs, by key."""
    taken = {0, *range(len(FLEET_HUBS), len(FLEET_HUBS) + count - 1)}
    by_visor = {visor: {} for visor in sorted(taken)}
    for one, other, kind in fleet(seed):
        for visor in {one, other} & taken:
            entry = entry_of(identity(f"v{one}", NETWORK), identity(f"v{other}", NETWORK), kind)
            by_visor[visor][entry["t_id"]] = entry
    return by_visor


def entry_of(one, other, kind):
    edges = sorted((one.public.hex(), other.public.hex()))
    t_id = str(transport_id(one.public, other.public, kind))
    return {"t_id": t_id, "edges": edges, "type": kind, "label": "automatic"}


class Deployment:
    """The service's node, the one that compares, and visors that ask over HTTP."""

    def __init__(self, world):
        self.world = world

    async def start(self, **more):
        (self.service,) = self.world.prepare(
            "fullnode",
            1,
            {
                "node": {
                    "enable": ["registry_sqlite", "http_server", "discovery_transport_server"]
                },
                "discovery_transport_server": {"requests_per_minute": 0},
                "http_server": {"listen": ":9080", "requests_per_minute": 0},
            },
        )
        until = self.service.clock.wall_s() + 20 * 86_400
        token = make_delegation(NETWORK, AUTHORITY, self.service.public, b"tp", until)
        self.service.settings["publisher"] = {"delegations": [encode_delegation(token)]}
        await self.world.start(self.service)
        self.watcher = await self.world.full_node(
            {
                "node": {"enable": ["http_client", "discovery_transport"]},
                "discovery_transport": {"url": f"http://{self.service.address}:9080/tpd"},
                "dht_kademlia": {"compare_interval_s": 60.0, **more},
            }
        )
        self.desk = self.service.get(TransportDesk)
        return self

    async def register(self, visor, entries):
        who, path = identity(f"v{visor}", NETWORK), "/tpd/v3/transports/"
        body = json.dumps(list(entries)).encode()
        nonce = await self.desk.directory.next_nonce(who.public)
        said = signed(NETWORK.id, "POST", "h", path.encode(), nonce, body)
        headers = {
            "host": "h", "sw-public": who.public.hex(), "sw-nonce": str(nonce),
            "sw-sig": who.sign(said).hex(),
        }  # fmt: skip
        answer = await call_app(
            self.desk.app, path, method="POST", root="/tpd", body=body, headers=headers.items()
        )
        assert answer.status == 201, answer.body

    async def verify(self):
        """Return what `visor dht verify --against http` gets."""
        rpc = self.watcher.get(Rpc)
        return await rpc.call(Caller(), "dht.verify_source", {"source": "http", "salt": "tp"})

    def sources(self, name):
        parts = self.watcher.node._parts[EntrySource]
        return [s for s in parts if s.name == name and (s.salts is None or b"tp" in s.salts)]

    async def listed(self, name):
        """Return ids by subject, as a source of the watcher has them."""
        (source,) = self.sources(name)
        records = (await source.records(b"tp")).records
        return {r.subject: {str(entry.t_id) for entry in r.body} for r in records if r.body}

    async def fields(self, node, part):
        (source,) = [s for s in node.node._parts[StatusSource] if s.name == part]
        return (await source.status()).fields

    async def settled(self, limit_s=120):
        """Wait until both say the same; return what they say."""
        end = anyio.current_time() + limit_s
        while (told := await self.listed("http")) != await self.listed("dht"):
            self.world.check()
            assert anyio.current_time() < end, (await self.verify())["differences"][:3]
            await anyio.sleep(1)
        return told


def ids_of(told):
    return {entry for entries in told.values() for entry in entries}


async def test_l1_l23_a_fleet_with_a_hub_is_the_same_on_both_sides_and_that_is_told():
    async with World(seed=60, settings=NAMED) as world:
        deployment = await Deployment(world).start()
        by_visor = part_of_the_fleet(VISORS)
        assert max(len(entries) for entries in by_visor.values()) >= 916
        for visor, entries in by_visor.items():
            await deployment.register(visor, entries.values())
        told = await deployment.settled()
        expected = {
            bytes(identity(f"v{visor}", NETWORK).public): set(entries)
            for visor, entries in by_visor.items()
            if entries
        }
        assert told == expected  # 0 missing, 0 extra
        found = await deployment.verify()
        assert found["equal"] and found["complete"] and found["same"] == len(expected)
        # The union over both sources knows of every transport who lists it, and by whose word.
        listings = await list_all(deployment.watcher.node._parts[EntrySource], b"tp")
        assert not listings.failed and not listings.is_partial
        merged = merge_sets(
            [record for one in listings.by_source.values() for record in one.records],
            lambda entry: entry.set_key,
            deployment.watcher.clock.wall_s(),
        )
        assert {str(one.body.t_id) for one in merged} == ids_of(expected)
        assert all(one.sources == ("dht", "http") for one in merged)
        assert all(one.signers == (bytes(deployment.service.public),) for one in merged)
        # C46: the gauge, and what the service itself says.
        await anyio.sleep(90)
        fields = await deployment.fields(deployment.watcher, "dht")
        assert fields["http_differences"] == 0
        assert fields["against_http"]["tp"]["same"] == len(expected)
        fields = await deployment.fields(deployment.service, "transport_discovery")
        assert fields["differences"] == 0 and fields["feed_waiting"] == 0


async def test_c46_what_a_reader_still_finds_is_no_difference_and_who_is_away_no_equality():
    async with World(seed=61, settings=NAMED) as world:
        deployment = await Deployment(world).start(reconcile_interval_s=600.0)
        by_visor = part_of_the_fleet(8)
        for visor, entries in by_visor.items():
            await deployment.register(visor, entries.values())
        await deployment.settled()
        alice = bytes(identity("v0", NETWORK).public)
        items = deployment.watcher.get(Items)
        await items.drop([ItemKey(mutable_item_target(alice, b"tp"), int(ItemClass.MIRROR))])
        found = await deployment.verify()
        # A lookup still finds it at the other full node: a reader is told the same, all the same.
        assert found["equal"]
        await world.stop(deployment.service)
        with pytest.raises(Exception, match=r"9080"):
            await deployment.verify()


async def test_l23_provenance_who_says_what_since_when_and_through_whom():
    async with World(seed=62, settings=NAMED) as world:
        deployment = await Deployment(world).start()
        by_visor = part_of_the_fleet(6)
        for visor, entries in by_visor.items():
            await deployment.register(visor, entries.values())
        await deployment.settled()
        exchange = deployment.service.get(TransportExchange)
        exchange.feeding._backlog.add = lambda subjects: None  # it feeds no more
        extra = entry_of(identity("v0", NETWORK), identity("new", NETWORK), "stcpr")
        await deployment.register(0, [*by_visor[0].values(), extra])
        ghost = entry_of(identity("v5000", NETWORK), identity("v0", NETWORK), "sudph")
        await deployment.register(5_000, [ghost])
        found = await deployment.verify()
        assert not found["equal"] and found["different"] == 2
        rows = {row["subject"]: row for row in found["differences"]}
        hub = rows[identity("v0", NETWORK).public.hex()]
        assert hub["what"] == "different"
        assert (hub["here"]["only"], hub["there"]["only"]) == (0, 1)
        assert hub["here"]["by"] == "mirror" and hub["there"]["by"] == "unsigned"
        assert hub["here"]["signer"] == hub["here"]["via"] == deployment.service.public.hex()
        missing = rows[identity("v5000", NETWORK).public.hex()]
        assert missing["what"] == "missing" and missing["here"] is None
        await deployment.watcher.get(Comparisons).look()
        fields = await deployment.fields(deployment.watcher, "dht")
        assert fields["http_differences"] == 2
        (status,) = [
            s
            for s in deployment.service.node._parts[StatusSource]
            if s.name == "transport_discovery"
        ]
        await exchange.feeding.verify()
        assert (await status.status()).fields["differences"] == 2


async def test_l6_after_churn_nobody_is_left_behind():
    async with World(seed=63, settings=NAMED) as world:
        deployment = await Deployment(world).start()
        dice = random.Random(63)
        by_visor = part_of_the_fleet(25)
        del by_visor[0]
        for turn in range(6):
            for visor, entries in by_visor.items():
                if dice.random() < 0.6:  # the others are heard of no more, for now
                    kept = [entry for entry in entries.values() if dice.random() < 0.8]
                    await deployment.register(visor, kept)
            await anyio.sleep(90 + turn)
        await anyio.sleep(300 + 5 + 5)  # a lifetime, one sweep, and the way there
        assert len(deployment.desk.directory) == 0
        assert await deployment.listed("http") == await deployment.listed("dht") == {}
        exchange = deployment.service.get(TransportExchange)
        await exchange.feeding.verify()
        assert exchange.feeding.differences == 0
        assert exchange.feeding.counters["deleted"] >= 20


# --- all four services, and real clients of them -------------------------------------------------

KINDS = {"transport": "tpd", "dmsg": "dmsgd", "service": "sd", "address": "ar"}
SALTS = ("addr", "dmsg", "dmsg-server", "svc", "tp")


async def all_services(world, *, relays=False):
    """Start a node with all four services; return it and the settings of their clients."""
    (service,) = world.prepare(
        "fullnode",
        1,
        {
            "node": {
                "enable": [
                    "registry_sqlite", "http_server", *(f"discovery_{k}_server" for k in KINDS)
                ],
                "disable": [] if relays else ["dmsg_server"],
            },
            "http_server": {"listen": ":9080", "requests_per_minute": 0},
            "discovery_address_server": {"private_addresses": True},
        },
    )  # fmt: skip
    until = service.clock.wall_s() + 20 * 86_400
    tokens = [
        make_delegation(NETWORK, AUTHORITY, service.public, salt.encode(), until) for salt in SALTS
    ]
    service.settings["publisher"] = {"delegations": [encode_delegation(one) for one in tokens]}
    await world.start(service)
    client = {"node": {"enable": ["http_client", *(f"discovery_{kind}" for kind in KINDS)]}}
    for kind, prefix in KINDS.items():
        client[f"discovery_{kind}"] = {"url": f"http://{service.address}:9080/{prefix}"}
    return service, client


async def test_c46_all_four_services_and_the_dht_say_the_same_of_real_visors():
    async with World(seed=64, settings=NAMED) as world:
        service, client = await all_services(world)
        watcher = await world.full_node({**client, "dht_kademlia": {"compare_interval_s": 60.0}})
        watcher.get(DmsgPresence).set_server(
            DmsgServer(f"{watcher.address}:8081", 100, dht_bootstrap=True)
        )
        offers = [{"type": "vpn", "port": 44}, {"type": "skysocks", "port": 3}]
        client["discovery_service"]["services"] = offers
        visors = await world.spawn("visor", 3, client)
        for one, other in zip(visors, [*visors[1:], visors[0]], strict=True):
            one.get(Transports).addresses.learn(parse_contact(ED25519, other.contact))
            await one.get(Transports).ensure(other.public, "user")
            one.get(DmsgPresence).set_servers([watcher.public])
        rpc = watcher.get(Rpc)

        async def same(counts, limit_s=400):
            """Wait until both sides say the same, of so many subjects."""
            end = anyio.current_time() + limit_s
            while True:
                told = {
                    salt: await rpc.call(Caller(), "dht.verify_source", {"salt": salt})
                    for salt in SALTS
                }
                found = {salt: one["same"] for salt, one in told.items()}
                if found == counts and all(one["equal"] for one in told.values()):
                    return
                assert anyio.current_time() < end, (found, told)
                await anyio.sleep(10)

        everybody = {"addr": 5, "dmsg": 4, "dmsg-server": 1, "svc": 3, "tp": 3}
        await same(everybody)
        await anyio.sleep(600)  # entries are signed anew, registered anew, leases end and begin
        await same(everybody, limit_s=1)
        gauge = await status_of(watcher, "dht")
        assert gauge["http_differences"] == 0 and gauge["http_troubles"] == 0
        assert set(gauge["against_http"]) == set(SALTS)
        for part in ("transport_discovery", "dmsg_discovery", "service_discovery"):
            assert (await status_of(service, part))["differences"] == 0, part
        await world.stop(visors[0])
        await same({"addr": 4, "dmsg": 3, "dmsg-server": 1, "svc": 2, "tp": 2})
        lost = [visors[1]]  # it cannot say anything any more: its lists end by themselves
        world.partition(lost, [node for node in world.nodes if node not in lost])
        await anyio.sleep(330)
        await same({"addr": 3, "dmsg": 3, "dmsg-server": 1, "svc": 1, "tp": 0})


async def test_c46_a_service_lists_the_relay_that_shares_its_node():
    """All in one process, as on a laptop: nobody sets the address of the service beside it."""
    async with World(seed=65, settings=NAMED) as world:
        service, client = await all_services(world, relays=True)
        watcher = await world.full_node(client)
        rpc = watcher.get(Rpc)

        async def told(salt):
            return await rpc.call(Caller(), "dht.verify_source", {"salt": salt})

        for _ in range(2):
            await anyio.sleep(200)
            for salt in ("dmsg", "dmsg-server"):
                one = await told(salt)
                assert one["equal"] and one["same"] == 2, (salt, one)
        directory = service.get(DmsgDesk).directory
        assert set(directory.having(b"server")) == {service.public, watcher.public}
        await world.stop(service)
        await world.start(service)
        await anyio.sleep(200)
        for salt in ("dmsg", "dmsg-server"):
            one = await told(salt)
            assert one["equal"] and one["same"] == 2, (salt, one)


async def status_of(node, part):
    (source,) = [s for s in node.node._parts[StatusSource] if s.name == part]
    return (await source.status()).fields

"""A service on a full node, and another full node that knows of it only through the DHT."""

from __future__ import annotations

import json

import anyio

from discovery_transport.server.desk import TransportDesk
from discovery_transport.server.service import TransportExchange
from skycore.contracts.discovery import EntrySource
from skycore.model.delegation_token import encode_delegation
from skycore.model.items import make_delegation
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.model.requests import signed
from skycore.testing import World
from skycore.testing.contracts.http import call_app
from skycore.testing.fakes import identity

AUTHORITY = identity("authority").secret
NETWORK = NetworkConstants(ED25519, "sim", ED25519.public(AUTHORITY))
NAMED = {"network": {"name": "sim", "authority": NETWORK.authority.hex()}}
ENABLE = ["registry_sqlite", "http_server", "discovery_transport_server"]
HUB_SIZE, OTHERS = 916, 30
PATH = "/tpd/v3/transports/"


class Service:
    """The service on its node, and callers that ask its application."""

    def __init__(self, world):
        self.world = world

    async def start(self):
        (self.node,) = self.world.prepare(
            "fullnode",
            1,
            {
                "node": {"enable": ENABLE},
                "discovery_transport_server": {"requests_per_minute": 0},
                "http_server": {"listen": ":9080"},
            },
        )
        until = self.node.clock.wall_s() + 20 * 86_400
        token = make_delegation(NETWORK, AUTHORITY, self.node.public, b"tp", until)
        self.node.settings["publisher"] = {"delegations": [encode_delegation(token)]}
        await self.world.start(self.node)
        self.reader = await self.world.full_node()
        self.desk = self.node.get(TransportDesk)
        return self

    async def ask(self, who, method, path, body=b""):
        nonce = await self.desk.directory.next_nonce(who.public)
        said = signed(NETWORK.id, method, "h", path.encode(), nonce, body)
        headers = {
            "host": "h",
            "sw-public": who.public.hex(),
            "sw-nonce": str(nonce),
            "sw-sig": who.sign(said).hex(),
        }
        app = self.desk.app
        return await call_app(
            app, path, method=method, root="/tpd", body=body, headers=headers.items()
        )

    async def register(self, who, entries):
        answer = await self.ask(who, "POST", PATH, json.dumps(entries).encode())
        assert answer.status == 201, answer.body

    async def over_http(self):
        """Return ids by key, as the routes tell them."""
        whole = await call_app(self.desk.app, "/tpd/all-transports", root="/tpd")
        ids = {e["t_id"] for e in whole.json()} if whole.status == 200 else set()
        by_key = {
            one.subject: {json.loads(e.body)["t_id"] for e in one.entries}
            for one in self.desk.directory
        }
        return ids, by_key

    async def over_dht(self):
        """Return the same from the other full node's store."""
        sources = self.reader.node._parts[EntrySource]
        (source,) = (s for s in sources if s.name == "dht")
        found = await source.records(b"tp")
        by_key = {r.subject: {str(e.t_id) for e in r.body} for r in found.records if r.body}
        return set().union(*by_key.values()), by_key

    async def equal(self, limit_s):
        """Wait until both say the same; return what."""
        end = anyio.current_time() + limit_s
        while (told := await self.over_http()) != (read := await self.over_dht()):
            assert anyio.current_time() < end, (
                {k.hex()[:8]: len(v) for k, v in told[1].items() if read[1].get(k) != v},
                self.node.get(TransportExchange).feeding.status_fields(),
            )
            await anyio.sleep(1)
        return told


async def test_l1_l6_the_dht_says_what_http_says_also_of_a_hub_and_after_ends(tp):
    async with World(seed=1, settings=NAMED) as world:
        service = await Service(world).start()
        people = [identity(f"peer{i}", NETWORK) for i in range(HUB_SIZE)]
        hub = identity("hub", NETWORK)
        told = [(hub, [tp(hub, peer) for peer in people])]
        told += [
            (people[i], [tp(people[i], hub), tp(people[i], people[i + 1], "sudph")])
            for i in range(OTHERS)
        ]
        for who, entries in told:
            await service.register(who, entries)
        ids, by_key = await service.equal(limit_s=120)
        assert len(ids) == HUB_SIZE + OTHERS
        assert len(by_key[hub.public]) == HUB_SIZE
        # Ten end at once, ten are heard of no more, and the rest go on.
        for who, entries in told[1:11]:
            body = json.dumps([e["t_id"] for e in entries]).encode()
            answer = await service.ask(who, "POST", "/tpd/transports/delete-batch", body)
            assert answer.json() == {"deleted": 2, "skipped": 0}
        _, by_key = await service.equal(limit_s=30)
        assert len(by_key) == 1 + OTHERS - 10
        for _ in range(4):
            await anyio.sleep(90)
            for who, entries in [told[0], *told[21:]]:
                await service.register(who, entries)
        ids, by_key = await service.equal(limit_s=30)
        assert len(by_key) == 1 + OTHERS - 20
        await anyio.sleep(120)
        fields = service.node.get(TransportExchange).feeding.status_fields()
        assert fields["differences"] == 0
        assert fields["feed_repaired"] == 0

"""Worlds with a transport discovery service on a full node, and visors that use it."""

from __future__ import annotations

import anyio
import pytest

from discovery_transport.client.carriers import Carriers
from discovery_transport.server.desk import TransportDesk
from skycore.contracts.rpc import Caller, Rpc
from skycore.contracts.status import StatusSource
from skycore.contracts.transport import Transports
from skycore.model.addresses import parse_contact
from skycore.model.keys import ED25519
from skycore.testing import sim_backend

SERVER = {
    "node": {
        "enable": ["registry_sqlite", "http_server", "http_client", "discovery_transport_server"]
    },
    "http_server": {"listen": ":9080"},
}


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=7_200)


class _Deployment:
    """A service on a full node, more full nodes, and visors in a ring of transports."""

    def __init__(self, world):
        self.world = world

    async def start(self, *, full_nodes=2, visors=4, **client):
        world = self.world
        self.server = await world.full_node(SERVER)
        self.url = f"http://{self.server.address}:9080/tpd"
        self.settings = {
            "node": {"enable": ["http_client", "discovery_transport"]},
            "discovery_transport": {"url": self.url} | client,
        }
        no_service = self.settings | {"discovery_transport": {}}
        self.full = [await world.full_node(no_service) for _ in range(full_nodes)]
        self.visors = await world.spawn("visor", visors, self.settings)
        for one, other in zip(self.visors, [*self.visors[1:], self.visors[0]], strict=True):
            await self.link(one, other)
        return self

    async def link(self, one, other):
        """Let visors know each other by address, as after a lookup, and keep a transport."""
        transports = one.get(Transports)
        transports.addresses.learn(parse_contact(ED25519, other.contact))
        return await transports.ensure(other.public, "user")

    async def call(self, node, method, /, **params):
        return await node.get(Rpc).call(Caller(), method, params)

    async def status(self, node):
        parts = node.node._parts[StatusSource]
        (source,) = (part for part in parts if part.name == "transport_registration")
        return await source.status()

    def carriers(self, node):
        return node.get(Carriers)

    @property
    def desk(self):
        return self.server.get(TransportDesk)

    @property
    def registrations(self):
        return sum(self.carriers(v).registrar.registrations for v in self.visors if v.node)

    def all_carried_by_dht(self):
        return all(self.carriers(v).verdict.is_handed_over for v in self.visors if v.node)

    def missing(self):
        """Return (visor, id) of what a visor has and the service does not list under it."""
        gone = []
        for visor in self.visors:
            if visor.node is None:
                continue
            listed = {entry.key for entry in self.desk.directory.of(visor.public).entries}
            own = {e.t_id.bytes for e in self.carriers(visor).own.entries}
            gone += [(visor.name, key.hex()) for key in own - listed]
        return gone

    async def watch(self, for_s, missing, step_s=1.0):
        """Sample every second whether something is missing."""
        end = anyio.current_time() + for_s
        while anyio.current_time() < end:
            await anyio.sleep(step_s)
            self.world.check()
            if self.server.node is not None and (gone := self.missing()):
                missing.append((anyio.current_time(), gone))

    async def settled(self):
        """Wait until both edges of all transports know that they are kept, and all rests."""
        await anyio.sleep(45)
        await self.handed_over()

    async def handed_over(self, limit_s=300):
        return await self.world.until(
            self.all_carried_by_dht, limit_s=limit_s, what=self.why(), step_s=1.0
        )

    def why(self):
        return [(v.name, self.carriers(v).verdict) for v in self.visors if v.node]


@pytest.fixture
def deployment():
    """Return what makes a deployment in a world."""
    return _Deployment

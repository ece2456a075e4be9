"""A DMSG discovery on virtual time, with a mirror into a peer's store, and callers that sign."""

from __future__ import annotations

from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest

from discovery_dmsg.client.api import DmsgApi
from discovery_dmsg.server.service import open_desk, open_routes, open_status
from discovery_dmsg.settings import DmsgServerSettings
from namespaces_skywire.declarations import ALL, DMSG, DMSG_SERVER
from skycore.contracts.dht import PutReport
from skycore.contracts.http import HttpResponse
from skycore.contracts.namespace import Namespaces
from skycore.contracts.runtime import NodeInfo
from skycore.contracts.store import PutOutcome
from skycore.errors import HttpUnreachableError
from skycore.events import Events
from skycore.guards.gate import GateSettings, open_gate
from skycore.guards.publish import PublisherSettings, open_publisher
from skycore.model import dmsg_entry
from skycore.model.delegation_token import encode_delegation
from skycore.model.entries import DmsgClient, DmsgEntry, DmsgServer
from skycore.model.items import Kind, make_delegation
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.model.requests import signed
from skycore.testing import sim_backend
from skycore.testing.contracts.http import call_app
from skycore.testing.dictregistry import DictRegistry
from skycore.testing.fakes import InlineWorkers, MemoryFiles, SeededEntropy, identity
from skycore.testing.mirrors import PeersMirror
from skycore.testing.seams import SimClock
from skycore.wiring import Live
from store_memory.service import open_memory_store
from store_memory.settings import MemoryStoreSettings

AUTHORITY = identity("authority").secret
NETWORK = NetworkConstants(ED25519, "skycore-test", ED25519.public(AUTHORITY))
ME = identity("discovery", NETWORK)
UNTIL = 1_800_000_000 + 20 * 86_400
INFO = NodeInfo("mirror", ("discovery_dmsg_server",), "1.2.3", "skycore-test")
AT = "/dmsg-discovery"


class FlakyMirror(PeersMirror):
    """A mirror into a peer's gate, and into our own store; it can be away."""

    is_down = False

    def __init__(self, name, peers, sender, own):
        super().__init__(name, peers, sender)
        self.own = own

    async def mirror(self, items, *, blocks=None, **more):
        given = tuple((blocks or {}).values())
        await self.own.admit(items, sender=bytes(ME.public), blocks=given)
        if self.is_down:
            return [PutReport(PutOutcome(400, text="away")) for _ in items]
        return await super().mirror(items, blocks=blocks, **more)

    async def renew(self, leases):
        await self.own.renew(leases, sender=bytes(ME.public))
        if self.is_down:
            return [PutReport(PutOutcome(400, text="away")) for _ in leases]
        return await super().renew(leases)


class AppClient:
    """An HttpClient whose server is the service of a lab; it can be away, and it can lie."""

    def __init__(self, lab):
        self.lab = lab
        self.is_down = False
        self.requests = []
        self.lies = {}
        """By path below the prefix: the body that is told instead."""

    async def request(
        self, method, url, *, body=b"", headers=None, timeout_s=None, body_bytes_max=None
    ):
        path = url.removeprefix("http://dmsgd.test")
        self.requests.append((method, path))
        await anyio.sleep(0.01)
        if self.is_down:
            raise HttpUnreachableError("nobody there")
        below = path.removeprefix(self.lab.settings.prefix)
        if below in self.lies:
            return HttpResponse(200, {}, self.lies[below], url)
        told = [("host", "dmsgd.test"), *(headers or {}).items()]
        return await call_app(
            self.lab.routes.app, path, method=method, root=self.lab.settings.prefix,
            body=body, headers=told,
        )  # fmt: skip

    def writes(self):
        return [request for request in self.requests if request[0] != "GET"]


class Person:
    """Somebody with a key, who numbers entries."""

    def __init__(self, name, clock):
        self.identity = identity(name, NETWORK)
        self.public = bytes(self.identity.public)
        self.key = self.public.hex()
        self.clock, self.sequence = clock, 0

    def entry(self, *, client=None, server=None, deletes=False, **fields):
        """Return a signed entry, the next one unless `sequence` says otherwise."""
        self.sequence = fields.pop("sequence", self.sequence + 1)
        entry = DmsgEntry(
            fields.pop("static", self.key),
            fields.pop("version", "0.0.1"),
            self.sequence,
            fields.pop("timestamp", self.clock.wall_ns()),
            client=client,
            server=server,
            **fields,
        )
        return dmsg_entry.sign(NETWORK, entry, self.identity.sign, deletes=deletes)

    def as_client(self, *servers, **fields):
        keys = tuple(s.key for s in servers)
        return self.entry(client=DmsgClient(keys), client_type="visor", **fields)

    def as_server(self, free=10, address="203.0.113.7:8081", bootstrap=False, **fields):
        return self.entry(server=DmsgServer(address, free, dht_bootstrap=bootstrap), **fields)


class Lab:
    """The service and all around it."""

    def __init__(self, me=ME):
        self.me = me
        self.clock = SimClock()
        self.registry = DictRegistry(self.clock)
        self.files = MemoryFiles()
        self.namespaces = Namespaces(ALL)
        self.mirrors, self.sources = [], []
        self.http = AppClient(self)
        self.url = "http://dmsgd.test/dmsgd"

    def api(self, who="alice"):
        """Return the service as a node asks it."""
        return DmsgApi(self.http, identity(who, NETWORK), self.clock, self.url, 5.0)

    def person(self, name):
        return Person(name, self.clock)

    @asynccontextmanager
    async def gate(self, who):
        async with (
            open_memory_store(MemoryStoreSettings(), SeededEntropy()) as store,
            open_gate(
                GateSettings(), store, who, self.namespaces, self.clock, InlineWorkers(), Events()
            ) as gate,
        ):
            yield gate

    @asynccontextmanager
    async def service(self, *, delegated=True, mirrored=True, **settings):
        """Run the service; leave it and enter again for a restart."""
        self.settings = DmsgServerSettings(**settings)
        tokens = [
            make_delegation(NETWORK, AUTHORITY, self.me.public, salt, UNTIL)
            for salt in ((b"dmsg", b"dmsg-server") if delegated else ())
        ]
        published = PublisherSettings(delegations=tuple(map(encode_delegation, tokens)))
        async with open_publisher(
            published,
            self.me,
            self.own,
            Live(self.mirrors),
            self.namespaces,
            self.clock,
            self.files,
        ) as publisher:
            parts = (publisher, self.own, self.namespaces) if mirrored else (None, None, None)
            async with (
                open_desk(
                    self.settings, self.me, self.clock, SeededEntropy(), self.files, INFO,
                    self.registry, Live(self.sources), *parts, Live(self.mirrors),
                ) as self.desk,
                open_routes(self.settings, self.desk) as self.routes,
                open_status(self.desk) as self.status,
            ):  # fmt: skip
                yield self

    async def ask(self, method, path, body=b"", headers=()):
        """Ask the routes; return status and JSON."""
        if isinstance(body, DmsgEntry):
            body = dmsg_entry.encode(body)
        prefix = self.settings.prefix
        answer = await call_app(
            self.routes.app,
            prefix + path,
            method=method,
            root=prefix,
            body=body,
            headers=[("host", "dmsgd.test"), *headers],
        )
        return answer.status, msgspec.json.decode(answer.body)

    async def post(self, entry):
        return await self.ask("POST", f"{AT}/entry/", entry)

    async def list(self, path, *, status=200):
        got, told = await self.ask("GET", AT + path)
        assert got == status, told
        return told

    async def ask_signed(self, who, method, path, body=b"", *, nonce=None):
        """Ask as `who`, with the next nonce unless one is given."""
        if nonce is None:
            _, told = await self.ask("GET", f"/security/nonces/{who.key}")
            nonce = told["next_nonce"]
        target = (self.settings.prefix + path).encode()
        said = signed(NETWORK.id, method, "dmsgd.test", target, nonce, body)
        headers = [
            ("sw-public", who.key),
            ("sw-nonce", str(nonce)),
            ("sw-sig", who.identity.sign(said).hex()),
        ]
        return await self.ask(method, path, body, headers)

    async def standing(self, namespace=DMSG):
        """Return what stands published at the peer: the body by subject."""
        rows = await self.peer.listing(namespace.salt, bytes(32), b"\xff" * 32, 10_000)
        return {
            row.item.subject: namespace.decode(row.value)
            for row in rows
            if row.item.kind != Kind.TOMBSTONE
        }

    async def servers_standing(self):
        return await self.standing(DMSG_SERVER)


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=24 * 3_600)


@pytest.fixture
async def lab():
    one = Lab()
    peer = identity("peer", NETWORK)
    async with one.gate(ME) as one.own, one.gate(peer) as one.peer:
        one.mirror = FlakyMirror("peer", [one.peer], bytes(ME.public), one.own)
        one.mirrors.append(one.mirror)
        yield one


@pytest.fixture
async def running(lab):
    async with lab.service():
        yield lab

"""A transport discovery over a registry in memory, on virtual time, and keys that ask it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest

from discovery_transport.server.service import (
    TransportExchange,
    open_desk,
    open_routes,
    open_status,
)
from discovery_transport.server.settings import TransportServerSettings
from skycore.contracts.runtime import NodeInfo
from skycore.model.packets import transport_id
from skycore.model.requests import signed
from skycore.testing import sim_backend
from skycore.testing.contracts.http import call_app
from skycore.testing.dictregistry import DictRegistry
from skycore.testing.fakes import TEST_NETWORK, InlineWorkers, identity
from skycore.testing.seams import SimClock

INFO = NodeInfo("visor", ("discovery_transport_server",), "1.2.3", "skycore-test")
HOST = "tpd.example"


class Tpd:
    """A running service as a test sees it."""

    def __init__(self, desk, routes, status, registry, clock):
        self.desk, self.routes, self.status = desk, routes, status
        self.registry, self.clock = registry, clock

    async def get(self, path, **headers):
        return await self.send("GET", path, headers=headers.items())

    async def send(self, method, path, body=b"", headers=()):
        told = [("host", HOST), *((k.replace("_", "-"), v) for k, v in headers)]
        root = self.routes.prefix
        return await call_app(
            self.routes.app, root + path, method=method, root=root, body=body, headers=told
        )

    async def nonce(self, who):
        return json.loads((await self.get(f"/security/nonces/{who.public.hex()}")).body)[
            "next_nonce"
        ]

    async def headers(self, who, method, path, body=b"", nonce=None, network=TEST_NETWORK):
        nonce = await self.nonce(who) if nonce is None else nonce
        target = (self.routes.prefix + path).encode()
        said = signed(network.id, method, HOST, target, nonce, body)
        return [
            ("sw-public", who.public.hex()),
            ("sw-nonce", str(nonce)),
            ("sw-sig", who.sign(said).hex()),
        ]

    async def ask(self, who, method, path, body=b""):
        """Ask in somebody's name."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.send(method, path, body, await self.headers(who, method, path, body))

    async def register(self, who, *entries):
        return await self.ask(who, "POST", "/v3/transports/", list(entries))

    async def listed(self):
        """Return the ids of all that is listed."""
        answer = await self.get("/all-transports")
        return {e["t_id"] for e in json.loads(answer.body)} if answer.status == 200 else set()


def entry(one, other, kind="stcpr", label="automatic"):
    """Return a transport as clients tell it; edges may be identities or hex."""
    edges = [e if isinstance(e, str) else e.public.hex() for e in (one, other)]
    t_id = transport_id(*(bytes.fromhex(e) for e in edges), kind)
    return {"t_id": str(t_id), "edges": sorted(edges), "type": kind, "label": label}


@asynccontextmanager
async def opened(registry=None, clock=None, **settings):
    clock = clock or SimClock()
    registry = registry or DictRegistry(clock)
    settings = TransportServerSettings(**{"requests_per_minute": 0, **settings})
    async with (
        open_desk(settings, registry, identity("server"), INFO, clock, InlineWorkers()) as desk,
        open_routes(desk) as routes,
        open_status(desk, TransportExchange(None, None)) as status,
    ):
        yield Tpd(desk, routes, status, registry, clock)


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=7_200)


@pytest.fixture
async def tpd():
    async with opened() as service:
        yield service


@pytest.fixture
def make():
    """Return what opens a service, what makes an entry, and who there is."""
    return opened


@pytest.fixture
def tp():
    return entry


@pytest.fixture
def people():
    return [identity(name) for name in ("alice", "bob", "carol", "dave")]

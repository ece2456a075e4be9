"""A service discovery over a registry in memory, on virtual time, and keys that ask it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest

from discovery_service.server.service import (
    ServiceExchange,
    open_desk,
    open_routes,
    open_status,
)
from discovery_service.server.settings import ServiceServerSettings
from skycore.contracts.runtime import NodeInfo
from skycore.model.requests import signed, signed_old
from skycore.testing import sim_backend
from skycore.testing.contracts.http import call_app
from skycore.testing.dictregistry import DictRegistry
from skycore.testing.fakes import TEST_NETWORK, SeededEntropy, identity
from skycore.testing.seams import SimClock

INFO = NodeInfo("visor", ("discovery_service_server",), "1.2.3", "skycore-test")
HOST = "sd.example"
PUBLIC = "198.51.101.7"


class Services:
    """A running service discovery as a test sees it."""

    public = PUBLIC

    def __init__(self, desk, routes, status, registry):
        self.desk, self.routes, self.status, self.registry = desk, routes, status, registry

    async def send(self, method, path, body=b"", headers=(), client=PUBLIC):
        root = self.routes.prefix
        told = [("host", HOST), *headers]
        return await call_app(
            self.routes.app,
            root + path,
            method=method,
            root=root,
            body=body,
            headers=told,
            client=client,
        )

    async def get(self, path):
        return await self.send("GET", path)

    async def nonce(self, who):
        answer = await self.get(f"/security/nonces/{who.public.hex()}")
        return json.loads(answer.body)["next_nonce"]

    async def headers(self, who, method, path, body=b"", *, old=False):
        nonce = await self.nonce(who)
        target = (self.routes.prefix + path).encode()
        said = signed(TEST_NETWORK.id, method, HOST, target, nonce, body)
        return [
            ("sw-public", who.public.hex()),
            ("sw-nonce", str(nonce)),
            ("sw-sig", who.sign(signed_old(body, nonce) if old else said).hex()),
        ]

    async def ask(self, who, method, path, body=b"", client=PUBLIC):
        """Ask in somebody's name, from an address."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = await self.headers(who, method, path, body)
        return await self.send(method, path, body, headers, client)

    async def post(self, who, *rows, client=PUBLIC):
        told = rows[0] if len(rows) == 1 else list(rows)
        return await self.ask(who, "POST", "/api/services", told, client)

    async def listed(self, kind="vpn"):
        """Return the addresses of all services of a type."""
        return [
            row["address"]
            for row in json.loads((await self.get(f"/api/services?type={kind}")).body)
        ]


@asynccontextmanager
async def opened(registry=None, **settings):
    clock = SimClock()
    registry = registry or DictRegistry(clock)
    settings = ServiceServerSettings(**{"requests_per_minute": 0, **settings})
    async with (
        open_desk(settings, registry, identity("server"), INFO, clock, SeededEntropy(1)) as desk,
        open_routes(desk) as routes,
        open_status(desk, ServiceExchange(None, None)) as status,
    ):
        yield Services(desk, routes, status, registry)


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=7_200)


@pytest.fixture
async def sd():
    async with opened() as services:
        yield services


@pytest.fixture
def make():
    return opened


@pytest.fixture
def alice():
    return identity("alice")


@pytest.fixture
def bob():
    return identity("bob")

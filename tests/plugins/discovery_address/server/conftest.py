"""An address resolver over a registry in memory, on virtual time, and keys that ask it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest

from discovery_address.server.service import (
    AddressExchange,
    open_desk,
    open_routes,
    open_status,
)
from discovery_address.server.settings import AddressServerSettings
from discovery_address.server.udp import open_udp_side
from skycore.contracts.runtime import NodeInfo
from skycore.model.requests import signed, signed_old
from skycore.testing import SimNetwork, sim_backend
from skycore.testing.contracts.http import call_app
from skycore.testing.dictregistry import DictRegistry
from skycore.testing.fakes import TEST_NETWORK, SeededEntropy, identity
from skycore.testing.seams import SimClock

INFO = NodeInfo("visor", ("discovery_address_server",), "1.2.3", "skycore-test")
HOST = "ar.example"
PUBLIC = "198.51.101.7"
UDP_HOST = "198.51.100.1"


class Resolver:
    """A running resolver as a test sees it."""

    public = PUBLIC

    def __init__(self, desk, routes, status, registry, udp):
        self.desk, self.routes, self.status, self.registry = desk, routes, status, registry
        self.udp = udp

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

    async def bind(self, who, port="7777", addresses=(), client=PUBLIC):
        told = {"port": port, "addresses": list(addresses)}
        return await self.ask(who, "POST", "/bind/stcpr", told, client)

    async def resolve(self, asker, who, kind="stcpr", client="198.51.101.99"):
        return await self.ask(asker, "GET", f"/resolve/{kind}/{who.public.hex()}", client=client)


@asynccontextmanager
async def opened(registry=None, network=None, seed=0, **settings):
    clock = SimClock()
    registry = registry or DictRegistry(clock)
    settings = AddressServerSettings(**{"requests_per_minute": 0, **settings})
    async with (
        open_desk(settings, registry, identity("server"), INFO, clock) as desk,
        open_routes(desk) as routes,
        open_udp_side(
            settings,
            desk,
            identity("server"),
            (network or SimNetwork()).host(UDP_HOST),
            clock,
            SeededEntropy(seed),
        ) as udp,
        open_status(desk, AddressExchange(None, None), udp) as status,
    ):
        yield Resolver(desk, routes, status, registry, udp)


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=7_200)


@pytest.fixture
async def ar():
    async with opened() as resolver:
        yield resolver


@pytest.fixture
def make():
    return opened


@pytest.fixture
def alice():
    return identity("alice")


@pytest.fixture
def bob():
    return identity("bob")

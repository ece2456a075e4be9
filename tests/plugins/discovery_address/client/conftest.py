"""The client's parts against the real server's application, without sockets."""

from __future__ import annotations

from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from discovery_address.server.service import open_desk
from discovery_address.server.settings import AddressServerSettings
from skycore.contracts.http import HttpResponse
from skycore.contracts.runtime import NodeInfo
from skycore.discovery.signed import SignedClient
from skycore.errors import HttpReplyError, HttpUnreachableError
from skycore.testing import sim_backend
from skycore.testing.contracts.http import call_app
from skycore.testing.dictregistry import DictRegistry
from skycore.testing.fakes import identity
from skycore.testing.seams import SimClock


class AppClient:
    """`contracts.http.HttpClient` that asks an application in this process."""

    def __init__(self, app):
        self.app, self.is_down, self.asked, self.answers = app, False, [], {}

    async def get(self, url, **options):
        return await self.request("GET", url, **options)

    async def request(self, method, url, *, body=b"", headers=None, body_bytes_max=64 * 2**20, **_):
        if self.is_down:
            raise HttpUnreachableError("no way")
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        self.asked.append((method, target.removeprefix("/ar")))
        for word, (status, answer) in self.answers.items():
            if word in target:
                if len(answer) > body_bytes_max:
                    raise HttpReplyError("more than it may")
                return HttpResponse(status, {}, answer, url)
        sent = {"host": parts.netloc, **(headers or {})}
        return await call_app(
            self.app, target, method=method, root="/ar", body=body, headers=sent.items(),
            client="127.0.0.1",
        )  # fmt: skip


class Place:
    """A resolver, and clients of it by name."""

    def __init__(self, desk, clock):
        self.desk, self.clock = desk, clock
        self.http = AppClient(desk.app)

    def client(self, name):
        return SignedClient(self.http, identity(name), "http://ar.example/ar")


@asynccontextmanager
async def opened():
    clock = SimClock()
    settings = AddressServerSettings(private_addresses=True, requests_per_minute=0)
    info = NodeInfo("visor", (), "1.2.3", "skycore-test")
    async with open_desk(settings, DictRegistry(clock), identity("server"), info, clock) as desk:
        yield Place(desk, clock)


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=7_200)


@pytest.fixture
async def place():
    async with opened() as there:
        yield there

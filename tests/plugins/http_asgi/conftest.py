"""A server with routes that do what tests ask for, on real sockets or on none."""

from __future__ import annotations

import contextlib
import json
from contextlib import asynccontextmanager

import anyio
import pytest
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route, Router

from http_asgi.client import open_http_client
from http_asgi.service import open_http_server
from http_asgi.settings import HttpClientSettings, HttpServerSettings
from skycore import Live
from skycore.contracts.http import RouteOptions
from skycore.contracts.runtime import NodeInfo
from skycore.errors import StoreUnreachableError
from skycore.runtime.network import RealNetwork
from skycore.testing.fakes import AlwaysReady, FakeClock, InlineWorkers, identity

INFO = NodeInfo("visor", ("http_server",), "1.2.3", "skycore-test")


class Routes:
    """Routes of a test: any application under any prefix."""

    def __init__(self, app, prefix="", name="mine", options=None):
        operation = {"summary": "Echo.", "responses": {"200": {"description": "ok"}}}
        self.paths = {"/echo": {"get": operation}}
        self.app, self.prefix, self.name = app, prefix, name
        self.options = options or RouteOptions()


class Lab:
    """An application with a route for each thing that tests want to see."""

    def __init__(self):
        self.entered = anyio.Event()
        self.release = anyio.Event()
        self.calls = 0
        self.app = Router(
            [
                Route("/echo", self.echo, methods=["GET", "POST", "PUT", "DELETE"]),
                Route("/status/{code:int}", self.status),
                Route("/big", self.big),
                Route("/slow", self.slow),
                Route("/wait", self.wait, methods=["GET", "POST"]),
                Route("/cut", self.cut, methods=["GET", "POST"]),
                Route("/to/{path:path}", self.to, methods=["GET", "POST"]),
                Route("/bug", self.bug),
                Route("/store", self.store),
                Route("/tagged", self.tagged),
            ],
            redirect_slashes=False,
        )

    async def echo(self, request):
        body = await request.body()
        told = {
            "method": request.method,
            "body": body.decode(),
            "headers": dict(request.headers),
            "path": request.scope["path"],
            "root": request.scope["root_path"],
            "client": request.client.host,
            "query": dict(request.query_params),
        }
        return JSONResponse(told)

    async def status(self, request):
        return Response(b"", request.path_params["code"])

    async def big(self, request):
        self.calls += 1
        return Response(b"x" * 1024 * 1024, media_type="text/plain")

    async def slow(self, request):
        await anyio.sleep_forever()

    async def wait(self, request):
        self.entered.set()
        await self.release.wait()
        return Response(b"waited")

    async def cut(self, request):
        return Response(b"abc", headers={"content-length": "10"})

    async def to(self, request):
        return RedirectResponse("/" + request.path_params["path"], 302)

    async def bug(self, request):
        raise ValueError("secret detail")

    async def store(self, request):
        raise StoreUnreachableError("no Redis", hint="start it")

    async def tagged(self, request):
        return Response(b"version 7", headers={"etag": '"v7"'})


class Raw:
    """A client that speaks HTTP by hand."""

    def __init__(self, stream):
        self.stream = stream
        self.held = b""

    async def ask(self, text):
        """Send bytes as they are; return status, headers and body of one answer."""
        await self.stream.send(text.encode() if isinstance(text, str) else text)
        return await self.answer()

    async def answer(self, *, is_head=False):
        while b"\r\n\r\n" not in self.held:
            self.held += await self.stream.receive()
        head, _, self.held = self.held.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        size = 0 if is_head else int(headers.get("content-length", 0))
        while len(self.held) < size:
            self.held += await self.stream.receive()
        body, self.held = self.held[:size], self.held[size:]
        return int(first.split()[1]), headers, body

    async def ended(self):
        """Read to the end; return what came."""
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                self.held += await self.stream.receive()
        return self.held


class Kit:
    """Everything a test of the server needs."""

    Routes = Routes

    def __init__(self):
        self.clock = FakeClock()
        self.network = RealNetwork()
        self.lab = Lab()
        self.sources = []

    @asynccontextmanager
    async def server(self, *routes, lifecycle=None, **settings):
        routes = routes or (Routes(self.lab.app),)
        settings = HttpServerSettings(**{"listen": "127.0.0.1:0", **settings})
        async with open_http_server(
            settings,
            tuple(routes),
            Live(self.sources),
            INFO,
            identity("alice"),
            self.clock,
            lifecycle or AlwaysReady(),
            self.network,
            InlineWorkers(),
        ) as server:
            yield server

    @asynccontextmanager
    async def client(self, **settings):
        settings = HttpClientSettings(**settings)
        async with open_http_client(settings, self.network, self.clock) as client:
            yield client

    @asynccontextmanager
    async def raw(self, server):
        host, port = server.url.removeprefix("http://").rsplit(":", 1)
        stream = await self.network.connect_tcp(host, int(port))
        try:
            yield Raw(stream)
        finally:
            await stream.aclose()


@pytest.fixture
def kit():
    return Kit()


def parse(body):
    """Return a refusal's three words."""
    told = json.loads(body)["error"]
    return told["code"], told["message"], told["hint"]


@pytest.fixture
def refusal():
    return parse

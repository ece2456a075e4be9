"""Whatever bytes come, a connection ends by itself, in bounded time, and answers only in HTTP."""

from __future__ import annotations

import contextlib

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import JSONResponse

from http_asgi.connection import Bodies, Connection
from http_asgi.settings import HttpServerSettings
from http_asgi.site import Site
from skycore.contracts.http import RouteOptions
from skycore.testing import sim_backend
from skycore.testing.fakes import FakeClock, InlineWorkers
from skycore.testing.network import SimNetwork


class Echo:
    name, prefix, paths, options = "echo", "", {}, RouteOptions(etags=True, cors=True)

    @staticmethod
    async def app(scope, receive, send):
        body = (await receive())["body"]
        told = {"path": scope["path"], "bytes": len(body)}
        await JSONResponse(told)(scope, receive, send)


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=100_000)


async def talk(data, cuts=()):
    """Send bytes to a connection, in pieces; return what it said, and the room left for bodies."""
    bounds, clock = HttpServerSettings(bodies_bytes_max=10_000, body_bytes_max=500), FakeClock()
    bodies = Bodies(bounds.bodies_bytes_max)
    site = Site([Echo()], bounds, clock, InlineWorkers())
    host = SimNetwork(1).host("192.0.2.1")
    async with host.listen_tcp("", 80) as listener, anyio.create_task_group() as tasks:
        ours = await host.connect_tcp("localhost", 80)
        theirs = await listener.accept()
        connection = Connection(theirs, ("192.0.2.1", 5), bounds, clock, bodies, site.serve)
        tasks.start_soon(connection.run)
        tasks.start_soon(_speak, ours, data, cuts)
        said = b""
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                said += await ours.receive()
        await ours.aclose()
    return said, bodies.left


async def _speak(stream, data, cuts):
    at = 0
    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        for cut in [*sorted({c for c in cuts if 0 < c < len(data)}), len(data)]:
            if data[at:cut]:
                await stream.send(data[at:cut])
            await anyio.sleep(0.001)
            at = cut
        await stream.send_eof()


REQUESTS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HEAD /b HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 999\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\nOrigin: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\n\r\n",
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(REQUESTS, min_size=1, max_size=5), st.lists(st.integers(0, 400), max_size=6))
async def test_requests_cut_anywhere_are_answered_alike(requests, cuts):
    text = b"".join(requests)
    whole, cut = await talk(text), await talk(text, cuts)
    assert whole[0].count(b"HTTP/1.1 ") == cut[0].count(b"HTTP/1.1 ")
    assert whole[1] == cut[1] == 10_000


CHANGES = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4)


@settings(max_examples=150, deadline=None)
@given(st.lists(REQUESTS | st.binary(max_size=60), max_size=6), CHANGES)
async def test_anything_at_all_ends_in_order(parts, changes):
    text = bytearray(b"".join(parts))
    for place, value in changes:
        if text:
            text[place % len(text)] = value
    said, left = await talk(bytes(text))
    assert not said or said.startswith(b"HTTP/1.1 ")
    assert left == 10_000, "room for bodies is given back"
    assert b"500 " not in said.split(b"\r\n", 1)[0]


@pytest.mark.parametrize("count", [1, 30])
async def test_requests_are_answered_one_by_one_in_order(count):
    texts = [b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(count)]
    said, _ = await talk(b"".join(texts))
    assert [b'"path":"/%d"' % n in said for n in range(count)] == [True] * count
    places = [said.index(b'"/%d"' % n) for n in range(count)]
    assert places == sorted(places)


class Large(Echo):
    options = RouteOptions(etags=False, compress=False)
    body = bytes(range(256)) * 4_096

    @staticmethod
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": Large.body})


class Line:
    """A stream that keeps what is sent, piece by piece."""

    def __init__(self, data):
        self.data, self.sent = [data], []

    async def receive(self, size):
        if not self.data:
            raise anyio.EndOfStream
        return self.data.pop()

    async def send(self, piece):
        self.sent.append(piece)

    async def send_eof(self):
        pass

    async def aclose(self):
        pass


async def test_l25_a_long_answer_goes_in_small_pieces_and_is_not_copied(monkeypatch):
    """Many may ask for the same list and read none of it."""
    bounds, clock, written = HttpServerSettings(), FakeClock(), []
    site = Site([Large()], bounds, clock, InlineWorkers())
    line = Line(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    connection = Connection(line, ("192.0.2.1", 5), bounds, clock, Bodies(9), site.serve)
    write = connection.write

    async def noted(parts):
        written.extend(parts)
        await write(parts)

    monkeypatch.setattr(connection, "write", noted)
    await connection.run()
    assert any(part is Large.body for part in written)
    assert max(map(len, line.sent)) <= 64 * 1024
    assert b"".join(line.sent).endswith(b"\r\n\r\n" + Large.body)

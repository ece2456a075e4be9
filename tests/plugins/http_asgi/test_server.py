"""The server on real sockets: what it adds to routes, what it refuses, how it ends."""

from __future__ import annotations

import gzip
import json
import logging

import anyio
import pytest
from starlette.responses import Response, StreamingResponse

from skycore.contracts.http import RouteOptions
from skycore.contracts.status import Health, Status
from skycore.errors import HttpListenError, PluginConflictError
from skycore.testing.contracts.http import HttpRoutesContract

GET = "GET {} HTTP/1.1\r\nHost: x\r\n\r\n"


def get(path, **headers):
    """Write a request by hand."""
    lines = [f"GET {path} HTTP/1.1", "Host: x"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines) + "\r\n\r\n"


def post(path, body, **headers):
    """Write a request with a body."""
    return get(path, content_length=len(body), **headers).replace("GET", "POST", 1) + body


class TestRoutesOfTests(HttpRoutesContract):
    @pytest.fixture
    async def routes(self, kit):
        return kit.Routes(kit.lab.app, prefix="/lab")


async def test_an_application_sees_prefix_path_query_and_client(kit):
    mine = kit.Routes(kit.lab.app, prefix="/mine")
    async with kit.server(mine) as server, kit.client() as client:
        response = await client.post(f"{server.url}/mine/echo?a=1&a=2&b=%20", b"body")
        told = response.json()
        assert told["path"] == "/mine/echo"
        assert told["root"] == "/mine"
        assert told["query"] == {"a": "2", "b": " "}
        assert told["client"] == "127.0.0.1"
        assert told["body"] == "body"
        assert (await client.get(f"{server.url}/echo")).status == 404
        assert (await client.get(f"{server.url}/mineral/echo")).status == 404
        assert server.counters == {"200 mine": 1, "404 nothing": 2}


async def test_two_with_one_prefix_stop_the_start_by_name(kit):
    two = (kit.Routes(kit.lab.app, "/a", "tpd"), kit.Routes(kit.lab.app, "/a", "sd"))
    with pytest.raises(PluginConflictError, match="'tpd' and 'sd'"):
        async with kit.server(*two):
            raise AssertionError
    with pytest.raises(PluginConflictError, match="'health' and 'mine'"):
        async with kit.server(kit.Routes(kit.lab.app, "/health")):
            raise AssertionError


async def test_a_taken_port_is_told_with_a_hint(kit):
    async with kit.server() as server:
        port = server.url.rpartition(":")[2]
        with pytest.raises(HttpListenError, match=rf"http_server: .*{port}") as said:
            async with kit.server(listen=f"127.0.0.1:{port}"):
                raise AssertionError
        assert "http_server.listen" in said.value.hint


async def test_without_an_address_there_is_no_port(kit):
    async with kit.server(listen="") as server:
        assert server.url == ""
        assert server.counters == {}


async def test_many_requests_on_one_connection_also_sent_ahead(kit):
    async with kit.server() as server, kit.raw(server) as raw:
        await raw.stream.send((get("/status/201") + get("/echo") + get("/status/404")).encode())
        found = [await raw.answer() for _ in range(3)]
        assert [status for status, _, _ in found] == [201, 200, 404]
        assert json.loads(found[1][2])["path"] == "/echo"
        assert (await raw.ask(get("/status/204")))[0] == 204


async def test_head_has_the_headers_of_get_and_no_body(kit):
    async with kit.server() as server, kit.raw(server) as raw:
        await raw.stream.send(b"HEAD /big HTTP/1.1\r\nHost: x\r\n\r\n" + get("/echo").encode())
        status, headers, _ = await raw.answer(is_head=True)
        assert (status, headers["content-length"]) == (200, str(1024 * 1024))
        assert (await raw.answer())[0] == 200


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET /a HTTP/1.1\r\nHost: x\r\nX: " + "y" * 40_000, 431),
        ("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        ("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        ("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ],
)
async def test_what_is_not_http_is_told_and_ends_the_connection(kit, refusal, text, status):
    async with kit.server() as server, kit.raw(server) as raw:
        found, headers, body = await raw.ask(text)
        assert found == status
        assert headers["connection"] == "close"
        assert refusal(body)[0] == status
        assert await raw.ended() == b""


async def test_what_is_refused_whole_ends_nothing(kit):
    async with kit.server() as server, kit.raw(server) as raw:
        long = "GET /a HTTP/1.1\r\nHost: x\r\nX: " + "y" * 17_000 + "\r\n\r\n"
        for text, status in ((get("/%ff"), 400), (long, 431), (get("/echo"), 200)):
            assert (await raw.ask(text))[0] == status
        assert server.counters == {"200 mine": 1, "head_too_large": 1, "malformed": 1}


async def test_an_application_that_breaks_http_is_a_bug_of_ours(kit, refusal):
    async def app(scope, receive, send):
        headers = [(b"x", b"a\r\nset-cookie: b")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x"})

    async def silent(scope, receive, send):
        return

    routes = (kit.Routes(app, "/a", "a"), kit.Routes(silent, "/b", "b"))
    async with kit.server(*routes) as server, kit.raw(server) as raw:
        for path in ("/a", "/b"):
            status, _, body = await raw.ask(get(path))
            assert (status, refusal(body)[0]) == (500, 500)
        assert server.counters["bug"] == 2


async def test_a_body_that_is_too_large_is_refused_before_and_while_it_comes(kit, refusal):
    narrow = kit.Routes(kit.lab.app, "/small", "small", RouteOptions(body_bytes_max=5))
    async with kit.server(narrow, kit.Routes(kit.lab.app), body_bytes_max=10) as server:
        async with kit.raw(server) as raw:
            head = post("/echo", "x" * 11, expect="100-continue").removesuffix("x" * 11)
            status, headers, body = await raw.ask(head)
            assert (status, headers["connection"]) == (413, "close")
            code, message, hint = refusal(body)
            assert (code, message) == (413, "a body has 10 bytes at most")
            assert hint
        async with kit.raw(server) as raw:
            head = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            assert (await raw.ask(head + "8\r\n12345678\r\n8\r\n12345678\r\n0\r\n\r\n"))[0] == 413
        async with kit.raw(server) as raw:
            assert (await raw.ask(post("/small/echo", "x" * 6)))[0] == 413
        async with kit.raw(server) as raw:
            assert (await raw.ask(post("/small/echo", "x" * 5)))[0] == 200
            assert (await raw.ask(post("/echo", "x" * 10)))[0] == 200
        async with kit.raw(server) as raw:  # a number that no computer counts to
            many = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999999999999\r\n\r\n"
            assert (await raw.ask(many))[0] == 413
        assert server.counters["body_too_large"] == 4


async def test_all_bodies_together_are_bounded_and_room_comes_back(kit, refusal):
    async with kit.server(bodies_bytes_max=10) as server:
        async with kit.raw(server) as one, kit.raw(server) as other:
            await one.stream.send(post("/wait", "12345678").encode())
            await kit.lab.entered.wait()
            status, _, body = await other.ask(post("/echo", "12345678"))
            assert (status, refusal(body)[0]) == (503, 503)
            kit.lab.release.set()
            assert (await one.answer())[0] == 200
        async with kit.raw(server) as raw:
            for _ in range(3):
                assert (await raw.ask(post("/echo", "12345678")))[0] == 200


async def test_whoever_waits_for_100_is_told_to_go_on(kit):
    async with kit.server() as server, kit.raw(server) as raw:
        head = post("/echo", "", expect="100-continue").replace("-length: 0", "-length: 3")
        await raw.stream.send(head.encode())
        assert (await raw.answer())[0] == 100
        status, _, body = await raw.ask("abc")
        assert (status, json.loads(body)["body"]) == (200, "abc")


async def test_too_many_requests_of_one_client(kit, refusal):
    options = RouteOptions(requests_per_minute=30, burst=2, unlimited=("/status",))
    limited = kit.Routes(kit.lab.app, "/few", "few", options)
    async with kit.server(limited, kit.Routes(kit.lab.app)) as server, kit.raw(server) as raw:
        assert [(await raw.ask(get("/few/echo")))[0] for _ in range(3)] == [200, 200, 429]
        status, headers, body = await raw.ask(get("/few/echo"))
        assert status == 429
        assert int(headers["retry-after"]) in (2, 3)
        assert refusal(body)[1] == "Rate limit exceeded: maximum 30 requests per minute"
        assert (await raw.ask(get("/few/status/201")))[0] == 201
        assert (await raw.ask(get("/echo")))[0] == 200
        kit.clock.advance(2)
        assert (await raw.ask(get("/few/echo")))[0] == 200
        assert server.counters["rate"] == 2


async def test_a_trusted_proxy_speaks_for_its_clients(kit):
    settings = {"requests_per_minute": 1, "burst": 1, "trusted_proxies": ("127.0.0.0/8",)}
    async with kit.server(**settings) as server, kit.raw(server) as raw:
        first = get("/echo", x_forwarded_for="198.51.100.1")
        other = get("/echo", x_forwarded_for="6.6.6.6, 198.51.100.2")
        found = [await raw.ask(text) for text in (first, first, other)]
        assert [status for status, _, _ in found] == [200, 429, 200]
        assert json.loads(found[2][2])["client"] == "198.51.100.2"


async def test_routes_tell_refusals_in_their_own_shape(kit):
    options = RouteOptions(
        body_bytes_max=0,
        cors=True,
        problem=lambda p: json.dumps({"code": p.status, "error": p.message}).encode(),
    )
    mine = kit.Routes(kit.lab.app, options=options)
    async with kit.server(mine) as server, kit.raw(server) as raw:
        _, headers, body = await raw.ask(post("/echo", "x"))
        assert json.loads(body) == {"code": 413, "error": "a body has 0 bytes at most"}
        assert headers["access-control-allow-origin"] == "*"


async def test_errors_of_a_handler_become_answers_and_tell_no_secrets(kit, refusal, caplog):
    async with kit.server() as server, kit.raw(server) as raw:
        status, _, body = await raw.ask(get("/bug"))
        assert (status, refusal(body)[0]) == (500, 500)
        assert b"secret" not in body
        assert "secret detail" in caplog.text
        status, _, body = await raw.ask(get("/store"))
        assert refusal(body) == (503, "no Redis", "start it")
        assert (await raw.ask(get("/echo")))[0] == 200


async def test_an_answer_that_is_cut_short_ends_its_connection(kit):
    async with kit.server() as server, kit.raw(server) as raw:
        await raw.stream.send(get("/cut").encode())
        assert b"Server" not in await raw.ended()
    async with kit.server() as server, kit.raw(server) as raw:
        assert (await raw.ask(get("/echo")))[0] == 200


async def test_etags_are_given_kept_and_answered_with_304(kit):
    tagged = kit.Routes(kit.lab.app, options=RouteOptions(etags=True))
    async with kit.server(tagged) as server, kit.raw(server) as raw:
        status, headers, body = await raw.ask(get("/big"))
        assert (status, len(body)) == (200, 1024 * 1024)
        tag = headers["etag"]
        status, headers, body = await raw.ask(get("/big", if_none_match=tag))
        assert (status, headers["etag"], body) == (304, tag, b"")
        assert "content-type" not in headers
        packed = get("/big", if_none_match=tag, accept_encoding="gzip")
        assert (await raw.ask(packed))[0] == 304
        _, headers, _ = await raw.ask(get("/tagged"))
        assert headers["etag"] == '"v7"'
        assert (await raw.ask(get("/tagged", if_none_match='"v7"')))[0] == 304
        assert (await raw.ask(get("/tagged", if_none_match='"v6"')))[0] == 200
        assert "etag" not in (await raw.ask(get("/status/404")))[1]
        kept = post("/echo", "x", if_none_match="*")
        assert (await raw.ask(kept))[0] == 200


async def test_answers_are_packed_for_who_takes_it(kit):
    async with kit.server() as server, kit.raw(server) as raw:
        _, headers, body = await raw.ask(get("/big", accept_encoding="gzip, br"))
        assert headers["content-encoding"] == "gzip"
        assert headers["vary"] == "accept-encoding"
        assert gzip.decompress(body) == b"x" * 1024 * 1024
        _, headers, body = await raw.ask(get("/big"))
        assert "content-encoding" not in headers
        assert len(body) == 1024 * 1024
        _, headers, _ = await raw.ask(get("/tagged", accept_encoding="gzip"))
        assert "content-encoding" not in headers, "small ones gain nothing"
    plain = kit.Routes(kit.lab.app, options=RouteOptions(compress=False))
    async with kit.server(plain) as server, kit.raw(server) as raw:
        _, headers, _ = await raw.ask(get("/big", accept_encoding="gzip"))
        assert "content-encoding" not in headers


async def test_an_answer_in_pieces_passes_as_it_is(kit):
    async def app(scope, receive, send):
        async def pieces():
            for n in range(3):
                yield b"piece %d " % n

        await StreamingResponse(pieces())(scope, receive, send)

    async with kit.server(kit.Routes(app)) as server, kit.client() as client:
        response = await client.get(server.url + "/")
        assert response.body == b"piece 0 piece 1 piece 2 "
        assert response.headers["transfer-encoding"] == "chunked"


async def test_only_routes_that_want_it_may_be_read_by_web_pages(kit):
    free = kit.Routes(kit.lab.app, "/free", "free", RouteOptions(cors=True))
    async with kit.server(free, kit.Routes(kit.lab.app)) as server, kit.raw(server) as raw:
        _, headers, _ = await raw.ask(get("/free/echo", origin="http://page"))
        assert headers["access-control-allow-origin"] == "*"
        ask = get("/free/echo", origin="http://page", access_control_request_method="POST")
        status, headers, _ = await raw.ask(ask.replace("GET", "OPTIONS", 1))
        assert status == 200
        assert "post" in headers["access-control-allow-methods"]
        _, headers, _ = await raw.ask(get("/echo", origin="http://page"))
        assert "access-control-allow-origin" not in headers


class Source:
    def __init__(self, name, health, summary):
        self.name, self._status = name, Status(health, summary)

    async def status(self):
        return self._status


class Starting:
    ready = False

    async def wait_ready(self):
        return


async def test_health_is_that_of_the_worst_part(kit):
    kit.sources += [Source("dht", Health.OK, "fine"), Source("store", Health.DEGRADED, "slow")]
    async with kit.server() as server, kit.client() as client:
        told = (await client.get(server.url + "/health")).expect(200).json()
        assert told["health"] == "degraded"
        assert told["reasons"] == ["store: slow"]
        assert told["parts"]["dht"] == {"health": "ok", "summary": "fine"}
        assert told["build_info"] == {"version": "1.2.3"}
        assert told["started_at"].endswith("Z")
        kit.sources.append(Source("redis", Health.DOWN, "away"))
        assert (await client.get(server.url + "/health")).status == 200, "for a second"
        kit.clock.advance(1)
        response = await client.get(server.url + "/health")
        assert response.status == 503
        assert response.headers["cache-control"] == "no-store"
        assert (await client.post(server.url + "/health")).status == 405
        assert (await client.get(server.url + "/health/x")).status == 404
    async with kit.server(lifecycle=Starting()) as server, kit.client() as client:
        kit.sources.clear()
        assert (await client.get(server.url + "/health")).status == 503


async def test_the_openapi_document_lists_what_routes_declare(kit):
    mine = kit.Routes(kit.lab.app, "/mine")
    async with kit.server(mine) as server, kit.client() as client:
        response = (await client.get(server.url + "/openapi.json")).expect(200)
        told = response.json()
        assert told["openapi"] == "3.1.0"
        assert set(told["paths"]) == {"/health", "/openapi.json", "/mine/echo"}
        again = {"if-none-match": response.headers["etag"]}
        assert (await client.get(server.url + "/openapi.json", headers=again)).status == 304


async def test_whoever_comes_before_the_node_is_up_waits(kit):
    class Later:
        ready = False

        def __init__(self):
            self.up = anyio.Event()

        async def wait_ready(self):
            await self.up.wait()

    later = Later()
    async with kit.server(lifecycle=later) as server, kit.raw(server) as raw:
        await raw.stream.send(get("/status/201").encode())
        await anyio.wait_all_tasks_blocked()
        assert server.counters == {}
        later.up.set()
        assert (await raw.answer())[0] == 201


async def test_a_request_under_way_is_finished_when_the_node_stops(kit):
    answers = []

    async def ask(raw):
        answers.append(await raw.ask(get("/wait")))

    async with anyio.create_task_group() as tasks:
        async with kit.server() as server:
            one = await tasks.start(_connected, kit, server)
            idle = await tasks.start(_connected, kit, server)
            tasks.start_soon(ask, one)
            await kit.lab.entered.wait()
            tasks.start_soon(_release_when, idle, kit.lab.release)
        status, headers, body = answers[0] if answers else await one.answer()
        assert (status, body) == (200, b"waited")
        assert headers["connection"] == "close"
        tasks.cancel_scope.cancel()


async def _connected(kit, server, *, task_status):
    async with kit.raw(server) as raw:
        assert (await raw.ask(get("/status/204")))[0] == 204
        task_status.started(raw)
        await anyio.sleep_forever()


async def _release_when(idle, release):
    """Let the request go on only once the server has closed the idle connection: it is stopping."""
    await idle.ended()
    release.set()


async def test_one_line_for_each_request_and_none_of_its_secrets(kit, caplog):
    caplog.set_level(logging.DEBUG, "http_asgi")
    async with kit.server() as server, kit.raw(server) as raw:
        await raw.ask(get("/echo?token=secret"))
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("request ")]
    assert len(lines) == 1
    for part in ("client=127.0.0.1", "method=GET", "path='/echo'", "routes=mine", "status=200"):
        assert part in lines[0]
    assert "secret" not in lines[0]


async def test_an_application_learns_that_its_client_went_away(kit):
    gone = anyio.Event()

    async def app(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            kit.lab.entered.set()
        gone.set()
        await Response(b"too late")(scope, receive, send)

    async with kit.server(kit.Routes(app)) as server:
        async with kit.raw(server) as raw:
            await raw.stream.send(get("/").encode())
            await kit.lab.entered.wait()
        await gone.wait()


async def test_connections_of_one_address_are_bounded(kit):
    async with (
        kit.server(client_connections_max=2) as server,
        kit.raw(server) as one,
        kit.raw(server) as two,
        kit.raw(server) as three,
    ):
        assert (await one.ask(get("/status/204")))[0] == 204
        assert (await two.ask(get("/status/204")))[0] == 204
        assert await three.ended() == b""
        assert server.counters["connections"] == 1
        assert (await one.ask(get("/status/204")))[0] == 204


async def test_whoever_idles_makes_room_and_whoever_works_does_not(kit):
    """Else connections that ask nothing would keep everybody else out."""
    async with (
        kit.server(connections_max=2) as server,
        kit.raw(server) as busy,
        kit.raw(server) as idle,
    ):
        await busy.stream.send(get("/wait").encode())
        await kit.lab.entered.wait()
        assert (await idle.ask(get("/status/204")))[0] == 204
        kit.lab.entered = anyio.Event()
        async with kit.raw(server) as fresh:
            await fresh.stream.send(get("/wait").encode())
            assert await idle.ended() == b""
            assert server.counters["idle"] == 1
            await kit.lab.entered.wait()
            async with kit.raw(server) as more:
                assert await more.ended() == b"", "both work: there is no place"
            kit.lab.release.set()
            assert (await busy.answer())[0] == (await fresh.answer())[0] == 200

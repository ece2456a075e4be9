"""What every set of HTTP routes must be. Inherit `HttpRoutesContract` and give it `routes`.

```
class TestMine(HttpRoutesContract):
    @pytest.fixture
    async def routes(self):
        async with open_mine(MySettings()) as routes:
            yield routes
```

`HttpClientContract` is for clients; `call_app` asks an application without a server.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

import anyio
import msgspec
import pytest

from skycore.contracts.http import (
    AsgiApp,
    HttpClient,
    HttpProblem,
    HttpResponse,
    HttpRoutes,
    Message,
    RouteOptions,
)
from skycore.errors import (
    HttpError,
    HttpReplyError,
    HttpStatusError,
    HttpTimeoutError,
    HttpUnreachableError,
)

__all__ = ["HttpClientContract", "HttpRoutesContract", "call_app"]

METHODS = frozenset({"get", "put", "post", "delete", "head", "options", "patch"})
ANSWER_S = 5.0


async def call_app(
    app: AsgiApp,
    path: str,
    *,
    method: str = "GET",
    root: str = "",
    body: bytes = b"",
    headers: Iterable[tuple[str, str]] = (),
    client: str = "127.0.0.1",
) -> HttpResponse:
    """Ask an ASGI application as the server does: `path` is whole, `root` the prefix in it."""
    told: list[Message] = []
    given = False

    async def receive() -> Message:
        nonlocal given
        if given:
            await anyio.sleep_forever()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        told.append(message)

    bare, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": bare,
        "raw_path": bare.encode(),
        "query_string": query.encode(),
        "root_path": root,
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        "client": (client, 40_000),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    start = next(m for m in told if m["type"] == "http.response.start")
    answered = {k.decode().lower(): v.decode() for k, v in start.get("headers", ())}
    content = b"".join(m.get("body", b"") for m in told if m["type"] == "http.response.body")
    return HttpResponse(start["status"], answered, content, path)


class HttpRoutesContract:
    """The suite. What the routes answer is their plugin's own test."""

    @pytest.fixture
    async def routes(self) -> HttpRoutes:
        """Return the routes under test."""
        raise NotImplementedError("give this suite a `routes` fixture")

    async def test_the_name_is_one_word(self, routes: HttpRoutes) -> None:
        """For logs, counters and messages."""
        assert re.fullmatch("[a-z][a-z0-9_]{0,31}", routes.name)

    async def test_the_prefix_is_one(self, routes: HttpRoutes) -> None:
        """Words between slashes, none at the end; nothing for the root."""
        assert re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", routes.prefix)

    async def test_the_application_is_asgi_3(self, routes: HttpRoutes) -> None:
        """Three parameters, and a coroutine comes of it."""
        call = routes.app if inspect.isroutine(routes.app) else type(routes.app).__call__
        positional = [p for p in inspect.signature(call).parameters if p != "self"]
        assert len(positional) == 3

    async def test_it_declares_what_it_serves(self, routes: HttpRoutes) -> None:
        """Paths below the prefix, with methods, a summary and answers each."""
        assert routes.paths, "nothing is declared"
        for path, item in routes.paths.items():
            assert path == "" or path.startswith("/"), path
            assert set(item) <= METHODS | {"parameters", "summary", "description"}, path
            for method, operation in item.items():
                if method in METHODS:
                    assert operation["summary"].strip(), (path, method)
                    assert operation["responses"], (path, method)
        assert msgspec.json.decode(msgspec.json.encode(routes.paths)) == _plain(routes.paths)

    async def test_parameters_of_a_path_are_described(self, routes: HttpRoutes) -> None:
        """OpenAPI wants each `{name}` declared, or generated clients cannot fill it in."""
        for path, item in routes.paths.items():
            for method, operation in item.items():
                if method not in METHODS:
                    continue
                known = [*item.get("parameters", ()), *operation.get("parameters", ())]
                declared = {p["name"] for p in known if p["in"] == "path"}
                assert declared == set(re.findall(r"{(\w+)}", path)), (path, method)

    async def test_its_options_make_sense(self, routes: HttpRoutes) -> None:
        """Bounds are positive, and a refusal of the server is JSON."""
        options = routes.options
        assert isinstance(options, RouteOptions)
        bounds = (options.body_bytes_max, options.time_max_s, options.requests_per_minute)
        assert all(bound is None or bound >= 0 for bound in bounds)
        assert all(path.startswith("/") for path in options.unlimited)
        assert msgspec.json.decode(options.problem(HttpProblem(413, "too large", "send less")))

    async def test_an_unknown_path_is_a_plain_no(self, routes: HttpRoutes) -> None:
        """A 4xx, at once, and no traceback."""
        with anyio.fail_after(ANSWER_S):
            path = routes.prefix + "/no-such-path-here"
            response = await call_app(routes.app, path, root=routes.prefix)
        assert 400 <= response.status < 500


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value, str_keys=True) if isinstance(value, Mapping) else value


class HttpClientContract:
    """The suite of clients, against a real server: give `client` and `url`, `dead_url`.

    `url` serves: /echo (answers with what was sent: `{"method", "body", "headers"}`), /status/N,
    /big (a mebibyte of "x"), /slow (never answers), /cut (breaks off), /to/PATH (302 to /PATH).
    """

    @pytest.fixture
    async def client(self) -> HttpClient:
        """Return the client under test."""
        raise NotImplementedError("give this suite a `client` fixture")

    @pytest.fixture
    async def url(self) -> str:
        """Return where the server of the suite is."""
        raise NotImplementedError("give this suite a `url` fixture")

    @pytest.fixture
    async def dead_url(self) -> str:
        """Return where nobody listens."""
        raise NotImplementedError("give this suite a `dead_url` fixture")

    async def test_what_is_sent_arrives(self, client: HttpClient, url: str) -> None:
        """Method, body and headers; a body is JSON unless said otherwise."""
        response = await client.post(f"{url}/echo", b'{"a": 1}', headers={"X-Mine": "yes"})
        told = response.expect(200).json()
        assert told["method"] == "POST"
        assert told["body"] == '{"a": 1}'
        assert told["headers"]["x-mine"] == "yes"
        assert told["headers"]["content-type"] == "application/json"
        for method in ("PUT", "DELETE"):
            told = (await client.request(method, f"{url}/echo", body=b"x")).json()
            assert (told["method"], told["body"]) == (method, "x")
        assert (await client.delete(f"{url}/echo")).json()["method"] == "DELETE"

    async def test_any_status_is_an_answer(self, client: HttpClient, url: str) -> None:
        """Whoever wants a 2xx says so."""
        response = await client.get(f"{url}/status/404")
        assert response.status == 404
        with pytest.raises(HttpStatusError) as said:
            response.expect()
        assert said.value.code == 404
        assert response.expect(404) is response

    async def test_an_answer_is_bounded(self, client: HttpClient, url: str) -> None:
        """As it is unpacked."""
        assert len((await client.get(f"{url}/big")).body) == 1024 * 1024
        with pytest.raises(HttpReplyError, match="more than 1000 bytes"):
            await client.get(f"{url}/big", body_bytes_max=1000)

    async def test_waiting_is_bounded(self, client: HttpClient, url: str) -> None:
        """By a name and a hint."""
        with pytest.raises(HttpTimeoutError) as said:
            await client.get(f"{url}/slow", timeout_s=0.05)
        assert said.value.hint

    async def test_nobody_there_and_broken_off(
        self, client: HttpClient, url: str, dead_url: str
    ) -> None:
        """Two different things to know."""
        with pytest.raises(HttpUnreachableError) as said:
            await client.get(dead_url)
        assert said.value.hint
        with pytest.raises(HttpReplyError):
            await client.get(f"{url}/cut")
        with pytest.raises(HttpReplyError):
            await client.post(f"{url}/cut", b"x")

    async def test_a_redirect_is_followed_for_reading_alone(
        self, client: HttpClient, url: str
    ) -> None:
        """What is handed in goes where its sender meant, or not at all."""
        assert (await client.get(f"{url}/to/status/204")).status == 204
        assert (await client.post(f"{url}/to/status/204", b"x")).status == 302
        with pytest.raises(HttpReplyError, match="on and on"):
            await client.get(f"{url}/to/to/to/to/to/status/204")

    async def test_what_is_no_address_is_refused(self, client: HttpClient) -> None:
        """Before anything is sent."""
        for bad in ("ftp://x/", "nothing", "http://", "http://user:pw@127.0.0.1/"):
            with pytest.raises(HttpError):
                await client.get(bad)

"""HTTP: what plugins serve under a prefix of the node's one server, and the one pooled client.

Why an ASGI application and a prefix: it is the smallest thing that every Python web framework
makes, so the kernel knows none of them. What a stranger can overdo (bodies, rate, time) is bounded
by the server, once, for all routes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import msgspec

from skycore.errors import HttpReplyError, HttpStatusError

__all__ = [
    "AsgiApp",
    "HttpClient",
    "HttpProblem",
    "HttpResponse",
    "HttpRoutes",
    "HttpServer",
    "Message",
    "Receive",
    "RouteOptions",
    "Scope",
    "Send",
    "plain_problem",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI 3 application: https://asgi.readthedocs.io/en/latest/specs/www.html"""


@dataclass(frozen=True)
class HttpProblem:
    """Why the server itself refuses a request, before or instead of a plugin's own answer."""

    status: int
    message: str
    hint: str = ""


def plain_problem(problem: HttpProblem) -> bytes:
    """Return a problem as the server tells it: `{"error": {"code", "message", "hint"}}`."""
    told = {"code": problem.status, "message": problem.message, "hint": problem.hint}
    return msgspec.json.encode({"error": told})


@dataclass(frozen=True)
class RouteOptions:
    """How the server treats a set of routes. None means: as the server's settings say."""

    cors: bool = False
    """Let web pages of any origin read the answers."""
    etags: bool = False
    """Give answers to GET an ETag, unless they have one, and answer 304 to who holds them."""
    compress: bool = True
    """Send answers in gzip to who takes it."""
    body_bytes_max: int | None = None
    time_max_s: float | None = None
    """Until the answer begins."""
    requests_per_minute: float | None = None
    """Of one client, over these routes; 0 for no limit."""
    burst: int | None = None
    """How many may come at once before the rate counts."""
    unlimited: tuple[str, ...] = ()
    """Paths below the prefix that no rate limits, as they begin: ("/health",)."""
    problem: Callable[[HttpProblem], bytes] = plain_problem
    """The body (JSON) of the server's own refusals, where clients expect another shape."""


class HttpRoutes(Protocol):
    """A plugin's part of the node's HTTP server."""

    name: str
    """One word, for logs, counters and messages."""
    prefix: str
    """Where: "/metrics"; also what lies below. "" is all that nobody else serves. Unique."""
    app: AsgiApp
    """Sees the whole path, and the prefix as `root_path`; gets no lifespan: factories have theirs.

    The body comes whole, in one message.
    """
    paths: Mapping[str, Mapping[str, Any]]
    """OpenAPI 3.1 path items by path below the prefix, for /openapi.json."""
    options: RouteOptions


class HttpServer(Protocol):
    """The node's HTTP server, as others see it. Up once every set of routes is."""

    @property
    def url(self) -> str:
        """Where it answers: "http://127.0.0.1:9080"; empty where it does not listen."""
        ...

    @property
    def counters(self) -> Mapping[str, int]:
        """What happened since the start: "STATUS ROUTES" by count, and refusals by name."""
        ...


@dataclass(frozen=True)
class HttpResponse:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name; of several the last."""
    body: bytes
    """Unpacked."""
    url: str
    """What answered, after redirects."""

    def expect(self, *statuses: int) -> Self:
        """Return itself. Raises `HttpStatusError` for another status (none given: any but 2xx)."""
        if self.status in statuses or (not statuses and 200 <= self.status < 300):
            return self
        said = self.body[:200].decode(errors="replace").strip()
        raise HttpStatusError(f"{self.url} answered {self.status}: {said!r}", code=self.status)

    def json(self, model: Any = Any) -> Any:
        """Return the body read as JSON of a type. Raises `HttpReplyError`."""
        try:
            return msgspec.json.decode(self.body, type=model)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as bad:
            raise HttpReplyError(f"{self.url} answered what is not expected: {bad}") from bad


class HttpClient(Protocol):
    """Asks HTTP servers, over a pool of connections that all parts of the node share.

    Every method raises `HttpUnreachableError`, `HttpTimeoutError` or `HttpReplyError` where there
    is no answer, and returns what a server says, whatever its status: `expect` refuses.
    """

    async def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        body_bytes_max: int | None = None,
    ) -> HttpResponse:
        """Send a request; a body is JSON unless the headers say otherwise.

        `timeout_s` bounds all of it, `body_bytes_max` the answer's body once it is unpacked; None:
        as the settings say. A redirect is followed for GET and HEAD alone.
        """
        ...

    async def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        body_bytes_max: int | None = None,
    ) -> HttpResponse:
        """Read."""
        ...

    async def post(
        self,
        url: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        body_bytes_max: int | None = None,
    ) -> HttpResponse:
        """Hand in. Never sent twice: the caller knows whether that may be."""
        ...

    async def delete(
        self,
        url: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        body_bytes_max: int | None = None,
    ) -> HttpResponse:
        """Take away."""
        ...

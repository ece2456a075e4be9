"""Answers: the little that discovery servers need of HTTP, as an ASGI application.

Why not a web framework's requests and responses: these routes are small and asked for thousands of
times a minute, their errors have upstream's shapes, and what a client may overdo is the HTTP
server's business already. A route is a pattern and an async function from `Asked` to `Reply`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl

import msgspec

from skycore.contracts.http import HttpProblem, Receive, Scope, Send
from skycore.errors import RequestRefusedError, StoreError, StoreFullError

__all__ = [
    "Asked",
    "Desk",
    "ErrorShape",
    "Handler",
    "Reply",
    "error_body",
    "holds",
    "json_reply",
    "problem_in",
    "read_body",
    "read_json",
    "send_reply",
    "takes_gzip",
]

T = TypeVar("T")
JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
QUERY_FIELDS_MAX: Final = 32
_encoder = msgspec.json.Encoder()


class ErrorShape(Enum):
    """How a service tells an error. A refused signature (401) is told as NESTED by all of them."""

    TEXT = "text"
    """`{"error":"text"}`: transport discovery, address resolver."""
    NESTED = "nested"
    """`{"error":{"message":"…","code":401}}`: signed requests, nonces."""
    MESSAGE = "message"
    """`{"message":"…","code":404}`: DMSG discovery."""
    CODE = "code"
    """`{"code":404,"error":"…"}`: service discovery."""


class Reply(NamedTuple):
    """An answer. Header names are lower-case bytes."""

    body: bytes = b""
    status: int = 200
    kind: str = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Asked:
    """A request, read whole: `scope`, `body`, and `path`, the pattern's named parts."""

    __slots__ = ("body", "path", "scope")

    def __init__(self, scope: Scope, body: bytes, path: Mapping[str, str]) -> None:
        self.scope = scope
        self.body = body
        self.path = path

    @property
    def query(self) -> Mapping[str, str]:
        """The query's fields, the last of each name. Raises `RequestRefusedError` for too many."""
        raw: bytes = self.scope.get("query_string", b"")
        try:
            pairs = parse_qsl(
                raw.decode("latin-1"), keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX
            )
        except ValueError:
            raise RequestRefusedError("the query has too many fields", code=400) from None
        return dict(pairs)

    def header(self, name: bytes) -> bytes:
        """Return a header's first value by lower-case name; empty where there is none."""
        return next((bytes(value) for key, value in self.scope["headers"] if key == name), b"")


Handler = Callable[[Asked], Awaitable[Reply]]


class Desk:
    """An ASGI application: finds whose route a request is, and tells errors in one shape.

    A route is (method, pattern, handler); `{name}` in a pattern stands for one part of a path
    ("/transports/id:{id}"). HEAD is answered as GET. A slash at the end makes no difference.
    """

    def __init__(self, shape: ErrorShape, routes: Iterable[tuple[str, str, Handler]]) -> None:
        self._shape = shape
        self._fixed: dict[str, dict[str, Handler]] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, Handler]]] = []
        by_pattern: dict[str, dict[str, Handler]] = {}
        for method, pattern, handler in routes:
            by_pattern.setdefault(pattern.rstrip("/"), {})[method] = handler
        for pattern, handlers in by_pattern.items():
            if "{" in pattern:
                self._patterns.append((_compiled(pattern), handlers))
            else:
                self._fixed[pattern] = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            handler, path = self._find(scope)
            reply = await handler(Asked(scope, await read_body(receive), path))
        except RequestRefusedError as refused:
            reply = _refusal(refused, self._shape)
        except StoreFullError as full:
            reply = Reply(error_body(self._shape, 507, f"there is no room: {full}"), 507)
        except StoreError as trouble:
            body = error_body(self._shape, 503, f"the store cannot be used now: {trouble}")
            reply = Reply(body, 503)
        await send_reply(send, reply)

    def _find(self, scope: Scope) -> tuple[Handler, Mapping[str, str]]:
        below = scope["path"][len(scope.get("root_path", "")) :].rstrip("/")
        handlers, path = self._fixed.get(below), {}
        if handlers is None:
            for pattern, those in self._patterns:
                match = pattern.fullmatch(below)
                if match:
                    handlers, path = those, match.groupdict()
                    break
            else:
                raise RequestRefusedError("not found", code=404)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        handler = handlers.get(method)
        if handler is None:
            raise RequestRefusedError(f"not {scope['method'][:16]} here", code=405)
        return handler, path


def json_reply(value: Any, status: int = 200) -> Reply:
    """Return a value as JSON."""
    return Reply(_encoder.encode(value), status)


def error_body(shape: ErrorShape, code: int, message: str) -> bytes:
    """Return an error as a service tells it."""
    told: Any
    if shape is ErrorShape.TEXT:
        told = {"error": message}
    elif shape is ErrorShape.NESTED:
        told = {"error": {"message": message, "code": code}}
    elif shape is ErrorShape.MESSAGE:
        told = {"message": message, "code": code}
    else:
        told = {"code": code, "error": message}
    return _encoder.encode(told)


def problem_in(
    shape: ErrorShape, told: Mapping[int, str] | None = None
) -> Callable[[HttpProblem], bytes]:
    """Return how the HTTP server tells its own refusals in a service's shape.

    For `RouteOptions.problem`; `told` replaces the messages of some statuses.
    """

    def problem(of: HttpProblem) -> bytes:
        return error_body(shape, of.status, (told or {}).get(of.status, of.message))

    return problem


def holds(asked: Asked, tag: bytes) -> bool:
    """Tell whether the client holds what a tag ('"abc"') names: the answer is 304 then."""
    held = asked.header(b"if-none-match")
    return held == b"*" or tag in (part.strip().removeprefix(b"W/") for part in held.split(b","))


def takes_gzip(asked: Asked) -> bool:
    """Tell whether the client takes gzip; what is named counts before `*` (RFC 9110, 12.5.3)."""
    weights: dict[bytes, bool] = {}
    for part in asked.header(b"accept-encoding").lower().split(b",")[:32]:
        coding, _, quality = part.replace(b" ", b"").replace(b"\t", b"").partition(b";q=")
        weights[coding] = quality == b"" or quality.strip(b"0.") != b""
    return weights.get(b"gzip", weights.get(b"*", False))


async def read_body(receive: Receive) -> bytes:
    """Return a request's body; the HTTP server bounds it, and gives it in one message.

    Raises `RequestRefusedError` where the client went away.
    """
    message = await receive()
    parts = [message.get("body", b"")]
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestRefusedError("the client went away", code=400)
        parts.append(message.get("body", b""))
    return b"".join(parts)


def read_json(decoder: msgspec.json.Decoder[T], body: bytes, *, code: int = 400) -> T:
    """Return a body read as JSON of a type. Raises `RequestRefusedError`, whatever it holds."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as bad:
        raise RequestRefusedError(f"malformed JSON: {bad}"[:200], code=code) from None


async def send_reply(send: Send, reply: Reply) -> None:
    """Send an answer whole."""
    headers: Sequence[tuple[bytes, bytes]] = reply.headers
    if reply.status not in (204, 304):
        headers = ((b"content-type", reply.kind.encode()), *headers)
    await send({"type": "http.response.start", "status": reply.status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": reply.body, "more_body": False})


def _refusal(refused: RequestRefusedError, shape: ErrorShape) -> Reply:
    if refused.code == 429:
        return Reply(str(refused).encode() + b"\n", 429, TEXT)
    told = ErrorShape.NESTED if refused.code == 401 else shape
    return Reply(error_body(told, refused.code, str(refused)), refused.code)


def _compiled(pattern: str) -> re.Pattern[str]:
    pieces = re.split(r"\{(\w+)\}", pattern)
    for i, piece in enumerate(pieces):
        pieces[i] = f"(?P<{piece}>[^/]+)" if i % 2 else re.escape(piece)
    return re.compile("".join(pieces))

"""What the server serves itself: /health, and /openapi.json."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import msgspec
from starlette.responses import Response

from skycore import Live
from skycore.contracts.http import (
    AsgiApp,
    HttpProblem,
    HttpRoutes,
    Receive,
    RouteOptions,
    Scope,
    Send,
    plain_problem,
)
from skycore.contracts.runtime import Clock, Identity, Lifecycle, NodeInfo
from skycore.contracts.status import Health, Status, StatusSource
from skycore.health import ask_all, worst

__all__ = ["document", "own_routes"]

FRESH_S = 1.0
"""An answer of /health serves everybody for so long: it asks every part."""
JSON = "application/json"
HEALTH: Mapping[str, Any] = {
    "get": {
        "summary": "How the node is, and each of its parts, in their own words.",
        "responses": {
            "200": {"description": "It works, if only in part: see `health`."},
            "503": {"description": "A part is down, or the node is still starting."},
        },
    }
}
OPENAPI: Mapping[str, Any] = {
    "get": {
        "summary": "This description.",
        "responses": {"200": {"description": "An OpenAPI 3.1 document."}},
    }
}


def document(routes: Iterable[HttpRoutes], info: NodeInfo) -> bytes:
    """Return the OpenAPI document of everything that is served."""
    paths = {
        routes_of.prefix + path: item
        for routes_of in sorted(routes, key=lambda r: r.prefix)
        for path, item in routes_of.paths.items()
    }
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": f"skynode, profile {info.profile}", "version": info.version},
            "paths": paths,
        }
    )


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what no routes serve."""
    problem = HttpProblem(404, "there is nothing here", "/openapi.json lists what there is")
    await Response(plain_problem(problem), 404, media_type=JSON)(scope, receive, send)


class _Page:
    """One path that the server itself serves."""

    def __init__(
        self, prefix: str, name: str, paths: Mapping[str, Mapping[str, Any]], app: AsgiApp
    ) -> None:
        self.prefix, self.name, self.paths, self.app = prefix, name, paths, app
        self.options = RouteOptions(cors=True, etags=True)


class _Health:
    """`contracts.http.HttpRoutes` of /health."""

    name = "health"
    prefix = "/health"
    paths: Mapping[str, Mapping[str, Any]] = MappingProxyType({"": HEALTH})
    options = RouteOptions(cors=True, requests_per_minute=0)

    def __init__(
        self,
        sources: Live[StatusSource],
        info: NodeInfo,
        identity: Identity,
        clock: Clock,
        lifecycle: Lifecycle,
        status_s_max: float,
    ) -> None:
        self._sources = sources
        self._info = info
        self._identity = identity
        self._clock = clock
        self._lifecycle = lifecycle
        self._status_s_max = status_s_max
        self._started_s, self._started = clock.wall_s(), clock.now()
        self._asked = float("-inf")
        self._told: tuple[int, bytes] = (503, b"{}")
        self.app: AsgiApp = _reads(self._answer)

    async def _answer(self) -> Response:
        now = self._clock.now()
        if now - self._asked >= FRESH_S:
            self._told = self._tell(await ask_all(self._sources, self._status_s_max))
            self._asked = now
        status, body = self._told
        return Response(body, status, media_type=JSON, headers={"cache-control": "no-store"})

    def _tell(self, told: Sequence[tuple[str, Status]]) -> tuple[int, bytes]:
        ready, health = self._lifecycle.ready, worst(told)
        started = datetime.fromtimestamp(self._started_s, UTC)
        body = {
            "service_name": "skynode",
            "health": health.value,
            "ready": ready,
            "reasons": [f"{n}: {s.summary}" for n, s in told if s.health is not Health.OK],
            "parts": {n: {"health": s.health.value, "summary": s.summary} for n, s in told},
            "public_key": self._identity.public.hex(),
            "network": self._info.network,
            "profile": self._info.profile,
            "build_info": {"version": self._info.version},
            "started_at": started.isoformat().replace("+00:00", "Z"),
            "uptime_s": round(self._clock.now() - self._started, 1),
        }
        is_up = ready and health is not Health.DOWN
        return 200 if is_up else 503, msgspec.json.encode(body)


def _reads(answer: Callable[[], Awaitable[Response]]) -> AsgiApp:
    """Return an application of one path that can only be read."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != scope["root_path"]:
            await _nothing(scope, receive, send)
        elif scope["method"] not in ("GET", "HEAD"):
            body = plain_problem(HttpProblem(405, "this can only be read"))
            refusal = Response(body, 405, {"allow": "GET, HEAD"}, media_type=JSON)
            await refusal(scope, receive, send)
        else:
            await (await answer())(scope, receive, send)

    return app


def own_routes(
    others: Sequence[HttpRoutes],
    sources: Live[StatusSource],
    info: NodeInfo,
    identity: Identity,
    clock: Clock,
    lifecycle: Lifecycle,
    status_s_max: float,
) -> Sequence[HttpRoutes]:
    """Return what the server serves besides the plugins' routes."""
    health = _Health(sources, info, identity, clock, lifecycle, status_s_max)
    told = b""

    async def openapi() -> Response:
        return Response(told, media_type=JSON)

    page = _Page("/openapi.json", "openapi", {"": OPENAPI}, _reads(openapi))
    own: list[HttpRoutes] = [health, page]
    told = document([*own, *others], info)
    if all(routes.prefix for routes in others):
        own.append(_Page("", "nothing", {}, _nothing))
    return own

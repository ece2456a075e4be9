"""All routes of a node behind one door: whose request it is, whether it may, and how it ended."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import anyio
import h11

from http_asgi.answer import Answer, GoneError, RefusedError
from http_asgi.connection import Connection, Request
from http_asgi.core.rates import Rates
from http_asgi.core.table import Proxies, Table
from http_asgi.polish import polished
from http_asgi.settings import HttpServerSettings
from skycore.contracts.http import (
    AsgiApp,
    HttpProblem,
    HttpRoutes,
    Message,
    RouteOptions,
)
from skycore.contracts.runtime import Clock, Workers
from skycore.errors import (
    AccessDeniedError,
    HttpTimeoutError,
    HttpUnreachableError,
    RemoteProtocolError,
    SkycoreError,
    StoreError,
    TooManyRequestsError,
)
from skycore.logs import LimitedLog
from skycore.model.addresses import host_group

__all__ = ["Site"]

log = logging.getLogger(__name__)

STATUS_OF: Final[Sequence[tuple[type[SkycoreError], int]]] = (
    (AccessDeniedError, 403),
    (TooManyRequestsError, 429),
    (HttpTimeoutError, 504),
    (HttpUnreachableError, 502),
    (StoreError, 503),
    (RemoteProtocolError, 400),
)
"""What an application's error means, where it is none of the application's own answers."""


@dataclass(frozen=True)
class _Mount:
    """A set of routes as the server serves it."""

    name: str
    prefix: str
    app: AsgiApp
    options: RouteOptions
    rates: Rates
    body_bytes_max: int
    time_max_s: float

    def is_unlimited(self, path: str) -> bool:
        below = path[len(self.prefix) :]
        return any(below.startswith(free) for free in self.options.unlimited)


class Site:
    """Serves requests of all connections. Refuses two sets of routes with one prefix, by name."""

    def __init__(
        self,
        routes: Sequence[HttpRoutes],
        settings: HttpServerSettings,
        clock: Clock,
        workers: Workers,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._proxies = Proxies(settings.trusted_proxies)
        self._table = Table((r.prefix, r.name, self._mount(r, workers)) for r in routes)
        self.requests: Counter[tuple[str, int]] = Counter()
        """By routes and status."""
        self.refused: Counter[str] = Counter()
        """What the server answered by itself, by reason."""
        self.server: tuple[str, int] = ("", 0)
        self._bugs = LimitedLog(log, clock.now)

    def _mount(self, routes: HttpRoutes, workers: Workers) -> _Mount:
        options, settings = routes.options, self._settings
        app = polished(routes.app, options, workers)
        if options.cors:
            app = _with_cors(app)
        rate, burst = options.requests_per_minute, options.burst
        rates = Rates(
            settings.requests_per_minute if rate is None else rate,
            settings.burst if burst is None else burst,
            settings.clients_remembered_max,
        )
        size, time_s = options.body_bytes_max, options.time_max_s
        return _Mount(
            routes.name,
            routes.prefix,
            app,
            options,
            rates,
            settings.body_bytes_max if size is None else size,
            settings.answer_s_max if time_s is None else time_s,
        )

    async def serve(self, connection: Connection, request: Request) -> None:
        """Answer one request."""
        began = self._clock.now()
        host, port = connection.host
        client = self._proxies.client(host, request.headers.get(b"x-forwarded-for", b""))
        mount, answer = self._table.find(request.path), connection.answer()
        try:
            if mount is None:
                raise RefusedError(HttpProblem(404, "there is nothing here", "see /openapi.json"))
            wait_s = 0.0
            if not mount.is_unlimited(request.path):
                wait_s = mount.rates.wait_s(host_group(client), began)
            if wait_s:
                await self._refuse(connection, mount, _too_many(mount, wait_s), answer, wait_s)
            else:
                request.body_bytes_max = mount.body_bytes_max
                await connection.read_body(request)
                await self._run(connection, request, mount, (client, port), answer)
        except RefusedError as refused:
            await self._refuse(connection, mount, refused.problem, answer)
        finally:
            name = mount.name if mount else "none"
            self.requests[name, answer.status] += 1
            log.debug(
                "request client=%s method=%s path=%r routes=%s status=%d bytes=%d ms=%.1f",
                client,
                request.method,
                request.path[:200],
                name,
                answer.status,
                answer.bytes,
                (self._clock.now() - began) * 1_000,
            )

    def note(self, status: int) -> None:
        """Count a refusal."""
        self.refused[REASONS.get(status, "other")] += 1

    async def _refuse(
        self,
        connection: Connection,
        mount: _Mount | None,
        problem: HttpProblem,
        answer: Answer,
        wait_s: float = 0.0,
    ) -> None:
        body = mount.options.problem(problem) if mount else b""
        cors = mount is not None and mount.options.cors
        answer.status = problem.status
        await connection.refuse(problem, body, wait_s, cors=cors)

    async def _run(
        self,
        connection: Connection,
        request: Request,
        mount: _Mount,
        client: tuple[str, int],
        answer: Answer,
    ) -> None:
        """Call the application within its time."""
        given = False

        async def receive() -> Message:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": request.body, "more_body": False}
            await connection.gone()
            return {"type": "http.disconnect"}

        scope = request.scope(client, self.server, mount.prefix)
        with anyio.move_on_after(mount.time_max_s) as limit:
            answer.began = lambda: setattr(limit, "deadline", float("inf"))
            try:
                await mount.app(scope, receive, answer.send)
            except (GoneError, h11.RemoteProtocolError):
                raise
            except SkycoreError as error:
                self._failed(answer, error)
            except Exception as bug:  # one handler's bug must not end the others' server
                self._bugs.warning("bug routes=%s path=%r: %r", mount.name, request.path[:200], bug)
                log.debug("bug routes=%s", mount.name, exc_info=True)
                self._failed(answer, SkycoreError("this server made a mistake"))
        if limit.cancelled_caught:
            limit_s = f"{mount.time_max_s:g} s"
            raise RefusedError(
                HttpProblem(504, f"there is no answer within {limit_s}", "try again")
            )
        if not answer.is_over:
            self._bugs.warning("no answer routes=%s path=%r", mount.name, request.path[:200])
            self._failed(answer, SkycoreError("this server made a mistake"))

    def _failed(self, answer: Answer, error: SkycoreError) -> None:
        if answer.is_over:  # a framework answered, and told us why
            return
        if answer.status:
            raise GoneError(str(error))
        status = next((code for kind, code in STATUS_OF if isinstance(error, kind)), 500)
        raise RefusedError(HttpProblem(status, str(error), error.hint))


REASONS: Final = {
    400: "malformed",
    403: "denied",
    404: "not_found",
    408: "slow_request",
    413: "body_too_large",
    431: "head_too_large",
    429: "rate",
    500: "bug",
    502: "unreachable",
    503: "busy",
    504: "slow_answer",
}


def _too_many(mount: _Mount, wait_s: float) -> HttpProblem:
    rate = mount.options.requests_per_minute
    bound = "" if rate is None else f": maximum {rate:g} requests per minute"
    return HttpProblem(429, f"Rate limit exceeded{bound}", f"wait {wait_s:.0f} s")


def _with_cors(app: AsgiApp) -> AsgiApp:
    from starlette.middleware.cors import CORSMiddleware

    return CORSMiddleware(
        app, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"], expose_headers=["ETag"]
    )

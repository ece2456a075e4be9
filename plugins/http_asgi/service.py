"""The factories of the server: bind, take connections, stop within a bound."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
from anyio.abc import ByteStream, SocketAttribute, TaskGroup

from http_asgi.connection import Bodies, Connection
from http_asgi.own import own_routes
from http_asgi.settings import HttpServerSettings
from http_asgi.site import Site
from skycore import Live
from skycore.contracts.http import HttpRoutes, HttpServer
from skycore.contracts.runtime import (
    Clock,
    Identity,
    Lifecycle,
    Network,
    NodeInfo,
    TcpListener,
    Workers,
)
from skycore.contracts.status import Health, Status, StatusSource
from skycore.errors import HttpListenError, TransportError
from skycore.model.addresses import host_group, join_host_port, split_host_port

__all__ = ["open_http_server", "open_http_status"]

log = logging.getLogger(__name__)
EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


class _Server:
    """`contracts.http.HttpServer`."""

    def __init__(self, site: Site, settings: HttpServerSettings, clock: Clock) -> None:
        self._site = site
        self._settings = settings
        self._clock = clock
        self._bodies = Bodies(settings.bodies_bytes_max)
        self._clients: Counter[str] = Counter()
        self._live: dict[Connection, anyio.CancelScope] = {}
        self._over = anyio.Event()
        self.url = ""

    @property
    def counters(self) -> Mapping[str, int]:
        """By "STATUS ROUTES", and refusals by name."""
        requests = {f"{code} {name}": n for (name, code), n in sorted(self._site.requests.items())}
        return {**requests, **dict(sorted(self._site.refused.items()))}

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._live)

    def listening(self, listener: TcpListener) -> None:
        """Note where the server answers."""
        self._site.server = (listener.host, listener.port)
        host = EVERYWHERE.get(listener.host, listener.host)
        self.url = f"http://{join_host_port(host, listener.port)}"

    async def accept(self, listener: TcpListener, lifecycle: Lifecycle, tasks: TaskGroup) -> None:
        """Take connections, once every part is up."""
        await lifecycle.wait_ready()
        while True:
            stream = await listener.accept()
            remote = stream.extra(SocketAttribute.remote_address, ("", 0))
            host = (str(remote[0]), int(remote[1]))
            client = host_group(host[0])
            if self._clients[client] >= self._settings.client_connections_max or self._is_full():
                self._site.refused["connections"] += 1
                await stream.aclose()
            else:
                tasks.start_soon(self._serve, stream, host, client)

    def _is_full(self) -> bool:
        """Tell whether there is no place; the connection that has been idle longest makes one."""
        if len(self._live) < self._settings.connections_max:
            return False
        idle = next((connection for connection in self._live if connection.is_idle), None)
        if idle is not None:
            self._site.refused["idle"] += 1
            idle.stop()
        return idle is None

    async def _serve(self, stream: ByteStream, host: tuple[str, int], client: str) -> None:
        """Serve a connection; only `stop` ends it early, and not at once."""
        site = self._site
        connection = Connection(
            stream, host, self._settings, self._clock, self._bodies, site.serve, site.note
        )
        self._clients[client] += 1
        with anyio.CancelScope(shield=True) as scope:
            self._live[connection] = scope
            try:
                await connection.run()
            finally:
                del self._live[connection]
                self._clients[client] -= 1
                if not self._clients[client]:
                    del self._clients[client]
                if not self._live:
                    self._over.set()

    async def stop(self) -> None:
        """End idle connections at once, and busy ones within `stop_s_max`."""
        self._over = anyio.Event()
        for connection in list(self._live):
            connection.stop()
        with anyio.move_on_after(self._settings.stop_s_max):
            while self._live:
                await self._over.wait()
        if self._live:
            log.info("requests cut short count=%d", len(self._live))
        for scope in list(self._live.values()):
            scope.cancel()


@asynccontextmanager
async def open_http_server(
    settings: HttpServerSettings,
    routes: tuple[HttpRoutes, ...],
    sources: Live[StatusSource],
    info: NodeInfo,
    identity: Identity,
    clock: Clock,
    lifecycle: Lifecycle,
    network: Network,
    workers: Workers,
) -> AsyncIterator[HttpServer]:
    """Serve all routes. Raises `PluginConflictError` for a prefix that two of them claim.

    Raises `HttpListenError` where it cannot listen. Strangers wait until every part is up.
    """
    own = own_routes(routes, sources, info, identity, clock, lifecycle, settings.status_s_max)
    site = Site([*own, *routes], settings, clock, workers)
    server = _Server(site, settings, clock)
    if not settings.listen:
        yield server
        return
    async with AsyncExitStack() as door:
        listener = await _listen(door, network, settings.listen)
        server.listening(listener)
        log.info("serving http url=%s routes=%s", server.url, ",".join(r.name for r in routes))
        async with anyio.create_task_group() as tasks:
            accepting = anyio.CancelScope()
            tasks.start_soon(_accept, accepting, server, listener, lifecycle, tasks)
            try:
                yield server
            finally:
                accepting.cancel()
                with anyio.CancelScope(shield=True):
                    await door.aclose()
                    await server.stop()


async def _accept(
    scope: anyio.CancelScope,
    server: _Server,
    listener: TcpListener,
    lifecycle: Lifecycle,
    tasks: TaskGroup,
) -> None:
    with scope, contextlib.suppress(anyio.ClosedResourceError):  # the end of the listener
        await server.accept(listener, lifecycle, tasks)


async def _listen(door: AsyncExitStack, network: Network, listen: str) -> TcpListener:
    host, port = split_host_port(listen)
    try:
        return await door.enter_async_context(network.listen_tcp(host, port))
    except TransportError as bad:
        raise HttpListenError(
            f"http_server: {bad}",
            hint="another program may have the port: --set http_server.listen=host:port, "
            "port 0 for any free one",
        ) from bad


class _Status:
    name = "http"

    def __init__(self, server: HttpServer) -> None:
        self._server = server

    async def status(self) -> Status:
        """Return where the server answers, and how requests ended."""
        url = self._server.url
        fields = {"url": url, "counts": dict(self._server.counters)}
        return Status(Health.OK, f"serves at {url or 'no port'}", fields)


@asynccontextmanager
async def open_http_status(server: HttpServer) -> AsyncIterator[StatusSource]:
    """Say how the server is."""
    yield _Status(server)

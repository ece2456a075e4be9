"""The factory: counts events, asks the parts when somebody scrapes, and tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network
from typing import Any

import anyio
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from starlette.responses import PlainTextResponse, Response

from metrics_prometheus.families import Facts, families
from metrics_prometheus.settings import MetricsSettings
from skycore import Live
from skycore.contracts.dht import PutEnded, RecordServed
from skycore.contracts.http import (
    AsgiApp,
    HttpRoutes,
    HttpServer,
    Receive,
    RouteOptions,
    Scope,
    Send,
)
from skycore.contracts.runtime import Clock, NodeInfo
from skycore.contracts.status import StatusSource
from skycore.contracts.store import Items
from skycore.contracts.transport import Transports
from skycore.errors import AccessDeniedError, StoreError
from skycore.events import Events, Subscription
from skycore.health import ask_all

__all__ = ["open_metrics"]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
AGES_S = (0, 1, 5, 15, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600, 86_400)
REPLICAS = (0, 1, 2, 3, 5, 8, 12, 16, 19, 20, 21)
PATHS: Mapping[str, Mapping[str, Any]] = {
    "": {
        "get": {
            "summary": "What the node's parts count, as Prometheus reads it.",
            "responses": {
                "200": {"description": "The text format 0.0.4.", "content": {"text/plain": {}}},
                "403": {"description": "This address may not read them."},
            },
        }
    }
}


class Metrics:
    """`contracts.http.HttpRoutes` under /metrics."""

    name = "metrics"
    prefix = "/metrics"
    paths = PATHS
    options = RouteOptions()

    def __init__(
        self,
        settings: MetricsSettings,
        info: NodeInfo,
        clock: Clock,
        sources: Live[StatusSource],
        servers: Live[HttpServer],
        items: Items | None,
        transports: Transports | None,
    ) -> None:
        self._settings = settings
        self._info = info
        self._clock = clock
        self._sources = sources
        self._servers = servers
        self._items = items
        self._transports = transports
        self._allowed = [ip_network(text) for text in settings.allow]
        self._facts = Facts(info)
        self._text, self._made = b"", float("-inf")
        self._turn = anyio.Lock()
        self._lost: list[Callable[[], int]] = []
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        self.ages = Histogram(
            "skycore_dht_served_age_seconds",
            "Age of the copies that reads were answered with; 0: fresh from the network.",
            buckets=AGES_S,
            registry=self.registry,
        )
        self.replicas = Histogram(
            "skycore_dht_put_replicas",
            "Nodes that hold what was put, this one included, when the put ended.",
            buckets=REPLICAS,
            registry=self.registry,
        )
        if settings.process:
            ProcessCollector(registry=self.registry)
        self.app: AsgiApp = self._answer

    def collect(self) -> Iterator[Metric]:
        """Yield families of the last look; prometheus_client's way to ask."""
        s = self._settings
        return families(
            self._facts, salts_max=s.salts_max, peers_max=s.peers_max, fields_max=s.fields_max
        )

    async def count_ages(self, served: Subscription[RecordServed]) -> None:
        """Count what reads were answered with."""
        self._lost.append(lambda: served.lost)
        async for event in served:
            self.ages.observe(event.age_s)

    async def count_replicas(self, ended: Subscription[PutEnded]) -> None:
        """Count how far puts reached."""
        self._lost.append(lambda: ended.lost)
        async for event in ended:
            self.replicas.observe(event.replicas)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].removeprefix(self.prefix) not in ("", "/"):
            response: Response = PlainTextResponse("there is nothing here\n", 404)
        elif scope["method"] not in ("GET", "HEAD"):
            response = PlainTextResponse("only for reading\n", 405, {"allow": "GET, HEAD"})
        else:
            self._check(scope["client"][0])
            response = Response(await self._tell(), headers={"content-type": TEXT})
        await response(scope, receive, send)

    async def _tell(self) -> bytes:
        async with self._turn:
            if self._clock.now() - self._made >= self._settings.fresh_s:
                self._facts = await self._look()
                self._text = generate_latest(self.registry)
                self._made = self._clock.now()
            return self._text

    def _check(self, host: str) -> None:
        try:
            address = ip_address(host)
        except ValueError:
            address = None
        if address is None or not any(address in network for network in self._allowed):
            raise AccessDeniedError(
                "this address may not read the metrics",
                hint="list its network under [metrics_prometheus] allow",
            )

    async def _look(self) -> Facts:
        told = await ask_all(self._sources, self._settings.part_s_max)
        usage = {}
        if self._items is not None:
            try:
                usage = dict(await self._items.usage())
            except StoreError:  # the store's own status says so
                usage = {}
        links = self._transports
        return Facts(
            self._info,
            told,
            usage,
            dict(self._items.counters) if self._items else {},
            Counter(t.type for t in links.all()) if links else {},
            dict(links.counters) if links else {},
            {n: c for server in self._servers for n, c in server.counters.items()},
            sum(lost() for lost in self._lost),
        )


@asynccontextmanager
async def open_metrics(
    settings: MetricsSettings,
    info: NodeInfo,
    clock: Clock,
    sources: Live[StatusSource],
    servers: Live[HttpServer],
    items: Items | None,
    transports: Transports | None,
    events: Events,
) -> AsyncIterator[HttpRoutes]:
    """Serve /metrics; count events from now on."""
    metrics = Metrics(settings, info, clock, sources, servers, items, transports)
    with events.subscribe(RecordServed) as served, events.subscribe(PutEnded) as ended:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(metrics.count_ages, served)
            tasks.start_soon(metrics.count_replicas, ended)
            yield metrics
            tasks.cancel_scope.cancel()

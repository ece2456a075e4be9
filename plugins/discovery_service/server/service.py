"""The factories of the server role: its table, its routes, and what ties it to the DHT."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from discovery_service.server.desk import ServiceDesk
from discovery_service.server.paths import PATHS
from discovery_service.server.settings import ServiceServerSettings
from discovery_service.server.shelf import Shelf
from discovery_service.server.told import entries_in, entries_of
from skycore import Live, Provider
from skycore.contracts.dht import Mirror
from skycore.contracts.discovery import EntrySource
from skycore.contracts.http import AsgiApp, HttpRoutes, RouteOptions
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Publisher
from skycore.contracts.registry import Registry
from skycore.contracts.runtime import Clock, Entropy, Files, Identity, NodeInfo
from skycore.contracts.status import Status, StatusSource
from skycore.contracts.store import Items
from skycore.discovery.answers import ErrorShape, problem_in
from skycore.discovery.callers import Callers
from skycore.discovery.directory import open_directory
from skycore.discovery.feeding import Feeding, Outlet, open_feeding
from skycore.discovery.serving import judged
from skycore.discovery.taking import Taking, open_taking

__all__ = [
    "PROVIDERS",
    "TABLE",
    "ServiceExchange",
    "open_desk",
    "open_exchange",
    "open_routes",
    "open_status",
]

TABLE: Final = "service-discovery"
SALT: Final = b"svc"
NAME: Final = "sd"
BODY_BYTES_MAX: Final = 1024 * 1024


class ServiceExchange:
    """What passes between the server's table and the DHT; None where a setting forbids it."""

    def __init__(self, feeding: Feeding | None, taking: Taking | None) -> None:
        self.feeding = feeding
        self.taking = taking


class _Routes:
    """`contracts.http.HttpRoutes`."""

    name = NAME
    paths = PATHS

    def __init__(self, desk: ServiceDesk) -> None:
        self.prefix = desk.settings.prefix
        self.app: AsgiApp = desk.app
        self.options = RouteOptions(
            cors=True,
            etags=True,
            body_bytes_max=BODY_BYTES_MAX,
            unlimited=("/health", "/security/nonces"),
            problem=problem_in(ErrorShape.CODE),
        )


@asynccontextmanager
async def open_desk(
    settings: ServiceServerSettings,
    registry: Registry,
    identity: Identity,
    info: NodeInfo,
    clock: Clock,
    entropy: Entropy,
) -> AsyncIterator[ServiceDesk]:
    """Hold the table in memory and answer from it."""
    callers = Callers(identity, settings)
    async with open_directory(registry, TABLE, clock, sweep_s=settings.sweep_s) as directory:
        shelf = Shelf(directory, entropy.random())
        yield ServiceDesk(settings, directory, shelf, callers, info, clock)


@asynccontextmanager
async def open_routes(desk: ServiceDesk) -> AsyncIterator[HttpRoutes]:
    """Serve."""
    yield _Routes(desk)


@asynccontextmanager
async def open_exchange(
    settings: ServiceServerSettings,
    desk: ServiceDesk,
    publisher: Publisher,
    items: Items,
    mirrors: Live[Mirror],
    namespaces: Namespaces,
    sources: Live[EntrySource],
    identity: Identity,
    clock: Clock,
    entropy: Entropy,
    files: Files,
) -> AsyncIterator[ServiceExchange]:
    """Keep table and DHT in step, off every request's path."""
    feeding, taking = None, None
    async with AsyncExitStack() as stack:
        if settings.feed:
            outlet = Outlet(publisher, items, mirrors, namespaces, identity, clock, entropy, files)
            feeding = await stack.enter_async_context(
                open_feeding(
                    desk.directory, SALT, entries_of, outlet, name=NAME, verify_s=settings.verify_s
                )
            )
        if settings.take:
            taking = await stack.enter_async_context(
                open_taking(desk.directory, SALT, sources, entries_in, clock, entropy, name=NAME)
            )
        yield ServiceExchange(feeding, taking)


class _Status:
    name = "service_discovery"

    def __init__(self, desk: ServiceDesk, exchange: ServiceExchange) -> None:
        self._desk = desk
        self._exchange = exchange

    async def status(self) -> Status:
        """Return what is listed, how requests ended, and whether the DHT says the same."""
        desk, directory = self._desk, self._desk.directory
        fields: dict[str, Any] = {
            "subjects": len(directory),
            "services": directory.entry_count,
            "by_type": desk.shelf.counts(),
            "requests": dict(sorted(desk.counters.items())),
            "table_age_s": round(directory.age_s, 1) if directory.is_loaded else None,
        }
        for part in (self._exchange.feeding, self._exchange.taking):
            fields |= part.status_fields() if part else {}
        told = f"{fields['services']} services of {len(directory)} keys"
        health, summary = judged(directory, told, fields.get("feed_trouble", ""))
        return Status(health, summary, fields)


@asynccontextmanager
async def open_status(desk: ServiceDesk, exchange: ServiceExchange) -> AsyncIterator[StatusSource]:
    """Say how the server is."""
    yield _Status(desk, exchange)


PROVIDERS: Final = (Provider(ServiceDesk, open_desk), Provider(ServiceExchange, open_exchange))

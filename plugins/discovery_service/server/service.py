"""The factories of the server role: its table, its routes, and what ties it to the DHT."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from discovery_service.server.desk import ServiceDesk
from discovery_service.server.paths import PATHS
from discovery_service.server.settings import ServiceServerSettings
from discovery_service.server.shelf import Shelf
from discovery_service.server.told import entries_in, entries_of
from skycore import Live, Provider
from skycore.contracts.dht import Mirror
from skycore.contracts.discovery import EntrySource
from skycore.contracts.http import HttpRoutes
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Publisher
from skycore.contracts.registry import Registry
from skycore.contracts.runtime import Clock, Entropy, Files, Identity, NodeInfo
from skycore.contracts.status import StatusSource
from skycore.contracts.store import Items
from skycore.discovery.directory import open_directory
from skycore.discovery.exchange import Exchange, ServerRoutes, ServerStatus, exchanging
from skycore.discovery.feeding import Outlet

__all__ = [
    "PROVIDERS",
    "ServiceExchange",
    "open_desk",
    "open_exchange",
    "open_routes",
    "open_status",
]


class ServiceExchange(Exchange):
    """Between this table and the DHT: what wiring knows it by."""


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
    async with open_directory(
        registry, ServiceDesk.table, clock, sweep_s=settings.sweep_s
    ) as directory:
        shelf = Shelf(directory, entropy.random())
        yield ServiceDesk(settings, directory, shelf, identity, info, clock)


@asynccontextmanager
async def open_routes(desk: ServiceDesk) -> AsyncIterator[HttpRoutes]:
    """Serve."""
    yield ServerRoutes(desk, PATHS, cors=True)


@asynccontextmanager
async def open_exchange(
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
    outlet = Outlet(publisher, items, mirrors, namespaces, identity, clock, entropy, files)
    async with exchanging(
        ServiceExchange, desk, outlet, sources, entries_of, entries_in
    ) as exchange:
        yield exchange


@asynccontextmanager
async def open_status(desk: ServiceDesk, exchange: ServiceExchange) -> AsyncIterator[StatusSource]:
    """Say how the server is."""
    yield ServerStatus(desk, exchange)


PROVIDERS: Final = (Provider(ServiceDesk, open_desk), Provider(ServiceExchange, open_exchange))

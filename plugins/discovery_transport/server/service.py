"""The factories of the server role: its table, its routes, and what ties it to the DHT."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from discovery_transport.server.desk import TransportDesk
from discovery_transport.server.fleet import Fleet
from discovery_transport.server.paths import PATHS
from discovery_transport.server.settings import TransportServerSettings
from discovery_transport.server.told import entries_in, entries_of
from skycore import Live
from skycore.contracts.dht import Mirror
from skycore.contracts.discovery import EntrySource
from skycore.contracts.http import HttpRoutes
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Publisher
from skycore.contracts.registry import Registry
from skycore.contracts.runtime import Clock, Entropy, Files, Identity, NodeInfo, Workers
from skycore.contracts.status import StatusSource
from skycore.contracts.store import Items
from skycore.discovery.directory import open_directory
from skycore.discovery.exchange import Exchange, ServerRoutes, ServerStatus, exchanging
from skycore.discovery.feeding import Outlet

__all__ = ["TransportExchange", "open_desk", "open_exchange", "open_routes", "open_status"]


class TransportExchange(Exchange):
    """Between this table and the DHT: what wiring knows it by."""


@asynccontextmanager
async def open_desk(
    settings: TransportServerSettings,
    registry: Registry,
    identity: Identity,
    info: NodeInfo,
    clock: Clock,
    workers: Workers,
) -> AsyncIterator[TransportDesk]:
    """Hold the table in memory and answer from it."""
    async with open_directory(
        registry, TransportDesk.table, clock, sweep_s=settings.sweep_s
    ) as directory:
        with directory.subscribe() as changes:
            fleet = Fleet(directory, changes, workers)
            yield TransportDesk(settings, directory, fleet, identity, info, clock)


@asynccontextmanager
async def open_routes(desk: TransportDesk) -> AsyncIterator[HttpRoutes]:
    """Serve."""
    yield ServerRoutes(desk, PATHS, body_bytes_max=desk.settings.body_bytes_max)


@asynccontextmanager
async def open_exchange(
    desk: TransportDesk,
    publisher: Publisher,
    items: Items,
    mirrors: Live[Mirror],
    namespaces: Namespaces,
    sources: Live[EntrySource],
    identity: Identity,
    clock: Clock,
    entropy: Entropy,
    files: Files,
) -> AsyncIterator[TransportExchange]:
    """Keep table and DHT in step, off every request's path."""
    outlet = Outlet(publisher, items, mirrors, namespaces, identity, clock, entropy, files)
    async with exchanging(
        TransportExchange, desk, outlet, sources, entries_of, entries_in
    ) as exchange:
        if exchange.taking:
            desk.record_seq = exchange.taking.seq_of
        yield exchange


@asynccontextmanager
async def open_status(
    desk: TransportDesk, exchange: TransportExchange
) -> AsyncIterator[StatusSource]:
    """Say how the server is."""
    yield ServerStatus(desk, exchange)

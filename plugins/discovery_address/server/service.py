"""The factories of the server role: its table, its routes, and what ties it to the DHT."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from discovery_address.server.desk import AddressDesk
from discovery_address.server.paths import PATHS
from discovery_address.server.settings import AddressServerSettings
from discovery_address.server.told import entries_in, entry_of
from discovery_address.server.udp import UdpSide, open_udp_side
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
    "AddressExchange",
    "open_desk",
    "open_exchange",
    "open_routes",
    "open_status",
]


class AddressExchange(Exchange):
    """Between this table and the DHT: what wiring knows it by."""


@asynccontextmanager
async def open_desk(
    settings: AddressServerSettings,
    registry: Registry,
    identity: Identity,
    info: NodeInfo,
    clock: Clock,
) -> AsyncIterator[AddressDesk]:
    """Hold the table in memory and answer from it."""
    async with open_directory(
        registry, AddressDesk.table, clock, sweep_s=settings.sweep_s
    ) as directory:
        yield AddressDesk(settings, directory, identity, info, clock)


@asynccontextmanager
async def open_routes(desk: AddressDesk) -> AsyncIterator[HttpRoutes]:
    """Serve."""
    yield ServerRoutes(desk, PATHS)


@asynccontextmanager
async def open_exchange(
    desk: AddressDesk,
    publisher: Publisher,
    items: Items,
    mirrors: Live[Mirror],
    namespaces: Namespaces,
    sources: Live[EntrySource],
    identity: Identity,
    clock: Clock,
    entropy: Entropy,
    files: Files,
) -> AsyncIterator[AddressExchange]:
    """Keep table and DHT in step, off every request's path."""
    outlet = Outlet(publisher, items, mirrors, namespaces, identity, clock, entropy, files)
    make = partial(entries_in, any_address=desk.settings.private_addresses)
    async with exchanging(AddressExchange, desk, outlet, sources, entry_of, make) as exchange:
        yield exchange


@asynccontextmanager
async def open_status(
    desk: AddressDesk, exchange: AddressExchange, udp: UdpSide
) -> AsyncIterator[StatusSource]:
    """Say how the server is."""
    yield ServerStatus(desk, exchange, udp.status_fields)


PROVIDERS: Final = (
    Provider(AddressDesk, open_desk),
    Provider(AddressExchange, open_exchange),
    Provider(UdpSide, open_udp_side),
)

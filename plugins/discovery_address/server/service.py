"""The factories of the server role: its table, its routes, and what ties it to the DHT."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

from discovery_address.server.desk import AddressDesk
from discovery_address.server.paths import PATHS
from discovery_address.server.settings import AddressServerSettings
from discovery_address.server.told import entries_in, entry_of
from discovery_address.server.udp import UdpSide, open_udp_side
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
    "AddressExchange",
    "open_desk",
    "open_exchange",
    "open_routes",
    "open_status",
]

TABLE: Final = "address-resolver"
SALT: Final = b"addr"
NAME: Final = "ar"
BODY_BYTES_MAX: Final = 1024 * 1024


class AddressExchange:
    """What passes between the server's table and the DHT; None where a setting forbids it."""

    def __init__(self, feeding: Feeding | None, taking: Taking | None) -> None:
        self.feeding = feeding
        self.taking = taking


class _Routes:
    """`contracts.http.HttpRoutes`."""

    name = NAME
    paths = PATHS

    def __init__(self, desk: AddressDesk) -> None:
        self.prefix = desk.settings.prefix
        self.app: AsgiApp = desk.app
        self.options = RouteOptions(
            etags=True,
            body_bytes_max=BODY_BYTES_MAX,
            unlimited=("/health", "/security/nonces"),
            problem=problem_in(ErrorShape.TEXT),
        )


@asynccontextmanager
async def open_desk(
    settings: AddressServerSettings,
    registry: Registry,
    identity: Identity,
    info: NodeInfo,
    clock: Clock,
) -> AsyncIterator[AddressDesk]:
    """Hold the table in memory and answer from it."""
    callers = Callers(identity, settings)
    async with open_directory(registry, TABLE, clock, sweep_s=settings.sweep_s) as directory:
        yield AddressDesk(settings, directory, callers, info, clock)


@asynccontextmanager
async def open_routes(desk: AddressDesk) -> AsyncIterator[HttpRoutes]:
    """Serve."""
    yield _Routes(desk)


@asynccontextmanager
async def open_exchange(
    settings: AddressServerSettings,
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
    feeding, taking = None, None
    async with AsyncExitStack() as stack:
        if settings.feed:
            outlet = Outlet(publisher, items, mirrors, namespaces, identity, clock, entropy, files)
            feeding = await stack.enter_async_context(
                open_feeding(
                    desk.directory, SALT, entry_of, outlet, name=NAME, verify_s=settings.verify_s
                )
            )
        if settings.take:
            make = partial(entries_in, any_address=settings.private_addresses)
            taking = await stack.enter_async_context(
                open_taking(desk.directory, SALT, sources, make, clock, entropy, name=NAME)
            )
        yield AddressExchange(feeding, taking)


class _Status:
    name = "address_resolver"

    def __init__(self, desk: AddressDesk, exchange: AddressExchange, udp: UdpSide) -> None:
        self._desk = desk
        self._exchange = exchange
        self._udp = udp

    async def status(self) -> Status:
        """Return what is bound, how requests ended, and whether the DHT says the same."""
        desk, directory = self._desk, self._desk.directory
        fields: dict[str, Any] = {
            "subjects": len(directory),
            "binds": directory.entry_count,
            "requests": dict(sorted(desk.counters.items())),
            "table_age_s": round(directory.age_s, 1) if directory.is_loaded else None,
        }
        fields |= self._udp.status_fields()
        for part in (self._exchange.feeding, self._exchange.taking):
            fields |= part.status_fields() if part else {}
        told = f"{fields['binds']} binds of {len(directory)} keys"
        health, summary = judged(directory, told, fields.get("feed_trouble", ""))
        return Status(health, summary, fields)


@asynccontextmanager
async def open_status(
    desk: AddressDesk, exchange: AddressExchange, udp: UdpSide
) -> AsyncIterator[StatusSource]:
    """Say how the server is."""
    yield _Status(desk, exchange, udp)


PROVIDERS: Final = (
    Provider(AddressDesk, open_desk),
    Provider(AddressExchange, open_exchange),
    Provider(UdpSide, open_udp_side),
)

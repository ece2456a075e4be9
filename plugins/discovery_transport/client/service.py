"""The factories of the client role."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import anyio

from discovery_transport.client.carriers import Carriers
from discovery_transport.client.core.entries import TP
from discovery_transport.client.index import TransportIndex
from discovery_transport.client.listing import ListingMethods
from discovery_transport.client.own import OwnTransports
from discovery_transport.client.publication import Publication
from discovery_transport.client.registrar import Registrar
from discovery_transport.client.settings import TransportDiscoverySettings
from discovery_transport.client.source import HttpTransports
from skycore.contracts.dht import Dht, Mirror
from skycore.contracts.discovery import EntrySource
from skycore.contracts.http import HttpClient
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Publisher
from skycore.contracts.rpc import RpcService
from skycore.contracts.runtime import Clock, Entropy, Identity, Lifecycle
from skycore.contracts.status import Health, Status, StatusSource
from skycore.contracts.store import Items
from skycore.contracts.transport import Transports
from skycore.discovery.signed import SignedClient
from skycore.errors import ConfigError
from skycore.hookspecs import Factory

__all__ = [
    "PROVIDED",
    "TransportService",
    "open_carriers",
    "open_listing",
    "open_service",
    "open_source",
    "open_status",
]


class TransportService:
    """The discovery service as this node asks it; `client` is None where none is set."""

    def __init__(self, client: SignedClient | None) -> None:
        self.client = client


@asynccontextmanager
async def open_service(
    settings: TransportDiscoverySettings, http: HttpClient | None, identity: Identity
) -> AsyncIterator[TransportService]:
    """Know whom to ask. Raises `ConfigError` for a url that is none, or that nobody could ask."""
    if not settings.url:
        yield TransportService(None)
        return
    if http is None:
        raise ConfigError(
            "discovery_transport.url is set, and the plugin http_client is not active",
            hint='[node] enable = ["http_client"]',
        )
    yield TransportService(SignedClient(http, identity, settings.url))


@asynccontextmanager
async def open_carriers(
    settings: TransportDiscoverySettings,
    service: TransportService,
    transports: Transports | None,
    publisher: Publisher | None,
    mirrors: tuple[Mirror, ...],
    namespaces: Namespaces,
    dht: Dht | None,
    identity: Identity,
    clock: Clock,
    entropy: Entropy,
    lifecycle: Lifecycle,
) -> AsyncIterator[Carriers]:
    """Make this node's own transports known for as long as it runs, and take that back at the end.

    Mirrors and DHT are needed for order alone: they are up when the record is taken back.
    """
    dice, namespace = entropy.random(), namespaces.find(TP)
    own = OwnTransports(transports, identity)
    registrar = publication = None
    if service.client is not None:
        registrar = Registrar(service.client, own, identity.public, settings.timeout_s)
    if mirrors and publisher is not None and namespace is not None:
        publication = Publication(publisher, namespace, dht, identity.public, dice)
    carriers = Carriers(settings, own, registrar, publication, clock, dice)

    async def run() -> None:
        await lifecycle.wait_ready()
        await carriers.run()

    async with AsyncExitStack() as stack:
        if transports is not None:
            stack.enter_context(transports.on_change(carriers.changed))
        async with anyio.create_task_group() as tasks:
            if transports is not None:
                tasks.start_soon(run)
            yield carriers
            await carriers.leave()
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def open_source(
    settings: TransportDiscoverySettings, service: TransportService, clock: Clock
) -> AsyncIterator[EntrySource]:
    """Look up what the service knows."""
    yield HttpTransports(service.client, clock, settings.list_timeout_s)


@asynccontextmanager
async def open_listing(
    settings: TransportDiscoverySettings,
    service: TransportService,
    items: Items | None,
    dht: Dht | None,
    namespaces: Namespaces,
    clock: Clock,
) -> AsyncIterator[RpcService]:
    """Offer `tp.all`, with an index beside the store where there is one."""
    http = HttpTransports(service.client, clock, settings.list_timeout_s)
    namespace = namespaces.find(TP)
    index = None
    if items is not None and namespace is not None:
        index = TransportIndex(items, namespace, clock)
    async with anyio.create_task_group() as tasks:
        if index is not None:
            tasks.start_soon(index.run)
        try:
            yield ListingMethods(http, index, dht, clock)
        finally:
            tasks.cancel_scope.cancel()


class _Status:
    name = "transport_registration"

    def __init__(self, carriers: Carriers, service: TransportService) -> None:
        self._carriers, self._service = carriers, service

    async def status(self) -> Status:
        """Return which side carries this node's transports, and why not the other."""
        carriers, client = self._carriers, self._service.client
        fields = dict(carriers.fields())
        if client is not None:
            fields |= {"url": client.url, "requests": dict(sorted(client.counters.items()))}
        trouble = carriers.trouble
        if trouble:
            return Status(Health.DEGRADED, trouble, fields)
        return Status(Health.OK, carriers.summary, fields)


@asynccontextmanager
async def open_status(carriers: Carriers, service: TransportService) -> AsyncIterator[StatusSource]:
    """Say who carries."""
    yield _Status(carriers, service)


PROVIDED: Final[Mapping[type, Factory[Any]]] = {
    TransportService: open_service,
    Carriers: open_carriers,
}
"""Contracts of this plugin alone, and who makes them."""

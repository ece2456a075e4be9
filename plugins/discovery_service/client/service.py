"""The factories of the client role."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio

from discovery_service.client.offers import Offers
from discovery_service.client.settings import ServiceSettings
from discovery_service.client.source import HttpServices
from skycore import Provider
from skycore.contracts.dht import Mirror
from skycore.contracts.discovery import EntrySource
from skycore.contracts.http import HttpClient
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Publisher
from skycore.contracts.runtime import Clock, Entropy, Identity, Lifecycle, NodeInfo
from skycore.contracts.services import OfferedServices
from skycore.contracts.status import Health, Status, StatusSource
from skycore.discovery.registering import Registration, leave_all
from skycore.discovery.signed import SignedClient
from skycore.errors import ConfigError

__all__ = [
    "PROVIDERS",
    "ServiceServer",
    "open_offers",
    "open_server",
    "open_source",
    "open_status",
]


class ServiceServer:
    """The server, asked and told over one signed client: nonces are used in order."""

    def __init__(self, client: SignedClient | None) -> None:
        self.client = client


@asynccontextmanager
async def open_server(
    settings: ServiceSettings, http: HttpClient | None, identity: Identity
) -> AsyncIterator[ServiceServer]:
    """Know the server of the settings. Raises `ConfigError` where it cannot be asked."""
    if not settings.url:
        yield ServiceServer(None)
        return
    if http is None:
        raise ConfigError(
            "discovery_service.url is set, and the plugin http_client is not active",
            hint='[node] enable = ["http_client"]',
        )
    yield ServiceServer(SignedClient(http, identity, settings.url))


@asynccontextmanager
async def open_offers(
    settings: ServiceSettings,
    server: ServiceServer,
    publisher: Publisher | None,
    mirrors: tuple[Mirror, ...],
    namespaces: Namespaces,
    identity: Identity,
    info: NodeInfo,
    entropy: Entropy,
    lifecycle: Lifecycle,
) -> AsyncIterator[OfferedServices]:
    """Tell server and DHT what this node offers, for as long as it runs, and take it back then.

    All mirrors are needed before, so that they are still there at the end.
    """
    offers = Offers(
        settings,
        identity.public,
        f"v{info.version}",
        server.client,
        publisher,
        mirrors,
        namespaces,
        entropy.random(),
    )

    async def loop(registration: Registration) -> None:
        await lifecycle.wait_ready()
        await registration.run()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(loop, offers.registering)
        tasks.start_soon(loop, offers.publishing)
        yield offers
        await leave_all(offers.registering, offers.publishing)
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def open_source(server: ServiceServer, clock: Clock) -> AsyncIterator[EntrySource]:
    """Ask the server for others."""
    yield HttpServices(server.client, clock)


class _Status:
    name = "services"

    def __init__(self, settings: ServiceSettings, offers: Offers, server: ServiceServer) -> None:
        self._settings = settings
        self._offers = offers
        self._server = server

    async def status(self) -> Status:
        """Return what is offered, and who was told."""
        offers, client = self._offers, self._server.client
        said, told = offers.publishing.state, offers.registering.state
        entries = offers.entries()
        fields: dict[str, Any] = {
            "url": self._settings.url,
            "offered": [f"{entry.type} {entry.address}" for entry in entries],
            "listed": offers.listed,
            "published": offers.published,
            "published_copies": offers.copies,
            "requests": dict(sorted(client.counters.items())) if client else {},
            "failures": told.failures + said.failures,
        }
        trouble = told.trouble or said.trouble
        if trouble:
            fields["trouble"] = trouble
            return Status(Health.DEGRADED, trouble, fields)
        return Status(Health.OK, f"{len(entries)} services offered", fields)


@asynccontextmanager
async def open_status(
    settings: ServiceSettings, offers: OfferedServices, server: ServiceServer
) -> AsyncIterator[StatusSource]:
    """Say what is offered."""
    assert isinstance(offers, Offers)
    yield _Status(settings, offers, server)


PROVIDERS: Final = (
    Provider(ServiceServer, open_server),
    Provider(OfferedServices, open_offers),
)

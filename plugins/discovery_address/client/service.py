"""The factories of the client role."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio

from discovery_address.client.own import Own
from discovery_address.client.settings import AddressSettings
from discovery_address.client.source import HttpAddresses
from discovery_address.client.udp import UdpOfResolver
from skycore import Live, Provider
from skycore.contracts.dht import Mirror
from skycore.contracts.discovery import EntrySource
from skycore.contracts.http import HttpClient
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Publisher
from skycore.contracts.runtime import Clock, Entropy, Identity, Lifecycle
from skycore.contracts.services import AddressResolver, OwnAddress
from skycore.contracts.status import Health, Status, StatusSource
from skycore.contracts.transport import Transports, TransportType
from skycore.discovery.binds import KINDS, addresses_of
from skycore.discovery.registering import Registration, leave_all
from skycore.discovery.signed import SignedClient
from skycore.errors import ConfigError

__all__ = [
    "PROVIDERS",
    "Resolver",
    "open_own",
    "open_resolver",
    "open_source",
    "open_status",
    "open_udp_of_resolver",
]


class Resolver:
    """The resolver, asked and told over one signed client: nonces are used in order."""

    def __init__(self, client: SignedClient | None) -> None:
        self.client = client


@asynccontextmanager
async def open_resolver(
    settings: AddressSettings, http: HttpClient | None, identity: Identity
) -> AsyncIterator[Resolver]:
    """Offer the resolver of the settings. Raises `ConfigError` where it cannot be asked."""
    if settings.url and http is None:
        raise ConfigError(
            "discovery_address.url is set, and this node has no HTTP client",
            hint='[node] enable = ["http_client"]',
        )
    yield Resolver(
        SignedClient(http, identity, settings.url) if settings.url and http is not None else None
    )


@asynccontextmanager
async def open_own(
    settings: AddressSettings,
    resolver: Resolver,
    transports: Transports | None,
    publisher: Publisher | None,
    mirrors: tuple[Mirror, ...],
    namespaces: Namespaces,
    identity: Identity,
    entropy: Entropy,
    lifecycle: Lifecycle,
) -> AsyncIterator[OwnAddress]:
    """Tell resolver and DHT where this node is, for as long as it runs, and take it back then.

    All mirrors are needed before, so that they are still there at the end.
    """
    own = Own(
        settings,
        identity.public,
        transports.listening if transports is not None else tuple,
        resolver.client,
        publisher,
        mirrors,
        namespaces,
        entropy.random(),
    )

    async def loop(registration: Registration) -> None:
        await lifecycle.wait_ready()
        own.look()
        await registration.run()

    async with anyio.create_task_group() as tasks:
        if transports is not None:
            tasks.start_soon(loop, own.binding)
            tasks.start_soon(loop, own.publishing)
        yield own
        await leave_all(own.binding, own.publishing)
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def open_source(
    resolver: Resolver, types: Live[TransportType], clock: Clock
) -> AsyncIterator[EntrySource]:
    """Ask the resolver for others."""
    yield HttpAddresses(resolver.client, types, clock)


@asynccontextmanager
async def open_udp_of_resolver(resolver: Resolver) -> AsyncIterator[AddressResolver]:
    """Let others ask where the resolver takes bindings by UDP."""
    yield UdpOfResolver(resolver.client)


class _Status:
    name = "address"

    def __init__(self, settings: AddressSettings, own: Own, resolver: Resolver) -> None:
        self._settings = settings
        self._own = own
        self._resolver = resolver

    async def status(self) -> Status:
        """Return where this node can be dialled, and who was told."""
        own, client = self._own, self._resolver.client
        told, said = own.binding.state, own.publishing.state
        entry = own.entry()
        addresses = addresses_of(entry) if entry else ()
        fields: dict[str, Any] = {
            "url": self._settings.url,
            "bound": bool(client and told.is_current and own.listens),
            "addresses": [f"{a.kind} {a.endpoint}" for a in addresses],
            "seen_at": {
                kind: bind.remote_addr or bind.remote_addr_v6
                for kind in KINDS
                if (bind := own.find(kind)) is not None
            },
            "published": own.published is not None,
            "published_copies": own.copies,
            "requests": dict(sorted(client.counters.items())) if client else {},
            "failures": told.failures + said.failures,
        }
        trouble = told.trouble or said.trouble
        if trouble:
            fields["trouble"] = trouble
            return Status(Health.DEGRADED, trouble, fields)
        if not addresses:
            hint = "set discovery_address.url or transport_stcpr.advertise"
            return Status(Health.OK, f"nobody is told where this node is ({hint})", fields)
        where = ", ".join(dict.fromkeys(a.endpoint for a in addresses[:2]))
        return Status(Health.OK, f"can be dialled at {where}", fields)


@asynccontextmanager
async def open_status(
    settings: AddressSettings, own: OwnAddress, resolver: Resolver
) -> AsyncIterator[StatusSource]:
    """Say whether this node can be found."""
    assert isinstance(own, Own)
    yield _Status(settings, own, resolver)


PROVIDERS: Final = (
    Provider(Resolver, open_resolver),
    Provider(OwnAddress, open_own),
    Provider(AddressResolver, open_udp_of_resolver),
)

"""The factories of the node's side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from discovery_dmsg.client.api import DmsgApi
from discovery_dmsg.client.listing import make_service
from discovery_dmsg.client.presence import Presence
from discovery_dmsg.client.settings import DmsgClientSettings
from discovery_dmsg.client.source import HttpDmsg
from skycore import Live, Provider
from skycore.contracts.discovery import EntrySource
from skycore.contracts.dmsg import DmsgPresence
from skycore.contracts.http import HttpClient
from skycore.contracts.rpc import RpcService
from skycore.contracts.runtime import Clock, Entropy, Identity, Lifecycle
from skycore.contracts.status import Health, Status, StatusSource
from skycore.errors import ConfigError

__all__ = [
    "SERVICES",
    "DmsgNode",
    "open_dmsg",
    "open_presence",
    "open_servers_rpc",
    "open_source",
    "open_status",
]


class DmsgNode:
    """What the parts of the node's side share: the way to the service, and the own entry."""

    def __init__(self, api: DmsgApi | None, presence: Presence) -> None:
        self.api, self.presence = api, presence


@asynccontextmanager
async def open_dmsg(
    settings: DmsgClientSettings,
    http: HttpClient | None,
    identity: Identity,
    clock: Clock,
    entropy: Entropy,
    lifecycle: Lifecycle,
) -> AsyncIterator[DmsgNode]:
    """Keep the own entry registered, from when the node is up until it stops.

    Raises `ConfigError` where a service is set and nothing can ask it.
    """
    api = None
    if settings.url:
        if http is None:
            raise ConfigError(
                "discovery_dmsg.url is set, and no plugin can ask over HTTP",
                hint='enable one: [node] enable = ["http_client"]',
            )
        api = DmsgApi(http, identity, clock, settings.url, settings.timeout_s)
    presence = Presence(settings, api, identity, clock, entropy.random())

    async def run() -> None:
        await lifecycle.wait_ready()
        await presence.loop.run()

    async with anyio.create_task_group() as tasks:
        if api is not None:
            tasks.start_soon(run)
        yield DmsgNode(api, presence)
        await presence.loop.leave()
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def open_presence(node: DmsgNode) -> AsyncIterator[DmsgPresence]:
    """Take what the relay says of this node."""
    yield node.presence


@asynccontextmanager
async def open_source(node: DmsgNode, clock: Clock) -> AsyncIterator[EntrySource]:
    """Read others' entries from the service."""
    yield HttpDmsg(node.api, clock)


@asynccontextmanager
async def open_servers_rpc(
    settings: DmsgClientSettings, sources: Live[EntrySource], clock: Clock
) -> AsyncIterator[RpcService]:
    """Offer dmsg.servers."""
    yield make_service(sources, clock, settings.wait_s)


class _Status:
    """How the own registration stands."""

    name = "dmsg_registration"

    def __init__(self, node: DmsgNode) -> None:
        self._node = node

    async def status(self) -> Status:
        """Return the truth now."""
        presence, api = self._node.presence, self._node.api
        if api is None:
            return Status(Health.OK, "no DMSG discovery is set")
        state = presence.loop.state
        fields: dict[str, Any] = {
            "url": api.url,
            "as": presence.kind,
            "registered": presence.registered,
            "requests": api.counters["writes"],
            "rested": presence.rested,
            "failures": state.failures,
            "unverified": api.counters["unverified"],
        }
        if state.trouble:
            return Status(Health.DEGRADED, f"cannot register: {state.trouble}", fields)
        if presence.kind == "nothing":
            return Status(Health.OK, "nothing to register", fields)
        if presence.registered:
            return Status(Health.OK, f"registered as a {presence.kind}", fields)
        return Status(Health.OK, f"registering as a {presence.kind}", fields)


@asynccontextmanager
async def open_status(node: DmsgNode) -> AsyncIterator[StatusSource]:
    """Say how the registration stands."""
    yield _Status(node)


SERVICES = (Provider(DmsgNode, open_dmsg), Provider(DmsgPresence, open_presence))

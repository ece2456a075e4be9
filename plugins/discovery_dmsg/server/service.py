"""The factories of the service: what it keeps, its routes, and how it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

from discovery_dmsg.server.desk import SHAPE, DmsgDesk
from discovery_dmsg.server.lists import Lists
from discovery_dmsg.server.paths import PATHS
from discovery_dmsg.server.records import Bodies, entries_of, gist_of
from discovery_dmsg.server.views import ServersOnly, TakenInto
from discovery_dmsg.settings import DmsgServerSettings
from skycore import Live
from skycore.contracts.dht import Mirror
from skycore.contracts.discovery import EntrySource
from skycore.contracts.http import AsgiApp, HttpRoutes, RouteOptions
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Publisher
from skycore.contracts.registry import Registry
from skycore.contracts.runtime import Clock, Entropy, Files, Identity, NodeInfo
from skycore.contracts.status import Status, StatusSource
from skycore.contracts.store import Items
from skycore.discovery.answers import problem_in
from skycore.discovery.directory import Directory, open_directory
from skycore.discovery.feeding import Feeding, Outlet, open_feeding
from skycore.discovery.serving import judged
from skycore.discovery.taking import open_taking
from skycore.model.keys import parse_public

__all__ = ["DmsgRoutes", "open_desk", "open_routes", "open_status"]

TABLE: Final = "dmsg-discovery"
DMSG: Final = b"dmsg"
DMSG_SERVER: Final = b"dmsg-server"


class DmsgRoutes:
    """`contracts.http.HttpRoutes` of the service."""

    name = "dmsgd"
    paths: Mapping[str, Mapping[str, Any]] = PATHS
    options = RouteOptions(
        cors=True, etags=True, unlimited=("/health", "/security/nonces"), problem=problem_in(SHAPE)
    )

    def __init__(self, prefix: str, desk: DmsgDesk) -> None:
        self.prefix = prefix
        self.app: AsgiApp = desk.app


@asynccontextmanager
async def open_desk(
    settings: DmsgServerSettings,
    identity: Identity,
    clock: Clock,
    entropy: Entropy,
    files: Files,
    info: NodeInfo,
    registry: Registry,
    sources: Live[EntrySource],
    publisher: Publisher | None,
    items: Items | None,
    namespaces: Namespaces | None,
    mirrors: Live[Mirror],
) -> AsyncIterator[DmsgDesk]:
    """Hold the table in memory; feed the DHT from it, and it from the DHT."""
    suite = identity.network.suite
    official = frozenset(parse_public(suite, text).hex() for text in settings.official)
    async with AsyncExitStack() as stack:
        directory = await stack.enter_async_context(open_directory(registry, TABLE, clock))
        changes = stack.enter_context(directory.subscribe())
        lists = Lists(directory, changes, official, entropy.random())
        desk = DmsgDesk(settings, identity, clock, directory, lists, info)
        if settings.feed and publisher and items and namespaces:
            outlet = Outlet(publisher, items, mirrors, namespaces, identity, clock, entropy, files)
            bodies = Bodies(identity.network, directory, official)
            desk.feedings = await _feed(stack, directory, bodies, outlet)
        if settings.take:
            desk.taking = await stack.enter_async_context(
                open_taking(
                    TakenInto(directory, settings),
                    DMSG,
                    sources,
                    lambda record: entries_of(identity.network, record),
                    clock,
                    entropy,
                    name="dmsgd",
                )
            )
        yield desk


async def _feed(
    stack: AsyncExitStack, directory: Directory, bodies: Bodies, outlet: Outlet
) -> tuple[Feeding, ...]:
    gist = partial(gist_of, outlet.namespaces.find(DMSG))
    entries = open_feeding(directory, DMSG, bodies.entry, outlet, name="dmsgd", gist=gist)
    servers = open_feeding(
        ServersOnly(directory), DMSG_SERVER, bodies.server, outlet, name="dmsgd_servers"
    )
    return (
        await stack.enter_async_context(entries),
        await stack.enter_async_context(servers),
    )


@asynccontextmanager
async def open_routes(settings: DmsgServerSettings, desk: DmsgDesk) -> AsyncIterator[HttpRoutes]:
    """Serve the routes under the prefix."""
    yield DmsgRoutes(settings.prefix, desk)


class _Status:
    """How the service is."""

    name = "dmsg_discovery"

    def __init__(self, desk: DmsgDesk) -> None:
        self._desk = desk

    async def status(self) -> Status:
        """Return the truth now."""
        desk, directory = self._desk, self._desk.directory
        clients, servers = desk.lists.count()
        fields: dict[str, Any] = {
            "clients": clients,
            "servers": servers,
            "age_s": round(directory.age_s, 1) if directory.is_loaded else None,
            **{word: desk.counters[word] for word in ("written", "deleted", "deregistered")},
            "refused": desk.counters["refused"],
        }
        if desk.feedings:
            entries, own = desk.feedings
            fields.update(entries.status_fields())
            fields["differences"] = entries.differences + own.differences
            fields["server_records"] = own.status_fields()
        if desk.taking is not None:
            fields.update(desk.taking.status_fields())
        feed_trouble = next((f.trouble for f in desk.feedings if f.trouble), "")
        said = f"{clients} clients, {servers} servers"
        return Status(*judged(directory, said, feed_trouble), fields)


@asynccontextmanager
async def open_status(desk: DmsgDesk) -> AsyncIterator[StatusSource]:
    """Say how it is."""
    yield _Status(desk)

"""The factories of `dmsg_client`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from relay_dmsg.client.door import Door
from relay_dmsg.client.finding import Finder
from relay_dmsg.client.inbound import Inbound
from relay_dmsg.client.keeper import Keeper
from relay_dmsg.client.nearness import Nearness
from relay_dmsg.client.reach import Reach
from relay_dmsg.client.source import AttachedServers
from relay_dmsg.client.telling import Teller
from relay_dmsg.core.servers import Servers, parse_server
from relay_dmsg.numbers import TO_CLIENT
from relay_dmsg.settings import DmsgClientSettings
from skycore import Live, Provider
from skycore.contracts.dht import Dht, Mirror
from skycore.contracts.discovery import EntrySource
from skycore.contracts.dmsg import DmsgPresence
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Publisher
from skycore.contracts.runtime import Clock, Entropy, Files, Identity, Lifecycle
from skycore.contracts.status import Health, Status, StatusSource
from skycore.contracts.streams import Streams
from skycore.contracts.transport import Transports, TransportType
from skycore.errors import ConfigError, StoreError
from skycore.model.keys import PubKey, short

__all__ = [
    "SERVERS_FILE",
    "SERVICES",
    "DmsgClient",
    "open_client",
    "open_door",
    "open_source",
    "open_status",
    "open_type",
]

log = logging.getLogger(__name__)
SERVERS_FILE = "dmsg_servers.msgpack"


class DmsgClient:
    """A client's parts: who keeps sessions, takes dials, and dials."""

    def __init__(
        self,
        settings: DmsgClientSettings,
        door: Door,
        carrier: Streams,
        transports: Transports,
        servers: Servers,
        finder: Finder,
        nearness: Nearness,
        identity: Identity,
        clock: Clock,
        entropy: Entropy,
        tasks: TaskGroup,
        on_change: Callable[[], None],
    ) -> None:
        self.servers = servers
        self.counters: Counter[str] = Counter()
        """What happened since the start."""
        self.keeper = Keeper(
            settings, identity.public, servers, finder, carrier, transports, clock,
            entropy.random(), tasks, self.counters, on_change,
        )  # fmt: skip
        self.inbound = Inbound(
            identity, clock, door, self.counters, self.keeper.is_server, tasks,
            requests_max=settings.inbound_max,
        )  # fmt: skip
        self.reach = Reach(
            settings, identity, clock, entropy, carrier, transports, servers, self.keeper, finder,
            nearness, self.counters,
        )  # fmt: skip

    def attached(self) -> Sequence[PubKey]:
        """Return the servers that there is a session with."""
        return [session.server.key for session in self.keeper.sessions.values()]


@asynccontextmanager
async def open_door(settings: DmsgClientSettings) -> AsyncIterator[Door]:
    """Make the door: the transport type is there before what it leads through."""
    yield Door(settings.inbound_max)


@asynccontextmanager
async def open_type(door: Door) -> AsyncIterator[TransportType]:
    """Offer the transport type `dmsg`."""
    yield door


@asynccontextmanager
async def open_client(
    settings: DmsgClientSettings,
    door: Door,
    streams: tuple[Streams, ...],
    transports: Transports,
    publisher: Publisher | None,
    mirrors: tuple[Mirror, ...],
    namespaces: Namespaces,
    presences: Live[DmsgPresence],
    sources: Live[EntrySource],
    dhts: Live[Dht],
    identity: Identity,
    clock: Clock,
    entropy: Entropy,
    files: Files,
    lifecycle: Lifecycle,
) -> AsyncIterator[DmsgClient]:
    """Keep sessions, take dials, tell where, from when the node is up until it stops.

    `mirrors` are there before this and after it: the last thing that is published must get out.
    """
    carrier = _carrier(streams)
    suite, own = identity.network.suite, identity.public
    servers = _known(Servers(suite, entropy.random()), settings, identity, files)
    nearness = Nearness(transports, servers.configured_endpoints)
    finder = Finder(
        suite, own, servers, sources, dhts, clock, nearness,
        lookup_s=settings.lookup_s, dice=entropy.random(),
    )  # fmt: skip
    async with carrier.listen(TO_CLIENT) as listener, anyio.create_task_group() as tasks:

        def changed() -> None:
            teller.change()
            try:
                files.write(SERVERS_FILE, servers.dump())
            except StoreError as bad:  # a full disk ends no session
                log.warning("servers are not remembered error=%r", str(bad))

        client = DmsgClient(
            settings, door, carrier, transports, servers, finder, nearness, identity, clock,
            entropy, tasks, changed,
        )  # fmt: skip
        told = publisher if settings.publish else None
        teller = Teller(own, settings.client_type, client.attached, told, namespaces, presences)
        door.inside = client.reach

        async def work() -> None:
            await lifecycle.wait_ready()
            tasks.start_soon(client.keeper.run)
            tasks.start_soon(teller.run)

        tasks.start_soon(client.inbound.accept, listener)
        tasks.start_soon(work)
        try:
            yield client
            await teller.leave()  # while all this needs still works; who is cancelled says nothing
        finally:
            door.inside = None
            tasks.cancel_scope.cancel()


def _carrier(streams: tuple[Streams, ...]) -> Streams:
    for one in streams:
        if one.name == "transport":
            return one
    raise ConfigError(
        "a relay speaks over the streams of transports, and no plugin provides them",
        hint='enable it: [node] enable = ["streams_vstream"]',
    )


def _known(
    servers: Servers, settings: DmsgClientSettings, identity: Identity, files: Files
) -> Servers:
    """Fill in what the configuration says and what an earlier run has found."""
    for text in settings.servers:
        key, endpoint = parse_server(identity.network.suite, text)
        if key != identity.public:
            servers.learn(key, endpoint, configured=True)
    try:
        saved = files.read(SERVERS_FILE)
        if saved:
            log.info("servers remembered count=%d", servers.load(saved))
    except (ConfigError, StoreError) as bad:
        log.warning("cannot read %s error=%r", SERVERS_FILE, str(bad))
    return servers


class _Status:
    """How a node stands with its relays."""

    name = "dmsg_client"

    def __init__(self, client: DmsgClient, settings: DmsgClientSettings) -> None:
        self._client, self._settings = client, settings

    async def status(self) -> Status:
        """Return the truth now."""
        client, wanted = self._client, self._settings.sessions_min
        sessions = client.keeper.sessions
        fields = {
            "sessions": [short(key) for key in sessions],
            "sessions_min": wanted,
            "servers_known": len(client.servers),
            **{name: client.counters[name] for name in sorted(client.counters)},
        }
        summary = f"attached to {len(sessions)} server{'' if len(sessions) == 1 else 's'}"
        if len(sessions) >= wanted:
            return Status(Health.OK, summary, fields)
        if sessions:
            return Status(Health.OK, f"{summary}, of {wanted} wanted", fields)
        if not len(client.servers):  # nothing has failed
            hint = "set dmsg_client.servers, discovery_dmsg.url or dht_kademlia.bootstrap"
            return Status(Health.OK, f"no relay is known ({hint})", fields)
        known = f"{summary}, of {len(client.servers)} known: not reachable through relays"
        if client.keeper.trouble:
            fields["trouble"] = client.keeper.trouble
        return Status(Health.DEGRADED, known, fields)


@asynccontextmanager
async def open_status(
    client: DmsgClient, settings: DmsgClientSettings
) -> AsyncIterator[StatusSource]:
    """Say how this node stands with its relays."""
    yield _Status(client, settings)


@asynccontextmanager
async def open_source(client: DmsgClient, clock: Clock) -> AsyncIterator[EntrySource]:
    """Tell of the servers that there is a session with."""
    yield AttachedServers(client.keeper, clock)


SERVICES = (Provider(Door, open_door), Provider(DmsgClient, open_client))

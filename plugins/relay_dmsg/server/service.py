"""The factories of `dmsg_server`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from relay_dmsg.numbers import TO_SERVER
from relay_dmsg.server.relay import Relay
from relay_dmsg.server.telling import UNKNOWN, Teller
from relay_dmsg.settings import DmsgServerSettings
from skycore import Live, Provider
from skycore.contracts.dht import Dht, DhtMode, Mirror
from skycore.contracts.dmsg import DmsgPresence
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Publisher
from skycore.contracts.runtime import Clock, Identity, Lifecycle
from skycore.contracts.services import OwnAddress
from skycore.contracts.status import Health, Status, StatusSource
from skycore.contracts.streams import Streams
from skycore.contracts.transport import Transports
from skycore.errors import ConfigError
from skycore.tasks import every

__all__ = ["SERVICES", "open_server", "open_status"]

REAP_S = 15.0


@asynccontextmanager
async def open_server(
    settings: DmsgServerSettings,
    streams: tuple[Streams, ...],
    transports: Transports,
    publisher: Publisher,
    mirrors: tuple[Mirror, ...],
    namespaces: Namespaces,
    presences: Live[DmsgPresence],
    dhts: Live[Dht],
    owns: Live[OwnAddress],
    identity: Identity,
    clock: Clock,
    lifecycle: Lifecycle,
) -> AsyncIterator[Relay]:
    """Relay, from when the node is up until it stops.

    `mirrors` are there before this and after it: the last thing that is published must get out.
    """
    carrier = next((one for one in streams if one.name == "transport"), None)
    if carrier is None:
        raise ConfigError(
            "a relay speaks over the streams of transports, and no plugin provides them",
            hint='enable it: [node] enable = ["streams_vstream"]',
        )
    async with carrier.listen(TO_SERVER) as listener, anyio.create_task_group() as tasks:

        def serves_dht() -> bool:
            return any(dht.mode is DhtMode.FULL for dht in dhts)

        relay = Relay(settings, identity, carrier, transports, clock, tasks, serves_dht)
        teller = Teller(
            settings, identity.public, relay, transports, publisher, namespaces, presences, owns,
            serves_dht, clock,
        )  # fmt: skip

        async def work() -> None:
            await lifecycle.wait_ready()
            tasks.start_soon(relay.accept, listener)
            tasks.start_soon(teller.run)
            await every(REAP_S, relay.reap, name="idle relayed streams", at_once=False)

        tasks.start_soon(work)
        try:
            yield relay
            # in good order, while all this needs still works; who is cancelled says nothing
            async with anyio.create_task_group() as last:
                last.start_soon(teller.leave)
                last.start_soon(relay.stop)
        finally:
            tasks.cancel_scope.cancel()


class _Status:
    """How the relay stands."""

    name = "dmsg_server"

    def __init__(self, relay: Relay, settings: DmsgServerSettings) -> None:
        self._relay, self._settings = relay, settings

    async def status(self) -> Status:
        """Return the truth now."""
        relay, settings = self._relay, self._settings
        fields: dict[str, Any] = {
            "address": relay.told,
            "sessions": len(relay.sessions),
            "sessions_max": settings.sessions_max,
            "streams": len(relay.splices),
            **{name: relay.counters[name] for name in sorted(relay.counters)},
        }
        summary = f"{len(relay.sessions)} sessions, {len(relay.splices)} relayed streams"
        if not relay.told:
            return Status(Health.OK, f"{summary}; {UNKNOWN}", fields)
        return Status(Health.OK, summary, fields)


@asynccontextmanager
async def open_status(relay: Relay, settings: DmsgServerSettings) -> AsyncIterator[StatusSource]:
    """Say how the relay stands."""
    yield _Status(relay, settings)


SERVICES = (Provider(Relay, open_server),)

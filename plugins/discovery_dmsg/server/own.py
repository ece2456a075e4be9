"""This node's own entry at its own service: no request, and no address of itself to be set.

Why at all: a relay that shares a node with the service says what it is in the DHT, and would be
missing in the list of the very service beside it, so the two would differ for ever. Why the record
`dmsg` from here, too: of other relays the service mirrors it, and of its own key it may not (L14).
Where this node is a DMSG client as well, the client publishes that record.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio

from discovery_dmsg.client.presence import Presence
from discovery_dmsg.client.settings import DmsgClientSettings
from discovery_dmsg.server.desk import DmsgDesk
from discovery_dmsg.server.records import essence
from discovery_dmsg.server.rules import held_in
from discovery_dmsg.settings import DmsgServerSettings
from skycore.contracts.dht import Mirror
from skycore.contracts.dmsg import DmsgPresence
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Fact, Publisher
from skycore.contracts.runtime import Clock, Entropy, Identity, Lifecycle
from skycore.errors import SkycoreError
from skycore.model.entries import DmsgEntry

__all__ = ["OwnWay", "open_own"]

log = logging.getLogger(__name__)
DMSG: Final = b"dmsg"


class OwnWay:
    """A `discovery_dmsg.client.presence.Way` that leads to this node's own desk."""

    url = "this node"

    def __init__(
        self, desk: DmsgDesk, publisher: Publisher | None, namespaces: Namespaces | None
    ) -> None:
        self._desk, self._publisher = desk, publisher
        self._namespace = namespaces.find(DMSG) if namespaces else None
        self._told = False

    async def entry(self, public: bytes) -> DmsgEntry | None:
        """Return what is listed of a key."""
        held = held_in(self._desk.directory.of(public))
        return held.entry if held is not None else None

    async def write(self, entry: DmsgEntry) -> None:
        """List the entry. Raises `RequestRefusedError`, `StoreError`."""
        await self._desk.register(entry, "")
        if entry.client is None:
            await self._publish(entry)

    async def delete(self, entry: DmsgEntry) -> None:
        """List it no more. Raises `RequestRefusedError`, `StoreError`."""
        if self._told:
            await self._publish(None)
        await self._desk.end(entry, "")

    async def _publish(self, entry: DmsgEntry | None) -> None:
        if self._publisher is None or self._namespace is None:
            return
        value = None if entry is None else self._namespace.encode(essence(entry))
        try:
            await self._publisher.publish(Fact(DMSG, value))
            self._told = entry is not None
        except SkycoreError as bad:  # the next refresh tries again
            log.info("our DMSG record could not be published error=%r", str(bad))


@asynccontextmanager
async def open_own(
    settings: DmsgServerSettings,
    desk: DmsgDesk,
    publisher: Publisher | None,
    mirrors: tuple[Mirror, ...],
    namespaces: Namespaces | None,
    identity: Identity,
    clock: Clock,
    entropy: Entropy,
    lifecycle: Lifecycle,
) -> AsyncIterator[DmsgPresence]:
    """Keep the own entry at the own service, from when the node is up until it stops.

    `mirrors` are there before this and after it: the last thing that is published must get out.
    """
    way = OwnWay(desk, publisher if settings.feed else None, namespaces)
    refreshes = DmsgClientSettings(server_refresh_s=max(5.0, settings.server_lifetime_s / 2))
    presence = Presence(refreshes, way, identity, clock, entropy.random())

    async def run() -> None:
        await lifecycle.wait_ready()
        await presence.loop.run()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        yield presence
        await presence.loop.leave()
        tasks.cancel_scope.cancel()

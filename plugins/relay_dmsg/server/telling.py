"""What a server says of itself: the record `dmsg-server`, and its entry at the discovery."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import anyio

from relay_dmsg.server.relay import Relay
from relay_dmsg.settings import DmsgServerSettings
from skycore import Live
from skycore.contracts.dmsg import DmsgPresence
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Fact, Publisher
from skycore.contracts.runtime import Clock
from skycore.contracts.services import OwnAddress
from skycore.contracts.transport import Transports
from skycore.errors import ConfigError, SkycoreError
from skycore.model.addresses import Address, join_host_port, split_host_port
from skycore.model.entries import DmsgServer, DmsgServerEntry
from skycore.model.keys import PubKey

__all__ = ["UNKNOWN", "Teller", "told_address"]

log = logging.getLogger(__name__)
DMSG_SERVER: Final = b"dmsg-server"
LOOK_S: Final = 5.0
"""How often it is looked whether anything changed."""
RETRY_S: Final = 30.0
UNKNOWN_S: Final = 15.0
"""A resolver may say in this time how this node is seen; then people are told that nobody did."""
UNKNOWN: Final = (
    "nobody is told where this relay is (set transport_stcpr.advertise or discovery_address.url)"
)
LEAVE_S: Final = 2.0
STEPS: Final = 16
"""Free sessions are told in so many steps, so that not every session is news to the network."""


def told_address(
    advertise: str, listening: Sequence[Address], owns: Iterable[OwnAddress] = ()
) -> str:
    """Return what is told; empty where this node does not know its own host.

    What the configuration says; else where it listens; else as an address resolver sees it.
    """
    if advertise:
        return advertise
    for address in listening:
        try:
            host, port = split_host_port(address.endpoint)
        except ConfigError:
            continue
        if address.kind == "stcpr" and host and port:
            return address.endpoint
    for own in owns:
        bind = own.find("stcpr")
        if bind is not None and bind.remote_addr and bind.port:
            return join_host_port(bind.remote_addr, int(bind.port))
    return ""


class Teller:
    """Publishes what this server is, when it changes and every `publish_s`."""

    def __init__(
        self,
        settings: DmsgServerSettings,
        own: PubKey,
        relay: Relay,
        transports: Transports,
        publisher: Publisher,
        namespaces: Namespaces,
        presences: Live[DmsgPresence],
        owns: Live[OwnAddress],
        serves_dht: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._own = own
        self._relay = relay
        self._transports = transports
        self._publisher = publisher
        self._namespace = namespaces.find(DMSG_SERVER)
        self._presences = presences
        self._serves_dht = serves_dht
        self._owns = owns
        self._clock = clock
        self._told: DmsgServerEntry | None = None
        self._next_at = 0.0
        self._is_over = False
        self._unknown_since: float | None = None
        self._has_warned = False
        self._turn = anyio.Lock()

    async def run(self) -> None:
        """Look again and again, until `leave`."""
        while not self._is_over:
            async with self._turn:
                await self._look()
            await anyio.sleep(LOOK_S)

    async def leave(self) -> None:
        """Take the record back: a server that stops is dialled by nobody until its lease ends.

        Bounded. Raises nothing. The entry at the discovery is taken back by whoever registered it.
        """
        self._is_over = True
        with anyio.move_on_after(LEAVE_S):
            async with self._turn:  # a record on its way would come after the end of it
                if self._told is None or self._namespace is None:
                    return
                try:
                    await self._publisher.publish(Fact(DMSG_SERVER, None))
                    log.info("no DMSG server any more: the record was taken back")
                except SkycoreError as bad:
                    log.info("the server's record could not be taken back error=%r", str(bad))

    async def _look(self) -> None:
        listening = self._transports.listening()
        address = told_address(self._settings.advertise, listening, self._owns)
        self._relay.told = address
        if address:
            self._unknown_since = None
            await self._tell(address)
        elif self._unknown_since is None:
            self._unknown_since = self._clock.now()
        elif not self._has_warned and self._clock.now() - self._unknown_since >= UNKNOWN_S:
            self._has_warned = True
            log.warning("no record dmsg-server is published: %s", UNKNOWN)

    async def _tell(self, address: str) -> None:
        serves_dht = self._serves_dht()
        most = self._settings.sessions_max
        step = max(1, most // STEPS)
        free = (most - len(self._relay.sessions)) // step * step
        for presence in self._presences:
            presence.set_server(
                DmsgServer(address, available_sessions=max(0, free), dht_bootstrap=serves_dht)
            )
        entry = DmsgServerEntry(
            self._own.hex(), address, max_sessions=most, dht_bootstrap=serves_dht
        )
        now = self._clock.now()
        if self._namespace is None or (entry == self._told and now < self._next_at):
            return
        try:
            await self._publisher.publish(Fact(DMSG_SERVER, self._namespace.encode(entry)))
        except SkycoreError as bad:
            if self._told is not None or not self._next_at:
                log.warning("cannot publish our server's record error=%r", str(bad))
            self._told, self._next_at = entry, now + RETRY_S
            return
        if entry != self._told:
            log.info("published as a DMSG server at=%s dht_bootstrap=%s", address, serves_dht)
        self._told, self._next_at = entry, now + self._settings.publish_s

"""The servers that this node is attached to, as a source of records `dmsg-server`.

Why a source: a node that knows nobody but a DMSG server (from its configuration, or from its last
run) must find its way into the DHT without any discovery (M14). The DHT starts from servers that
say they answer its calls; these have just said so, over an authenticated stream.
"""

from __future__ import annotations

from typing import Final

import anyio

from relay_dmsg.client.keeper import Keeper, Session
from skycore.contracts.discovery import Record, Records
from skycore.contracts.runtime import Clock
from skycore.errors import DiscoveryError
from skycore.model.entries import DmsgServerEntry

__all__ = ["AttachedServers"]

NAME: Final = "relays"
SALT: Final = b"dmsg-server"
HOLDS_S: Final = 60
FIRST_S: Final = 3.0
"""How long a node that starts waits for its first session before it says that it has none."""


class AttachedServers:
    """`contracts.discovery.EntrySource`. What it says holds as long as the session does."""

    name = NAME
    salts: frozenset[bytes] | None = frozenset((SALT,))
    is_local = False

    def __init__(self, keeper: Keeper, clock: Clock) -> None:
        self._keeper, self._clock = keeper, clock

    async def find(self, salt: bytes, subject: bytes) -> Record | None:
        """Return a server's record, if there is a session with it."""
        await self._look(salt)
        session = self._keeper.sessions.get(bytes(subject))
        return self._record(session) if session is not None else None

    async def records(self, salt: bytes) -> Records:
        """Return those of all sessions. Raises `DiscoveryError` for another salt."""
        await self._look(salt)
        found = tuple(self._record(one) for one in self._keeper.sessions.values())
        note = "only the servers that this node is attached to"
        return Records(found, NAME, self._clock.wall_ns(), False, note)

    async def _look(self, salt: bytes) -> None:
        if salt != SALT:
            raise DiscoveryError("sessions with DMSG servers tell of servers only")
        with anyio.move_on_after(FIRST_S):
            await self._keeper.wait_first()

    def _record(self, session: Session) -> Record:
        server, now_s = session.server, self._clock.wall_s()
        body = DmsgServerEntry(
            server.key.hex(), session.endpoint, dht_bootstrap=session.limits.serves_dht
        )
        return Record(SALT, server.key, body, self._clock.wall_ns(), now_s + HOLDS_S, NAME)

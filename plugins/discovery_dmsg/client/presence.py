"""This node's own entry, kept registered: `contracts.dmsg.DmsgPresence`.

Why sequence numbers are milliseconds: they rise over restarts without a file and without asking the
server first (L13). Where the server holds a higher one all the same, it is asked once; if what it
holds was signed later than what we say, another program uses this key, or this clock is behind, and
to go on would be a fight that nobody wins. Source: Skywire's dmsg client (docs/protocols/
discovery.md), its fix #2302.

Why numbers and times count once they were taken, and not when they were tried: what a clock that
was wrong made of them would be refused long after the clock is right again. Why what was tried is
remembered all the same: a request without an answer may have arrived.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Collection
from typing import Final, Protocol

import msgspec

from discovery_dmsg.client.api import is_refused
from discovery_dmsg.client.settings import DmsgClientSettings
from skycore.contracts.runtime import Clock, Identity
from skycore.discovery.registering import Registration
from skycore.errors import EntryNewerError, RequestRefusedError
from skycore.model import dmsg_entry
from skycore.model.entries import DmsgClient, DmsgEntry, DmsgServer
from skycore.model.keys import PubKey

__all__ = ["Presence", "Way"]

log = logging.getLogger(__name__)
SERVERS_MAX: Final = 64
TRIED_MAX: Final = 16
NS_PER_MS: Final = 1_000_000
OLD_SEQUENCE: Final = "sequence field of new entry"
OLD_TIME: Final = "timestamp is not greater than previous"


class Way(Protocol):
    """To a DMSG discovery: over HTTP, or to this node's own."""

    url: str

    async def entry(self, public: bytes) -> DmsgEntry | None:
        """Return what is held of a key."""
        ...

    async def write(self, entry: DmsgEntry) -> None:
        """Register a signed entry. Raises `RequestRefusedError`."""
        ...

    async def delete(self, entry: DmsgEntry) -> None:
        """Hand in a signed deletion. Raises `RequestRefusedError`."""
        ...


class Presence:
    """What is said, what has arrived, and the loop between them."""

    def __init__(
        self,
        settings: DmsgClientSettings,
        api: Way | None,
        identity: Identity,
        clock: Clock,
        dice: random.Random,
    ) -> None:
        self._api, self._identity, self._clock = api, identity, clock
        self._refreshes_s = settings.client_refresh_s, settings.server_refresh_s
        self._round_s = min(self._refreshes_s)
        self._client: DmsgClient | None = None
        self._client_type = ""
        self._server: DmsgServer | None = None
        self._sent: DmsgEntry | None = None
        """What the server has taken, without number, time and signature."""
        self._sent_at = float("-inf")
        self._sequence = self._timestamp = 0
        """Of the last entry or deletion that the server is known to have taken."""
        self._tried: deque[str] = deque(maxlen=TRIED_MAX)
        """Signatures of what was handed in since: the server may hold any of them."""
        self.rested = 0
        """Rounds without a request: nothing had changed, and nothing was due."""
        self.loop = Registration(
            self._register,
            self._leave,
            dice=dice,
            name="registration at dmsg discovery",
            interval_s=self._round_s,
            debounce_s=settings.debounce_s,
        )

    # --- what others say -------------------------------------------------------------------------

    def set_servers(self, servers: Collection[PubKey], *, client_type: str = "visor") -> None:
        """Take the servers by which this node can be reached."""
        keys = [key.hex() for key in dict.fromkeys(servers)][:SERVERS_MAX]
        self._say(DmsgClient(tuple(sorted(keys))), client_type, self._server)

    def set_server(self, facts: DmsgServer) -> None:
        """Take what this node is as a server."""
        facts = msgspec.structs.replace(facts, server_type="")
        self._say(self._client, self._client_type, facts)

    def clear(self) -> None:
        """Be neither any more."""
        self._say(None, "", None)

    def _say(self, client: DmsgClient | None, kind: str, server: DmsgServer | None) -> None:
        before = self._wanted
        self._client, self._client_type, self._server = client, kind, server
        if self._wanted != before:
            self.loop.nudge()

    @property
    def _wanted(self) -> DmsgEntry | None:
        if self._client is None and self._server is None:
            return None
        return DmsgEntry(
            self._identity.public.hex(),
            dmsg_entry.VERSION,
            client=self._client,
            client_type=self._client_type,
            server=self._server,
        )

    @property
    def registered(self) -> bool:
        """Whether the last thing said has arrived, and its refresh is not overdue."""
        wanted = self._wanted
        if wanted is None or wanted != self._sent:
            return wanted is None and self._sent is None
        return self._clock.now() - self._sent_at <= self._refresh_s(wanted) + self._round_s

    @property
    def kind(self) -> str:
        """What this node is: "client", "server" or "nothing"."""
        return "server" if self._server else "client" if self._client else "nothing"

    # --- rounds ----------------------------------------------------------------------------------

    def _refresh_s(self, entry: DmsgEntry) -> float:
        client_s, server_s = self._refreshes_s
        return client_s if entry.server is None else server_s

    async def _register(self) -> None:
        wanted = self._wanted
        if self._api is None:
            return
        if wanted is None:
            await self._leave()
            return
        age_s = self._clock.now() - self._sent_at
        if wanted == self._sent and age_s + self._round_s <= self._refresh_s(wanted):
            self.rested += 1
            return
        await self._send(self._api, wanted)
        if wanted != self._sent:
            log.info("registered at dmsg discovery as=%s url=%s", self.kind, self._api.url)
        self._sent, self._sent_at = wanted, self._clock.now()

    async def _send(self, api: Way, wanted: DmsgEntry) -> None:
        """Sign and send; told that something newer is held, look at it, and try once more."""
        entry = self._signed(wanted)
        try:
            await api.write(entry)
        except RequestRefusedError as refused:
            if not is_refused(refused, OLD_SEQUENCE, OLD_TIME):
                raise
            held = await api.entry(self._identity.public)
            if held is None:
                raise
        else:
            self._taken(entry)
            return
        if held.timestamp > entry.timestamp and held.signature not in self._tried:
            raise EntryNewerError(
                f"{api.url} holds an entry of this key that was signed"
                f" {(held.timestamp - entry.timestamp) / 1e9:.1f} s later than this one",
                hint="does another program use this key, or is this machine's clock behind?",
            )
        self._taken(held)
        entry = self._signed(wanted)
        await api.write(entry)
        self._taken(entry)

    def _taken(self, entry: DmsgEntry) -> None:
        """Note that the server holds this: what comes next is above it."""
        self._sequence = max(self._sequence, entry.sequence)
        self._timestamp = max(self._timestamp, entry.timestamp)

    def _signed(self, wanted: DmsgEntry, *, deletes: bool = False) -> DmsgEntry:
        """Return the next entry of this node."""
        now_ns = self._clock.wall_ns()
        entry = msgspec.structs.replace(
            wanted,
            sequence=max(self._sequence + 1, now_ns // NS_PER_MS),
            timestamp=max(self._timestamp, now_ns),
        )
        network = self._identity.network
        entry = dmsg_entry.sign(network, entry, self._identity.sign, deletes=deletes)
        self._tried.append(entry.signature)
        return entry

    async def _leave(self) -> None:
        """Take back what was said, if anything was or may have been."""
        sent, api = self._sent, self._api
        if api is None or (sent is None and not self._tried):
            return
        wanted = sent or DmsgEntry(self._identity.public.hex(), dmsg_entry.VERSION)
        entry = self._signed(wanted, deletes=True)
        try:
            await api.delete(entry)
        except RequestRefusedError as refused:
            if refused.code != 404:  # it has ended by itself
                raise
        else:
            self._taken(entry)
        self._sent = None
        self._tried.clear()
        if sent is not None:
            log.info("deregistered at dmsg discovery url=%s", api.url)

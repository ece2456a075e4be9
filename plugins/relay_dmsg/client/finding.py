"""Who says where servers are, and by which servers a key can be reached: all sources together.

Why what is found is only a hint: records may be old, and a source may lie. Whom a dial leads to is
proven by handshakes, and an address that fails is left in peace.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import Final

import anyio

from relay_dmsg.client.nearness import Nearness
from relay_dmsg.core.servers import SERVERS_MAX, Servers
from relay_dmsg.numbers import KIND
from skycore import Live
from skycore.contracts.dht import Dht, DhtMode
from skycore.contracts.discovery import EntrySource, Record
from skycore.contracts.runtime import Clock
from skycore.discovery.sources import find_all, list_all, rank_records
from skycore.errors import InvalidKeyError, SkycoreError
from skycore.model.addresses import Address
from skycore.model.entries import DmsgEntry, DmsgServerEntry
from skycore.model.keys import KeySuite, PubKey, parse_public

__all__ = ["Finder"]

log = logging.getLogger(__name__)
DMSG: Final = b"dmsg"
DMSG_SERVER: Final = b"dmsg-server"
LIST_S: Final = 5.0
SOURCE_SERVERS_MAX: Final = SERVERS_MAX // 4
"""Servers taken at a time of what one source lists; another time these may be others."""
DELEGATED_MAX: Final = 4
"""Servers of one key that are tried."""


class Finder:
    """Asks sources of records `dmsg` and `dmsg-server`."""

    def __init__(
        self,
        suite: KeySuite,
        own: PubKey,
        servers: Servers,
        sources: Live[EntrySource],
        dhts: Live[Dht],
        clock: Clock,
        nearness: Nearness,
        *,
        lookup_s: float,
        dice: random.Random,
    ) -> None:
        self._suite = suite
        self._own = own
        self._servers = servers
        self._sources = sources
        self._dhts = dhts
        self._nearness = nearness
        self._clock = clock
        self._lookup_s = lookup_s
        self._dice = dice

    async def learn_servers(self) -> int:
        """Ask for all servers there are; return how many of them are news. Raises nothing."""
        for dht in self._dhts:
            await self._pull(dht)
        listings = await list_all(self._sources, DMSG_SERVER, wait_s=LIST_S)
        records: dict[bytes, list[Record]] = {}
        for known in listings.by_source.values():
            for record in self._some_of(known.records):
                records.setdefault(bytes(record.subject), []).append(record)
        news, now_s = 0, self._clock.wall_s()
        for subject in sorted(records):
            news += self._learn(self._believed(subject, rank_records(records[subject], now_s)))
        return news

    def _believed(self, subject: bytes, ranked: Sequence[Record]) -> object:
        """Return what the best record says; where that failed, what the next one says, in turns.

        A source that lies about where a server is would else hide it from us for good.
        """
        bodies = {
            r.body.address: r.body for r in ranked if isinstance(r.body, DmsgServerEntry)
        }.values()
        server = self._servers.find(subject)
        failures = server.failures if server is not None else 0
        return list(bodies)[failures % len(bodies)] if bodies else None

    def _some_of(self, records: Sequence[Record]) -> Sequence[Record]:
        """Return no more of one source than leave room for others: records cost nothing to make."""
        if len(records) <= SOURCE_SERVERS_MAX:
            return records
        return self._dice.sample(records, SOURCE_SERVERS_MAX)

    async def _pull(self, dht: Dht) -> None:
        """Let a regular node fetch the servers' records: it holds only those near its id."""
        if dht.mode is DhtMode.FULL:
            return
        with anyio.move_on_after(LIST_S):
            try:
                await dht.sync(salt=DMSG_SERVER)
            except SkycoreError as failed:
                log.debug("no servers from the DHT error=%r", str(failed))

    async def find(self, remote: PubKey) -> tuple[Address, ...]:
        """Return by which servers a key says that it can be reached. Raises nothing."""
        addresses: list[Address] = []
        with anyio.move_on_after(2 * self._lookup_s):
            found = await find_all(self._sources, DMSG, remote, self._clock, wait_s=self._lookup_s)
            keys: dict[str, None] = {}
            for record in found.records:
                if isinstance(record.body, DmsgEntry):
                    keys.update(dict.fromkeys(record.body.delegated_servers))
            for text in list(keys)[:DELEGATED_MAX]:
                endpoint = await self._endpoint(text)
                if endpoint:
                    addresses.append(Address(KIND, f"{text}@{endpoint}"))
        return tuple(addresses)

    async def _endpoint(self, text: str) -> str:
        """Return where a server is, by what is known or by its record; empty: nobody knows."""
        try:
            key = parse_public(self._suite, text)
        except InvalidKeyError:
            return ""
        if key == self._own:
            return ""
        server = self._servers.find(key)
        if server is not None:
            return server.endpoint
        found = await find_all(self._sources, DMSG_SERVER, key, self._clock, wait_s=self._lookup_s)
        if found.best is not None:
            self._learn(found.best.body)
        server = self._servers.find(key)
        return server.endpoint if server is not None else ""

    def _learn(self, body: object) -> bool:
        if not isinstance(body, DmsgServerEntry):
            return False
        try:
            key = parse_public(self._suite, body.pk)
        except InvalidKeyError:
            return False
        if key == self._own or not self._nearness.may_dial(body.address):
            return False
        return self._servers.learn(key, body.address)

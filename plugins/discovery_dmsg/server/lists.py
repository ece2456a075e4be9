"""Answers of the routes that list, kept until the directory changes.

Why kept: such routes are asked for far more often than entries change, and a list of thousands of
entries is joined, not encoded. Who is a server is an index of the directory's; what clients say is
read once for each entry, whatever the number of questions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from discovery_dmsg.server.records import server_type
from discovery_dmsg.server.rules import CLIENT, SERVER, held_in
from skycore.contracts.registry import Listing
from skycore.contracts.runtime import Clock
from skycore.discovery.directory import Directory
from skycore.model import dmsg_entry

__all__ = ["SAMPLE_MAX", "Lists"]

SAMPLE_MAX: Final = 512
"""Servers in an answer of `available_servers`."""
CLIENTS_FRESH_S: Final = 1.0
"""How old the lists of clients may be while entries change; upstream has 15 s."""
_encode = msgspec.json.Encoder().encode


class _Client(NamedTuple):
    listing: Listing
    key: str
    servers: tuple[str, ...]
    is_visor: bool


class _Server(NamedTuple):
    listing: Listing
    free: int
    body: bytes


class Lists:
    """The lists of a directory, as JSON."""

    def __init__(
        self,
        directory: Directory,
        official: frozenset[str],
        clock: Clock,
        dice: random.Random,
    ) -> None:
        self._directory, self._official = directory, official
        self._clock, self._dice = clock, dice
        self._made: dict[str, tuple[int, bytes]] = {}
        self._servers: dict[bytes, _Server] = {}
        self._clients: dict[bytes, _Client] = {}
        self._clients_version = -1
        self._clients_at = float("-inf")
        self._by_server: dict[str, tuple[str, ...]] = {}

    def _kept(self, name: str, version: int, make: Callable[[], bytes]) -> bytes:
        held = self._made.get(name)
        if held is None or held[0] != version:
            held = self._made[name] = version, make()
        return held[1]

    # --- everybody -------------------------------------------------------------------------------

    def entries(self) -> bytes:
        """Return the keys of all entries, ordered."""

        def make() -> bytes:
            both = {*self._directory.having(CLIENT), *self._directory.having(SERVER)}
            return _encode([subject.hex() for subject in sorted(both)])

        return self._kept("entries", self._directory.version, make)

    # --- servers ---------------------------------------------------------------------------------

    def all_servers(self) -> bytes | None:
        """Return all servers' entries, ordered by key; None: there is none."""
        rows = self._server_rows()
        return _joined(rows) if rows else None

    def available_servers(self) -> bytes | None:
        """Return at most `SAMPLE_MAX` servers that are not full, the emptiest first; None: none.

        Of more than that, any: each client then gets others, and no server all of them.
        """
        rows = [row for row in self._server_rows() if row.free > 0]
        if len(rows) > SAMPLE_MAX:
            rows = self._dice.sample(rows, SAMPLE_MAX)
        rows.sort(key=lambda row: (-row.free, row.listing.subject))
        return _joined(rows) if rows else None

    def _server_rows(self) -> list[_Server]:
        subjects = self._directory.having(SERVER)
        rows: dict[bytes, _Server] = {}
        for subject in subjects:
            listing, known = self._directory.of(subject), self._servers.get(subject)
            if known is not None and known.listing is listing:
                rows[subject] = known
                continue
            held = held_in(listing)
            if held is None or held.entry.server is None:
                continue
            kind = server_type(subject.hex(), self._official)
            body = dmsg_entry.encode(held.entry, server_type=kind)
            rows[subject] = _Server(listing, held.entry.server.available_sessions, body)
        self._servers = rows
        return list(rows.values())

    # --- clients ---------------------------------------------------------------------------------

    def visor_entries(self) -> bytes:
        """Return the keys of clients that are visors, ordered."""
        self._look_at_clients()

        def make() -> bytes:
            return _encode([row.key for row in self._clients.values() if row.is_visor])

        return self._kept("visorEntries", self._clients_version, make)

    def clients_by_server(self) -> bytes:
        """Return the clients of each server, both by key."""
        self._look_at_clients()
        return self._kept("clients", self._clients_version, lambda: _encode(self._by_server))

    def clients_of(self, server: str) -> bytes:
        """Return the clients of a server, ordered."""
        self._look_at_clients()
        return _encode(self._by_server.get(server, ()))

    def _look_at_clients(self) -> None:
        """Read what clients say, of those whose entry changed; all of them at most every second."""
        version, now = self._directory.version, self._clock.now()
        if version == self._clients_version or now - self._clients_at < CLIENTS_FRESH_S:
            return
        rows: dict[bytes, _Client] = {}
        by_server: dict[str, list[str]] = {}
        for subject in self._directory.having(CLIENT):
            listing, row = self._directory.of(subject), self._clients.get(subject)
            if row is None or row.listing is not listing:
                row = _client(listing)
            if row is None:
                continue
            rows[subject] = row
            for server in row.servers:
                by_server.setdefault(server, []).append(row.key)
        self._clients = rows
        self._by_server = {key: tuple(by_server[key]) for key in sorted(by_server)}
        self._clients_version, self._clients_at = version, now


def _client(listing: Listing) -> _Client | None:
    held = held_in(listing)
    if held is None or held.entry.client is None:
        return None
    servers = tuple(dict.fromkeys(held.entry.delegated_servers))
    return _Client(listing, listing.subject.hex(), servers, held.entry.client_type == "visor")


def _joined(rows: Sequence[_Server]) -> bytes:
    return b"[%s]" % b",".join(row.body for row in rows)

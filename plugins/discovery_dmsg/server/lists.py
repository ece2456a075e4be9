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
from discovery_dmsg.server.rules import SERVER, held_in
from skycore.contracts.registry import Listing
from skycore.discovery.directory import Directory, DirectoryChanges
from skycore.model import dmsg_entry

__all__ = ["SAMPLE_MAX", "Lists"]

SAMPLE_MAX: Final = 512
"""Servers in an answer of `available_servers`."""
_encode = msgspec.json.Encoder().encode


class _Client(NamedTuple):
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
        changes: DirectoryChanges,
        official: frozenset[str],
        dice: random.Random,
    ) -> None:
        """`changes` are those of the directory; they are nobody else's."""
        self._directory, self._changes = directory, changes
        self._official, self._dice = official, dice
        self._made: dict[str, tuple[int, bytes]] = {}
        self._servers: dict[bytes, _Server] = {}
        self._clients: dict[bytes, _Client] = {}
        self._by_server: dict[str, set[str]] = {}

    def _kept(self, name: str, make: Callable[[], bytes]) -> bytes:
        held, version = self._made.get(name), self._directory.version
        if held is None or held[0] != version:
            held = self._made[name] = version, make()
        return held[1]

    # --- everybody -------------------------------------------------------------------------------

    def entries(self) -> bytes:
        """Return the keys of all entries, ordered."""
        self._look_at_clients()

        def make() -> bytes:
            both = {*self._clients, *self._directory.having(SERVER)}
            return _encode([subject.hex() for subject in sorted(both)])

        return self._kept("entries", make)

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
            if held is None or not held.is_live or held.entry.server is None:
                continue
            kind = server_type(subject.hex(), self._official)
            body = dmsg_entry.encode(held.entry, server_type=kind)
            rows[subject] = _Server(listing, held.entry.server.available_sessions, body)
        self._servers = rows
        return list(rows.values())

    # --- clients ---------------------------------------------------------------------------------

    def count(self) -> tuple[int, int]:
        """Return how many clients and servers there are; who is both is both."""
        self._look_at_clients()
        return len(self._clients), len(self._directory.having(SERVER))

    def visor_entries(self) -> bytes:
        """Return the keys of clients that are visors, ordered."""
        self._look_at_clients()

        def make() -> bytes:
            return _encode(sorted(row.key for row in self._clients.values() if row.is_visor))

        return self._kept("visorEntries", make)

    def clients_by_server(self) -> bytes:
        """Return the clients of each server, both by key."""
        self._look_at_clients()

        def make() -> bytes:
            by_server = self._by_server
            return _encode({server: sorted(by_server[server]) for server in sorted(by_server)})

        return self._kept("clients", make)

    def clients_of(self, server: str) -> bytes:
        """Return the clients of a server, ordered."""
        self._look_at_clients()
        return _encode(sorted(self._by_server.get(server, ())))

    def _look_at_clients(self) -> None:
        """Read what clients say, of those whose entry changed."""
        for subject in self._changes.take_now():
            before = self._clients.pop(subject, None)
            for server in before.servers if before else ():
                keys = self._by_server[server]
                keys.discard(subject.hex())
                if not keys:
                    del self._by_server[server]
            row = _client(self._directory.of(subject))
            if row is not None:
                self._clients[subject] = row
                for server in row.servers:
                    self._by_server.setdefault(server, set()).add(row.key)


def _client(listing: Listing) -> _Client | None:
    held = held_in(listing)
    if held is None or not held.is_live or held.entry.client is None:
        return None
    servers = tuple(dict.fromkeys(held.entry.delegated_servers))
    return _Client(listing.subject.hex(), servers, held.entry.client_type == "visor")


def _joined(rows: Sequence[_Server]) -> bytes:
    return b"[%s]" % b",".join(row.body for row in rows)

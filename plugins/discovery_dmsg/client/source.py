"""DMSG discovery over HTTP as a source of records, under the salts `dmsg` and `dmsg-server`.

Why a record is as old as its entry's signature, and not as fresh as the answer: the key itself says
when it said so, and a server that goes on telling an old entry makes it no newer.
"""

from __future__ import annotations

from typing import Final

import msgspec

from discovery_dmsg.client.api import DmsgApi, Signed
from skycore.contracts.discovery import Record, Records
from skycore.contracts.runtime import Clock
from skycore.errors import DiscoveryError
from skycore.model.entries import DmsgEntry, DmsgServerEntry

__all__ = ["HttpDmsg"]

DMSG: Final = b"dmsg"
DMSG_SERVER: Final = b"dmsg-server"
NAME: Final = "http"
CLIENT_S: Final = 3_600
SERVER_S: Final = 120
"""How long the service lists an entry after it was signed."""
HOLDS_S: Final = 60
"""For how long an answer may be used, whatever the entry's time."""


class HttpDmsg:
    """`contracts.discovery.EntrySource`. Knows nothing where no service is set."""

    name = NAME
    is_local = False

    def __init__(self, api: DmsgApi | None, clock: Clock) -> None:
        self.salts: frozenset[bytes] | None = frozenset((DMSG, DMSG_SERVER) if api else ())
        self._api, self._clock = api, clock

    async def find(self, salt: bytes, subject: bytes) -> Record | None:
        """Return a key's record. Raises `DiscoveryError`, `HttpError`."""
        api = self._service(salt)
        if salt == DMSG_SERVER:
            rows, _ = await api.servers()
            return next((self._server(row) for row in rows if row.public == subject), None)
        entry = await api.entry(subject)
        return None if entry is None else self._record(salt, subject, entry, _plain(entry))

    async def records(self, salt: bytes) -> Records:
        """Return all records of a salt. Raises as `find`."""
        api = self._service(salt)
        if salt == DMSG_SERVER:
            rows, left_out = await api.servers()
            found = [self._server(row) for row in rows]
        else:
            rows, left_out = await api.entries()
            found = [self._record(salt, r.public, r.entry, _plain(r.entry)) for r in rows]
        note = f"{left_out} entries that their keys did not sign are left out" if left_out else ""
        return Records(tuple(found), NAME, self._clock.wall_ns(), not left_out, note)

    def _service(self, salt: bytes) -> DmsgApi:
        if self._api is None or salt not in (DMSG, DMSG_SERVER):
            raise DiscoveryError(
                "no DMSG discovery service is set",
                hint='set it: [discovery_dmsg] url = "https://dmsgd.example.net/dmsgd"',
            )
        return self._api

    def _server(self, row: Signed) -> Record:
        server = row.entry.server
        assert server is not None  # as `DmsgApi.servers` has it
        body = DmsgServerEntry(
            row.entry.static,
            server.address,
            server_type=server.server_type,
            dht_bootstrap=server.dht_bootstrap,
        )
        return self._record(DMSG_SERVER, row.public, row.entry, body)

    def _record(
        self, salt: bytes, subject: bytes, entry: DmsgEntry, body: DmsgEntry | DmsgServerEntry
    ) -> Record:
        now_s = self._clock.wall_s()
        life_s = CLIENT_S if entry.server is None else SERVER_S
        until_s = max(entry.timestamp // 10**9 + life_s, now_s + HOLDS_S)
        return Record(salt, subject, body, entry.timestamp, until_s, NAME, subject)


def _plain(entry: DmsgEntry) -> DmsgEntry:
    """Return an entry as its key said it: the type of a server is the service's word."""
    if entry.server is None or not entry.server.server_type:
        return entry
    return msgspec.structs.replace(
        entry, server=msgspec.structs.replace(entry.server, server_type="")
    )

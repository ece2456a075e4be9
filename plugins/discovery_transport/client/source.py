"""The transport discovery service as a source of entries."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from discovery_transport.client.core.entries import TP, Seen, both_sides, is_sound
from discovery_transport.client.registrar import read_entries
from skycore.contracts.discovery import Record, Records
from skycore.contracts.http import HttpResponse
from skycore.contracts.runtime import Clock
from skycore.discovery.signed import SignedClient, accepted
from skycore.errors import DiscoveryError, HttpReplyError
from skycore.model.entries import Key, Name, Text, TransportEntry

__all__ = ["HttpTransports"]

NAME: Final = "http"
HOLDS_S: Final = 60
"""For how long an answer may be used: a service does not say how long its entries live."""
ALL_PATH: Final = "/all-transports?sides=show"
NO_SERVICE: Final = (
    "no transport discovery service is set",
    'name one: --url URL, or in node.toml [discovery_transport] url = "https://tpd.example/tpd"',
)


class _Row(msgspec.Struct, frozen=True):
    """A transport as the service lists it; what it adds besides is left alone."""

    t_id: uuid.UUID
    edges: tuple[Key, Key]
    type: Name
    label: Text = ""
    latency: Annotated[float, Meta(ge=0)] = 0.0
    one_sided: bool = False
    listed_by: Text = ""


class _Whole(msgspec.Struct, frozen=True):
    """The last whole list, read."""

    etag: str
    seen: Mapping[uuid.UUID, Seen]
    unplaced: int
    """One-sided transports of which the service does not say who lists them."""


class HttpTransports:
    """`contracts.discovery.EntrySource`: what edges have registered with the service."""

    name = NAME
    is_local = False

    def __init__(self, client: SignedClient | None, clock: Clock, list_timeout_s: float) -> None:
        self.salts: frozenset[bytes] | None = frozenset({TP}) if client else frozenset()
        self._client, self._clock, self._timeout_s = client, clock, list_timeout_s
        self._whole: _Whole | None = None

    @property
    def client(self) -> SignedClient:
        """Return whom to ask. Raises `DiscoveryError` where nobody is set."""
        if self._client is None:
            raise DiscoveryError(NO_SERVICE[0], hint=NO_SERVICE[1])
        return self._client

    # --- EntrySource -----------------------------------------------------------------------------

    async def find(self, salt: bytes, subject: bytes) -> Record | None:
        """Return what an edge lists itself. Raises `DiscoveryError`, `HttpError`."""
        if salt != TP:
            return None
        response = accepted(await self._get(f"/v3/transports/edge:{subject.hex()}"), 200, 404)
        entries = read_entries(response)
        return self._record(subject, tuple(entries)) if entries else None

    async def records(self, salt: bytes) -> Records:
        """Return what every edge lists. Raises as `find`."""
        if salt != TP:
            return Records((), NAME, self._clock.wall_ns(), complete=False, note="other salt")
        whole = await self.whole()
        by_subject: dict[str, list[TransportEntry]] = {}
        for seen in whole.values():
            for lister in seen.listed_by:
                by_subject.setdefault(lister, []).append(seen.entry)
        records = tuple(
            self._record(bytes.fromhex(subject), tuple(entries))
            for subject, entries in sorted(by_subject.items())
        )
        unplaced = self._whole.unplaced if self._whole else 0
        note = f"of {unplaced} transports the service does not say who lists them"
        now_ns = self._clock.wall_ns()
        return Records(records, NAME, now_ns, not unplaced, note if unplaced else "")

    def _record(self, subject: bytes, entries: tuple[TransportEntry, ...]) -> Record:
        now_s = self._clock.wall_s()
        return Record(TP, subject, entries, self._clock.wall_ns(), now_s + HOLDS_S, NAME)

    # --- the whole list --------------------------------------------------------------------------

    async def whole(self) -> Mapping[uuid.UUID, Seen]:
        """Return every transport by id; what has not changed is not sent again.

        Raises `DiscoveryError`, `HttpError`.
        """
        held = self._whole
        response = await self._get(ALL_PATH, held.etag if held else "")
        if response.status == 304 and held is not None:
            return held.seen
        rows: list[_Row] = []
        if accepted(response, 200, 404).status == 200:
            rows = response.json(list[_Row])
        elif not _is_empty(response):
            accepted(response)
        seen, unplaced = _seen(rows)
        self._whole = _Whole(response.headers.get("etag", ""), seen, unplaced)
        return seen

    async def one(self, t_id: uuid.UUID) -> Seen | None:
        """Return one transport. Raises as `whole`."""
        response = accepted(await self._get(f"/transports/id:{t_id}?sides=show"), 200, 404)
        if response.status == 404:
            return None
        row: _Row = response.json(_Row)
        if row.t_id != t_id:
            raise HttpReplyError(f"{response.url} answered of another transport")
        return _seen([row])[0].get(t_id)

    async def _get(self, path: str, etag: str = "") -> HttpResponse:
        headers = {"if-none-match": etag} if etag else None
        return await self.client.get(path, headers=headers, timeout_s=self._timeout_s)


def _is_empty(response: HttpResponse) -> bool:
    """Tell the service's own "there are none" from a path that leads nowhere."""
    return b"transports" in response.body


def _seen(rows: Iterable[_Row]) -> tuple[Mapping[uuid.UUID, Seen], int]:
    """Return transports by id, and how many are listed by nobody knows whom."""
    lists: list[tuple[str, list[TransportEntry]]] = []
    unplaced: dict[uuid.UUID, Seen] = {}
    for row in rows:
        entry = TransportEntry(row.t_id, row.edges, row.type, row.label)
        if not is_sound(entry):
            continue
        if not row.one_sided:
            lists += [(edge, [entry]) for edge in set(row.edges)]
        elif row.listed_by in row.edges:
            lists.append((row.listed_by, [entry]))
        else:
            unplaced[row.t_id] = Seen(entry, frozenset())
    return {**unplaced, **both_sides(lists)}, len(unplaced)

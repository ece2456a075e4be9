"""dmsg.servers: the network's DMSG servers, from all sources that know any, each once.

Why all sources and not the first that answers: a server may stand in the DHT and in no discovery,
or the other way round, and one source that is down must not hide what another knows (C21). How many
sessions are free changes by itself and so stands in no `dmsg-server` record; it is looked up in the
server's own entry.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import anyio
import msgspec

from skycore.contracts.access import Level
from skycore.contracts.discovery import EntrySource, Record, Records
from skycore.contracts.rpc import RpcContext, RpcMethod, RpcService
from skycore.contracts.runtime import Clock
from skycore.discovery.sources import find_all, list_all, rank_records
from skycore.errors import DiscoveryError
from skycore.model.entries import DmsgEntry, DmsgServerEntry

__all__ = ["ServersParams", "ServersResult", "make_service"]

DMSG: Final = b"dmsg"
DMSG_SERVER: Final = b"dmsg-server"
ROWS_MAX: Final = 2_048
LOOKED_UP_MAX: Final = 256
"""Servers whose own entries are looked up."""
AT_ONCE: Final = 16


class ServersParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which source to ask; empty: all."""

    source: str = ""


class ServerRow(msgspec.Struct, frozen=True):
    """A DMSG server."""

    pk: str
    address: str
    free_sessions: int | None
    """None: nobody says."""
    dht_bootstrap: bool
    server_type: str
    """A service's word: nobody signs it."""
    source: str
    """Whose record this is."""
    sources: list[str]
    """Who else knows it."""
    signed: bool
    """Whether the server, or somebody who may, signed this record; its type is never signed."""
    age_s: float


class SourceRow(msgspec.Struct, frozen=True):
    """A source that answered."""

    name: str
    count: int
    complete: bool
    age_s: float
    note: str = ""


class ServersResult(msgspec.Struct, frozen=True):
    """The servers, and how much of the truth that is."""

    servers: list[ServerRow]
    sources: list[SourceRow]
    failed: dict[str, str]
    """Who could not be asked, and why."""
    partial: bool


class _Servers:
    """`contracts.rpc.RpcService`."""

    def __init__(self, sources: Iterable[EntrySource], clock: Clock, wait_s: float) -> None:
        self._sources, self._clock, self._wait_s = sources, clock, wait_s
        self.methods: Sequence[RpcMethod] = (
            RpcMethod(
                "dmsg.servers",
                Level.READ,
                ServersParams,
                ServersResult,
                self._list,
                "The network's DMSG servers, from every source that knows any.",
            ),
        )

    async def _list(self, params: ServersParams, context: RpcContext) -> ServersResult:
        sources = self._wanted(params.source)
        context.progress(0, 0, "asking for servers")
        listings = await list_all(sources, DMSG_SERVER, wait_s=self._wait_s)
        if not listings.by_source:
            reasons = "; ".join(f"{name}: {why}" for name, why in listings.failed.items())
            raise DiscoveryError(
                f"no source can say which DMSG servers there are ({reasons})",
                hint="is the service's address right, and does a full node run here?",
            )
        ranked = self._ranked(listings.by_source.values())
        entries = await self._entries(sources, [records[0].subject for records in ranked])
        rows = [self._row(records, entries.get(records[0].subject)) for records in ranked]
        rows.sort(key=lambda row: (-(row.free_sessions or 0), row.pk))
        return ServersResult(
            rows[:ROWS_MAX],
            [self._source(answer) for answer in listings.by_source.values()],
            dict(listings.failed),
            listings.is_partial or len(rows) > ROWS_MAX,
        )

    def _wanted(self, name: str) -> tuple[EntrySource, ...]:
        """Return the sources to ask. Raises `DiscoveryError` where there is none."""
        known = [s for s in self._sources if s.salts is None or DMSG_SERVER in s.salts]
        wanted = tuple(s for s in known if not name or s.name == name)
        if wanted:
            return wanted
        names = ", ".join(sorted(s.name for s in known))
        there_are = f"there are: {names}; " if names else ""
        raise DiscoveryError(
            f"there is no source {name!r} of DMSG servers" if name else "nobody knows DMSG servers",
            hint=f"{there_are}for HTTP name a service: --url URL, or [discovery_dmsg] url",
        )

    def _ranked(self, answers: Iterable[Records]) -> list[tuple[Record, ...]]:
        """Return each server's records, the one to believe first; those that ended are left out."""
        by_subject: dict[bytes, list[Record]] = defaultdict(list)
        for answer in answers:
            for record in answer.records:
                if isinstance(record.body, DmsgServerEntry):
                    by_subject[record.subject].append(record)
        now_s = self._clock.wall_s()
        ranked = (rank_records(by_subject[subject], now_s) for subject in sorted(by_subject))
        return [records for records in ranked if records[0].body is not None]

    async def _entries(
        self, sources: Sequence[EntrySource], subjects: Sequence[bytes]
    ) -> Mapping[bytes, DmsgEntry]:
        """Look up the servers' own entries; who does not answer in time has none."""
        found: dict[bytes, DmsgEntry] = {}
        turns = anyio.Semaphore(AT_ONCE)

        async def look(subject: bytes) -> None:
            async with turns:
                answer = await find_all(sources, DMSG, subject, self._clock, wait_s=self._wait_s)
            if answer.best is not None and isinstance(answer.best.body, DmsgEntry):
                found[subject] = answer.best.body

        with anyio.move_on_after(self._wait_s):
            async with anyio.create_task_group() as tasks:
                for subject in subjects[:LOOKED_UP_MAX]:
                    tasks.start_soon(look, subject)
        return found

    def _row(self, records: Sequence[Record], entry: DmsgEntry | None) -> ServerRow:
        best = records[0]
        body: DmsgServerEntry = best.body
        server = entry.server if entry is not None else None
        types = [r.body.server_type for r in records if isinstance(r.body, DmsgServerEntry)]
        kind = next((kind for kind in types if isinstance(kind, str) and kind), "")
        return ServerRow(
            best.subject.hex(),
            body.address,
            server.available_sessions if server is not None else None,
            body.dht_bootstrap,
            kind,
            best.source,
            sorted({r.source for r in records}),
            best.signer is not None,
            self._age_s(best.as_of_ns),
        )

    def _source(self, answer: Records) -> SourceRow:
        age_s = self._age_s(answer.as_of_ns)
        return SourceRow(answer.source, len(answer.records), answer.complete, age_s, answer.note)

    def _age_s(self, as_of_ns: int) -> float:
        return round(max(0.0, (self._clock.wall_ns() - as_of_ns) / 1e9), 1)


def make_service(sources: Iterable[EntrySource], clock: Clock, wait_s: float) -> RpcService:
    """Return the method `dmsg.servers`; `sources` is `Live[EntrySource]`."""
    return _Servers(sources, clock, wait_s)

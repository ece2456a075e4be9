"""svc.ls: the network's services, from all sources that know any, each once.

Why all sources and not the first that answers: one that is down, slow or wrong must not hide what
another knows (C21); what is not known to be everything is marked, never shown as all (L18).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from discovery_service.client.settings import ServiceSettings
from discovery_service.entries import ALIASES
from skycore import Live
from skycore.contracts.access import Level
from skycore.contracts.discovery import EntrySource, Records
from skycore.contracts.rpc import RpcContext, RpcMethod, RpcService
from skycore.contracts.runtime import Clock
from skycore.discovery.sources import MergedEntry, list_all, merge_sets
from skycore.errors import DiscoveryError
from skycore.model.entries import ServiceEntry

__all__ = ["LsParams", "LsResult", "ServiceRow", "SourceRow", "open_methods"]

SALT: Final = b"svc"
ROWS_MAX: Final = 10_000


class LsParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which services, from which source; empty: all."""

    type: str = ""
    source: str = ""


class ServiceRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """A service, and who says so."""

    address: str
    type: str
    sources: list[str]
    signed: bool
    """Whether somebody who may signed it; else a server says so, without proof."""
    age_s: float
    version: str = ""
    country: str = ""
    region: str = ""
    info: dict[str, Any] | None = None
    local_ips: list[str] = []


class SourceRow(msgspec.Struct, frozen=True):
    """A source that answered."""

    name: str
    count: int
    """Keys that offer something, of any type."""
    complete: bool
    age_s: float
    note: str = ""


class LsResult(msgspec.Struct, frozen=True):
    """The services, and how much of the truth that is."""

    services: list[ServiceRow]
    sources: list[SourceRow]
    failed: dict[str, str]
    """Who could not be asked, and why."""
    partial: bool
    """Somebody could not be asked, or nobody who was knows everything."""


class _Methods:
    """`contracts.rpc.RpcService`."""

    def __init__(self, sources: Iterable[EntrySource], clock: Clock, wait_s: float) -> None:
        self._sources, self._clock, self._wait_s = sources, clock, wait_s
        self.methods: Sequence[RpcMethod] = (
            RpcMethod("svc.ls", Level.READ, LsParams, LsResult, self.ls,
                      "The network's services, from every source that knows any."),
        )  # fmt: skip

    async def ls(self, params: LsParams, context: RpcContext) -> LsResult:
        """List services. Raises `DiscoveryError` where nobody can be asked."""
        context.progress(0, 0, "asking for services")
        listings = await list_all(self._wanted(params.source), SALT, wait_s=self._wait_s)
        if not listings.by_source:
            reasons = "; ".join(f"{name}: {why}" for name, why in listings.failed.items())
            raise DiscoveryError(
                f"no source can say which services there are ({reasons})",
                hint="is the service's address right, and does a full node run here?",
            )
        records = [record for answer in listings.by_source.values() for record in answer.records]
        merged = merge_sets(records, lambda entry: bytes(entry.set_key), self._clock.wall_s())
        kind = ALIASES.get(params.type, params.type)
        rows = [self._row(one) for one in merged if _is(one.body, kind)]
        is_whole = any(answer.complete for answer in listings.by_source.values())
        return LsResult(
            rows[:ROWS_MAX],
            [self._source(answer) for answer in listings.by_source.values()],
            dict(listings.failed),
            bool(listings.failed) or not is_whole or len(rows) > ROWS_MAX,
        )

    def _wanted(self, name: str) -> tuple[EntrySource, ...]:
        """Return the sources to ask. Raises `DiscoveryError` where there is none."""
        known = [s for s in self._sources if s.salts is None or SALT in s.salts]
        wanted = tuple(s for s in known if not name or s.name == name)
        if wanted:
            return wanted
        names = ", ".join(sorted(s.name for s in known))
        there_are = f"there are: {names}; " if names else ""
        raise DiscoveryError(
            f"there is no source {name!r} of services" if name else "nobody knows services",
            hint=f"{there_are}for HTTP name a service: --url URL, or [discovery_service] url",
        )

    def _row(self, one: MergedEntry) -> ServiceRow:
        entry: ServiceEntry = one.body
        return ServiceRow(
            entry.address,
            entry.type,
            list(one.sources),
            bool(one.signers),
            self._age_s(one.as_of_ns),
            entry.version,
            entry.geo.country if entry.geo else "",
            entry.geo.region if entry.geo else "",
            dict(entry.info) if entry.info else None,
            list(entry.local_ips) if entry.display_node_ip else [],
        )

    def _source(self, answer: Records) -> SourceRow:
        age_s = self._age_s(answer.as_of_ns)
        return SourceRow(answer.source, len(answer.records), answer.complete, age_s, answer.note)

    def _age_s(self, as_of_ns: int) -> float:
        return round(max(0.0, (self._clock.wall_ns() - as_of_ns) / 1e9), 1)


def _is(body: Any, kind: str) -> bool:
    return isinstance(body, ServiceEntry) and kind in ("", body.type)


@asynccontextmanager
async def open_methods(
    settings: ServiceSettings, sources: Live[EntrySource], clock: Clock
) -> AsyncIterator[RpcService]:
    """Offer svc.ls."""
    yield _Methods(sources, clock, settings.wait_s)

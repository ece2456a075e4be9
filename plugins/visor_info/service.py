"""Overview, Health and Summary: what a node is, how it is, and everything its parts say.

The names are Skywire's, so that whoever manages visors finds them here. Health asks every
StatusSource; the worst word wins, and a part that does not answer is not silently left out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from skycore import Live
from skycore.contracts.access import Level
from skycore.contracts.rpc import RpcContext, RpcMethod, RpcService
from skycore.contracts.runtime import Clock, Identity, Lifecycle, NodeInfo
from skycore.contracts.status import Health, Status, StatusSource
from skycore.contracts.transport import Transport, Transports
from skycore.health import ask_all, worst
from visor_info.settings import VisorInfoSettings

__all__ = ["open_info"]

TRANSPORTS_SHOWN_MAX = 5_000


class NoParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing to choose."""


class TransportRow(msgspec.Struct, frozen=True):
    """A live transport."""

    id: str
    type: str
    remote: str
    label: str
    rtt_ms: float | None
    bytes_sent: int
    bytes_received: int


class OverviewReply(msgspec.Struct, frozen=True):
    """What a node is."""

    public_key: str
    version: str
    network: str
    profile: str
    plugins: tuple[str, ...]
    uptime_s: float
    ready: bool
    listening: tuple[str, ...]
    """Where it takes connections, as type://endpoint."""
    transport_count: int
    transports: tuple[TransportRow, ...]
    """The first 5,000."""


class PartHealth(msgspec.Struct, frozen=True):
    """How one part is."""

    name: str
    health: str
    summary: str


class HealthReply(msgspec.Struct, frozen=True):
    """How a node is: as its worst part."""

    health: str
    reasons: tuple[str, ...]
    """Why it is not ok; empty when it is."""
    parts: tuple[PartHealth, ...]


class PartSummary(msgspec.Struct, frozen=True):
    """Everything a part says."""

    name: str
    health: str
    summary: str
    fields: Mapping[str, Any]


class SummaryReply(msgspec.Struct, frozen=True):
    """Overview, health, and every part's own words."""

    overview: OverviewReply
    health: HealthReply
    parts: tuple[PartSummary, ...]


class _Info:
    def __init__(
        self,
        settings: VisorInfoSettings,
        info: NodeInfo,
        identity: Identity,
        clock: Clock,
        lifecycle: Lifecycle,
        sources: Live[StatusSource],
        transports: Transports | None,
    ) -> None:
        self._timeout_s = settings.status_timeout_s
        self._info = info
        self._identity = identity
        self._clock = clock
        self._lifecycle = lifecycle
        self._sources = sources
        self._transports = transports
        self._started = clock.now()
        self.methods: Sequence[RpcMethod] = (
            RpcMethod("Overview", Level.READ, NoParams, OverviewReply, self.overview,
                      "What this node is: key, version, plugins, transports."),
            RpcMethod("Health", Level.READ, NoParams, HealthReply, self.health,
                      "How this node is, and why if not well."),
            RpcMethod("Summary", Level.READ, NoParams, SummaryReply, self.summary,
                      "Overview, Health and everything that parts say."),
        )  # fmt: skip

    async def overview(self, params: NoParams, context: RpcContext) -> OverviewReply:
        return self._overview()

    async def health(self, params: NoParams, context: RpcContext) -> HealthReply:
        return _health(await self._ask_all())

    async def summary(self, params: NoParams, context: RpcContext) -> SummaryReply:
        told = await self._ask_all()
        parts = tuple(
            PartSummary(name, status.health.value, status.summary, status.fields)
            for name, status in told
        )
        return SummaryReply(self._overview(), _health(told), parts)

    def _overview(self) -> OverviewReply:
        live = self._transports.all() if self._transports else ()
        listening = self._transports.listening() if self._transports else ()
        return OverviewReply(
            public_key=self._identity.public.hex(),
            version=self._info.version,
            network=self._info.network,
            profile=self._info.profile,
            plugins=self._info.plugins,
            uptime_s=round(self._clock.now() - self._started, 1),
            ready=self._lifecycle.ready,
            listening=tuple(f"{a.kind}://{a.endpoint}" for a in listening),
            transport_count=len(live),
            transports=tuple(_row(t) for t in live[:TRANSPORTS_SHOWN_MAX]),
        )

    async def _ask_all(self) -> Sequence[tuple[str, Status]]:
        return await ask_all(self._sources, self._timeout_s)


def _row(transport: Transport) -> TransportRow:
    rtt = transport.rtt_s
    return TransportRow(
        str(transport.id),
        transport.type,
        transport.remote.hex(),
        transport.label,
        None if rtt is None else round(rtt * 1000, 2),
        transport.bytes_sent,
        transport.bytes_received,
    )


def _health(told: Sequence[tuple[str, Status]]) -> HealthReply:
    return HealthReply(
        worst(told).value,
        tuple(f"{name}: {s.summary}" for name, s in told if s.health is not Health.OK),
        tuple(PartHealth(name, s.health.value, s.summary) for name, s in told),
    )


@asynccontextmanager
async def open_info(
    settings: VisorInfoSettings,
    info: NodeInfo,
    identity: Identity,
    clock: Clock,
    lifecycle: Lifecycle,
    sources: Live[StatusSource],
    transports: Transports | None,
) -> AsyncIterator[RpcService]:
    """Offer the methods."""
    yield _Info(settings, info, identity, clock, lifecycle, sources, transports)

"""tp.ls, tp.add, tp.rm, and the loop that brings kept transports back.

Why kept: a transport that a person made is meant to be there tomorrow. The list is small state in
the data folder; losing a link only means that the loop dials again.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import msgspec

from skycore.contracts.access import Level
from skycore.contracts.rpc import RpcContext, RpcMethod, RpcService
from skycore.contracts.runtime import Clock, Entropy, Files, Identity, Lifecycle
from skycore.contracts.status import Health, Status, StatusSource
from skycore.contracts.transport import DIRECT, Transport, Transports
from skycore.errors import InvalidKeyError, RpcError, TransportError
from skycore.model.addresses import Address, Contact, split_host_port
from skycore.model.keys import PubKey, parse_public, short
from skycore.tasks import backoff_s, every
from visor_transports.settings import TransportsByHandSettings

__all__ = ["open_transport_methods", "open_transport_status"]

log = logging.getLogger(__name__)
STATE = "transports.json"
ORDINARY = "stcpr"
"""What an address is of where nobody says."""
DIRECT_S = 5.0
"""How long who adds a transport waits for a direct one where a relayed one stands: what opening two
NATs takes."""
DIRECT_LONGEST_S = 300.0
"""Longest pause between tries to get a direct transport beside a relayed one."""


class TransportRow(msgspec.Struct, frozen=True):
    """A live transport, for people."""

    id: str
    type: str
    remote: str
    label: str
    dialled: bool
    age_s: float
    rtt_ms: float | None
    bytes_sent: int
    bytes_received: int
    loss: float | None = None
    """Share of what was sent that was lost, 0 to 1; null where the type does not know."""
    silent: bool = False
    """Whether the other end answers no pings: nobody is given this transport meanwhile."""


class LsParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing to choose."""


class AddParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom to link to; where, if that is not known; by which type alone, if any will not do."""

    remote: str
    address: str | None = None
    type: str | None = None


class RmParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A transport's id, or the key at its other end."""

    transport: str


class Kept(msgspec.Struct):
    """What a person wants to be there."""

    addresses: list[Address] = []
    types: list[str] = []
    """A transport of each of these; empty: one of whichever type works."""


class _Tries:
    """How often a direct transport was tried in vain, and when it is tried again."""

    def __init__(self) -> None:
        self.failed = 0
        self.at = 0.0


class Removed(msgspec.Struct, frozen=True):
    """What was closed."""

    closed: list[str]
    forgotten: bool


class _Methods:
    def __init__(
        self,
        settings: TransportsByHandSettings,
        transports: Transports,
        identity: Identity,
        clock: Clock,
        entropy: Entropy,
        files: Files,
    ) -> None:
        self._dice = entropy.random()
        self._tries: dict[PubKey, _Tries] = {}
        self._settings = settings
        self._transports = transports
        self._suite = identity.network.suite
        self._clock = clock
        self._files = files
        self._kept = self._load()
        self.methods: Sequence[RpcMethod] = (
            RpcMethod("tp.ls", Level.READ, LsParams, list[TransportRow], self.ls,
                      "List live transports."),
            RpcMethod("tp.add", Level.OPERATE, AddParams, TransportRow, self.add,
                      "Make a transport and keep it over restarts."),
            RpcMethod("tp.rm", Level.OPERATE, RmParams, Removed, self.rm,
                      "Close a transport and forget it."),
        )  # fmt: skip

    def _load(self) -> dict[str, Kept]:
        data = self._files.read(STATE)
        if data is None:
            return {}
        try:
            read = msgspec.json.decode(data, type=dict[str, Kept | list[Address]])
            kept = {k: Kept(v) if isinstance(v, list) else v for k, v in read.items()}
            for text in kept:
                parse_public(self._suite, text)
        except (msgspec.DecodeError, UnicodeDecodeError, InvalidKeyError) as bad:
            log.warning("kept transports are unreadable and ignored error=%r", str(bad))
            return {}
        return kept

    def _save(self) -> None:
        self._files.write(STATE, msgspec.json.encode(self._kept))

    def _row(self, transport: Transport) -> TransportRow:
        return TransportRow(
            str(transport.id),
            transport.type,
            transport.remote.hex(),
            transport.label,
            transport.dialled,
            round(self._clock.now() - transport.opened_at, 1),
            None if transport.rtt_s is None else round(transport.rtt_s * 1000, 2),
            transport.bytes_sent,
            transport.bytes_received,
            None if transport.loss is None else round(transport.loss, 4),
            transport.is_silent,
        )

    async def ls(self, params: LsParams, context: RpcContext) -> list[TransportRow]:
        return [self._row(t) for t in self._transports.all()]

    async def add(self, params: AddParams, context: RpcContext) -> TransportRow:
        remote = parse_public(self._suite, params.remote)
        kind, types = params.type, self._transports.types
        if kind is not None and kind not in types:
            raise RpcError(
                f"this node has no transport type {kind!r}",
                hint=f"it has: {', '.join(types) or 'none'}",
            )
        addresses: list[Address] = []
        if params.address is not None:
            split_host_port(params.address)
            addresses = [Address(kind or ORDINARY, params.address)]
            self._transports.addresses.learn(Contact(remote, tuple(addresses)), pinned=True)
        if params.remote not in self._kept and len(self._kept) >= self._settings.kept_max:
            raise RpcError(
                f"{self._settings.kept_max} transports are kept already",
                hint="remove one with `skynode tp rm`, or raise visor_transports.kept_max",
            )
        if self._is_only_relayed(remote, kind):
            with anyio.move_on_after(DIRECT_S):
                await self._try_direct(remote)
        row = self._row(await self._transports.ensure(remote, "user", kind=kind))
        kept = self._kept.setdefault(params.remote, Kept())
        others = [a for a in kept.addresses if a.kind not in {b.kind for b in addresses}]
        kept.addresses = [*others, *addresses]
        kept.types = sorted({*kept.types, kind}) if kind is not None else kept.types
        self._save()
        return row

    async def rm(self, params: RmParams, context: RpcContext) -> Removed:
        wanted = params.transport
        closed = []
        remotes = {wanted}
        for transport in self._transports.all():
            if wanted in (str(transport.id), transport.remote.hex()):
                remotes.add(transport.remote.hex())
                await self._transports.close(transport.id, "removed by hand")
                closed.append(str(transport.id))
        forgotten = [r for r in remotes if self._kept.pop(r, None) is not None]
        if not closed and not forgotten:
            raise RpcError(f"there is no transport {wanted}", hint="`skynode tp ls` lists them")
        for text in forgotten:
            self._tries.pop(PubKey(bytes.fromhex(text)), None)
        self._save()
        return Removed(closed, bool(forgotten))

    async def bring_back(self) -> None:
        """Dial what a person added and is not there now: all at once, none waits for another."""
        async with anyio.create_task_group() as tasks:
            for text, kept in self._kept.items():
                remote = PubKey(bytes.fromhex(text))
                for kind in kept.types or (None,):
                    if self._transports.find(remote, kind) is None:
                        tasks.start_soon(self._bring_back, remote, kind, tuple(kept.addresses))
                    elif self._is_only_relayed(remote, kind) and self._is_due(remote):
                        tasks.start_soon(self._try_direct, remote)

    def _is_only_relayed(self, remote: PubKey, kind: str | None) -> bool:
        find = self._transports.find
        return kind is None and find(remote) is not None and find(remote, DIRECT) is None

    def _is_due(self, remote: PubKey) -> bool:
        return remote not in self._tries or self._clock.now() >= self._tries[remote].at

    async def _try_direct(self, remote: PubKey) -> None:
        """Try direct types beside a relayed transport; the next try waits longer, if it fails."""
        tries = self._tries.setdefault(remote, _Tries())
        tries.failed += 1
        first_s = self._settings.retry_s
        wait_s = backoff_s(tries.failed, first_s, max(first_s, DIRECT_LONGEST_S), self._dice)
        tries.at = self._clock.now() + wait_s
        try:
            link = await self._transports.ensure(remote, "user", kind=DIRECT)
        except TransportError as bad:
            log.debug("kept transport stays relayed remote=%s error=%r", short(remote), str(bad))
        else:
            self._tries.pop(remote, None)
            log.info("kept transport is direct now remote=%s type=%s", short(remote), link.type)

    async def _bring_back(
        self, remote: PubKey, kind: str | None, addresses: tuple[Address, ...]
    ) -> None:
        if kind is not None and kind not in self._transports.types:
            return  # its plugin is not active now
        if addresses:
            self._transports.addresses.learn(Contact(remote, addresses), pinned=True)
        try:
            await self._transports.ensure(remote, "user", kind=kind)
        except TransportError as bad:
            log.debug("kept transport is still away remote=%s error=%r", short(remote), str(bad))
        else:
            log.info("kept transport is back remote=%s", short(remote))


@asynccontextmanager
async def open_transport_methods(
    settings: TransportsByHandSettings,
    transports: Transports,
    identity: Identity,
    clock: Clock,
    entropy: Entropy,
    files: Files,
    lifecycle: Lifecycle,
) -> AsyncIterator[RpcService]:
    """Offer the methods, and keep what was added by hand alive."""
    methods = _Methods(settings, transports, identity, clock, entropy, files)

    async def keep() -> None:
        await lifecycle.wait_ready()
        await every(settings.retry_s, methods.bring_back, name="kept transports")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep)
        yield methods
        tasks.cancel_scope.cancel()


class _Status:
    name = "transports"

    def __init__(self, transports: Transports) -> None:
        self._transports = transports

    async def status(self) -> Status:
        """Return what is live, and what was refused by the name of its error."""
        live, counters = self._transports.all(), dict(sorted(self._transports.counters.items()))
        failed = counters.get("handshakes_failed", 0)
        return Status(
            Health.OK,
            f"{len(live)} transports, {failed} handshakes failed",
            {"live": len(live), "counters": counters},
        )


@asynccontextmanager
async def open_transport_status(transports: Transports) -> AsyncIterator[StatusSource]:
    """Tell what the transport manager counts."""
    yield _Status(transports)

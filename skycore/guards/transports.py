"""The transport manager: dials, secures, keeps one live link per peer and type, dispatches.

Why in the kernel: a transport type moves bytes and Security proves who is there; this is where the
two meet, so no type can forget the handshake and no payload can name its sender. The tables are
plain dicts changed between two awaits; there is no lock, so there is no lock order
(docs/protocols/packet.md has the rules, wire section 3).
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from functools import partial
from itertools import islice

import anyio
from anyio.abc import TaskGroup

from skycore.contracts.discovery import EntrySource
from skycore.contracts.runtime import Clock, Entropy, Identity, Lifecycle
from skycore.contracts.security import SecureChannel, Security
from skycore.contracts.transport import (
    DIRECT,
    Addresses,
    Listener,
    PacketHandler,
    RelayType,
    Transport,
    TransportDown,
    Transports,
    TransportType,
    TransportUp,
)
from skycore.errors import DialError, PluginConflictError, TransportError
from skycore.events import Events
from skycore.guards.addresses import AddressBook, as_seen
from skycore.guards.dials import Dial, Dials
from skycore.guards.handshakes import Handshakes
from skycore.guards.inbound import Inbound
from skycore.guards.lines import Line
from skycore.guards.links import LABELS, PING_TICKS, Link
from skycore.guards.linktable import LinkTable
from skycore.guards.outbound import Outbound, kinds_of
from skycore.guards.refusals import Refusals
from skycore.guards.resolving import Resolver
from skycore.guards.transports_settings import TransportsSettings
from skycore.model.addresses import Address, Contact
from skycore.model.keys import PubKey, short
from skycore.model.limits import HELLO_ADDRESSES_MAX
from skycore.model.packets import transport_id
from skycore.tasks import every
from skycore.wiring import Live

__all__ = ["TransportManager", "TransportsSettings", "open_transports"]

log = logging.getLogger(__name__)

STOP_S = 1.0
NOBODY: Live[EntrySource] = Live(())
OWN_PACKET_TYPES = frozenset((6, 8, 9))
"""Error, ping and pong belong to the link."""


def relays_last(types: Sequence[TransportType]) -> Sequence[TransportType]:
    """Return the types in order of preference: direct ones by their plugins' names, then relays."""
    return sorted(types, key=lambda one: isinstance(one, RelayType))


def _stronger(one: str, other: str) -> str:
    return max(one, other, key=LABELS.index)


class TransportManager:
    """All links of this node. `contracts.transport.Transports`."""

    def __init__(
        self,
        settings: TransportsSettings,
        types: Sequence[TransportType],
        security: Security,
        identity: Identity,
        clock: Clock,
        entropy: Entropy,
        events: Events,
        tasks: TaskGroup,
        sources: Live[EntrySource] = NOBODY,
    ) -> None:
        self.clock = clock
        self.handlers: dict[int, PacketHandler] = {}
        self.inbounds: dict[str, Inbound] = {}
        self.refusals = Refusals(clock)
        self.counters: Counter[str] = self.refusals.counters
        """What happened since the start: accepted, handshakes failed, dials failed and so on."""
        self._settings = settings
        self._types = {one.name: one for one in relays_last(types)}
        self._security = security
        self._own = identity.public
        self._events = events
        self._tasks = tasks
        self._dice = entropy.random()
        self._listeners: list[Listener] = []
        self._callbacks: list[Callable[[Transport, bool], None]] = []
        self._table = LinkTable(
            identity.public,
            self._types,
            clock,
            live_max=settings.transports_max,
            ephemeral_idle_s=settings.ephemeral_idle_s,
            on_up=self._up,
        )
        self.dials = Dials(
            self._dial,
            tasks,
            clock,
            self._dice,
            at_once_max=settings.dials_max,
            limit_s=settings.dial_limit_s,
            first_s=settings.dial_backoff_first_s,
            longest_s=settings.dial_backoff_longest_s,
        )
        self._book = AddressBook(keys_max=settings.addresses_max, on_new=self.dials.clear)
        self.addresses: Addresses = self._book
        self._outbound = Outbound(
            self._types,
            security,
            self._book,
            Resolver(sources, clock, self.counters, self.listening, wait_s=settings.lookup_s),
            self.counters,
            listening=self.listening,
            learn=self._learn,
            welcome=lambda kind, label, channel, line: self._admit(
                kind, True, label, channel, line
            ),
            known_limit_s=settings.dial_limit_s / 2,
        )

    async def _dial(self, remote: PubKey, dial: Dial) -> Link:
        return await self._outbound.dial(remote, dial)

    # --- the contract ----------------------------------------------------------------------------

    @property
    def types(self) -> Sequence[str]:
        """Return the names of the types that there are, those tried first before others."""
        return tuple(self._types)

    def all(self) -> Sequence[Transport]:
        """Return the live transports."""
        return self._table.live()

    def find(self, remote: bytes, kind: str | None = None) -> Transport | None:
        """Return the best live transport to a key that is not silent."""
        return self._table.find(remote, kinds_of(self._types, kind))

    def listening(self) -> Sequence[Address]:
        """Return where this node takes connections."""
        found = (a for listener in self._listeners for a in listener.addresses)
        return tuple(islice(found, HELLO_ADDRESSES_MAX))

    async def ensure(
        self,
        remote: PubKey,
        label: str = "ephemeral",
        *,
        look_up: bool = True,
        kind: str | None = None,
    ) -> Transport:
        """Return the live transport to a key, or make one; parallel calls share one dial."""
        if label not in LABELS:
            raise ValueError(f"label {label!r} is none of {', '.join(LABELS)}")
        if kind not in (None, DIRECT, *self._types):
            raise ValueError(f"type {kind!r} is none of {', '.join(self._types)}")
        if remote == self._own:
            raise DialError("this key is our own", hint="ask this node directly")
        kinds = kinds_of(self._types, kind)
        link = self._table.find(remote, kinds)
        if link is None:
            self._outbound.check_known(remote, look_up=look_up, kind=kind)
            made = await self.dials.join(remote, label, _stronger, look_up=look_up, kind=kind)
            link = self._table.find(remote, kinds)
            if link is None:
                raise DialError(f"the transport to {short(remote)} was lost at once: {made.closed}")
        link.strengthen(label)
        return link

    async def close(self, transport_id: uuid.UUID, reason: str) -> bool:
        """Close a transport; False where there is none with this id."""
        found = False
        while (link := self._table.get(transport_id)) is not None:  # one that drains may follow
            found = True
            await link.aclose(reason)
        return found

    @contextmanager
    def claim(self, packet_type: int, handler: PacketHandler) -> Iterator[None]:
        """Receive a packet type while the context lasts. Raises `PluginConflictError` if taken."""
        if packet_type in self.handlers or packet_type in OWN_PACKET_TYPES:
            raise PluginConflictError(f"packet type {packet_type} is taken")
        self.handlers[packet_type] = handler
        try:
            yield
        finally:
            del self.handlers[packet_type]

    @contextmanager
    def _on_change(self, callback: Callable[[Transport, bool], None]) -> Iterator[None]:
        self._callbacks.append(callback)
        try:
            yield
        finally:
            self._callbacks.remove(callback)

    def on_change(
        self, callback: Callable[[Transport, bool], None]
    ) -> AbstractContextManager[None]:
        """Be told of each transport that comes up (True) or is gone (False)."""
        return self._on_change(callback)

    # --- what links tell -------------------------------------------------------------------------

    def link_closed(self, link: Link) -> None:
        """Take a link out of the tables, the moment it begins to close."""
        self._table.closed(link)

    def link_ended(self, link: Link) -> None:
        """Tell everybody that a link is gone; called from its own task."""
        self._table.ended(link)
        for handler in tuple(self.handlers.values()):
            try:
                handler.closed(link)
            except Exception:
                log.exception("closed() failed handler=%s", type(handler).__qualname__)
        if link.announced:
            link.announced = False
            log.log(
                _level(link),
                "transport down pk=%s type=%s reason=%r",
                *(short(link.remote), link.type, link.closed),
            )
            self._events.publish(TransportDown(link.id, link.remote, link.type, link.closed))
            self._changed(link, up=False)

    def _up(self, link: Link) -> None:
        if link.announced:  # it drained, and has its place again
            return
        link.announced = True
        log.log(
            _level(link),
            "transport up pk=%s type=%s dialled=%s label=%s",
            *(short(link.remote), link.type, link.dialled, link.label),
        )
        self.dials.clear(link.remote)
        self._events.publish(TransportUp(link.id, link.remote, link.type, link.dialled, link.label))
        self._changed(link, up=True)

    def _changed(self, link: Link, *, up: bool) -> None:
        for callback in tuple(self._callbacks):
            try:
                callback(link, up)
            except Exception:
                log.exception("on_change callback failed")

    # --- both ways -------------------------------------------------------------------------------

    def _learn(self, channel: SecureChannel, host: str) -> None:
        listening = as_seen(channel.hello.listening[:HELLO_ADDRESSES_MAX], host)
        self.addresses.learn(Contact(channel.remote, listening))

    def _admit(
        self, kind: str, dialled: bool, label: str, channel: SecureChannel, line: Line
    ) -> Link:
        """Make the link and give it its place and its task. Nothing here waits.

        Raises `TransportError` where there is no place.
        """
        if channel.remote == self._own:
            raise TransportError("this is our own key at the other end")
        interval = self._settings.ping_interval_s
        link = Link(
            self,
            channel,
            link_id=transport_id(self._own, channel.remote, kind),
            transport_type=kind,
            dialled=dialled,
            label=label,
            first_ping_s=self._dice.uniform(0.0, interval),
            ping_interval_s=interval,
            host=line.host,
            loss=lambda: line.loss,
            is_watched=line.is_watched,
        )
        self._table.admit(link)
        self._tasks.start_soon(link.run)
        return link

    # --- start and stop --------------------------------------------------------------------------

    async def look_after(self) -> None:
        """Do the periodic work of all links: one task, PING_TICKS times per ping interval."""
        self._table.look_after()

    def inbound(self, kind: TransportType, listener: Listener) -> Inbound:
        """Return the accepting side of a type; its addresses are asked for when they are told."""
        self._listeners.append(listener)

        def welcome(channel: SecureChannel, line: Line) -> None:
            self._learn(channel, line.host)
            self._admit(kind.name, False, LABELS[0], channel, line)

        side = self.inbounds[kind.name] = Inbound(
            kind,
            listener,
            self._security,
            Handshakes(
                self.clock,
                places=self._settings.handshakes_max,
                places_per_host=self._settings.handshakes_per_host_max,
            ),
            listening=self.listening,
            welcome=welcome,
            refusals=self.refusals,
        )
        return side

    async def stop(self) -> None:
        """Close every link, all at once, with a moment for goodbyes."""
        async with anyio.create_task_group() as closing:
            for link in self._table.open():
                closing.start_soon(link.aclose, "the node stops")


def _level(link: Link) -> int:
    """Return how loud a link's ups and downs are: lookups come and go, and strangers too."""
    return logging.DEBUG if link.label == LABELS[0] else logging.INFO


@asynccontextmanager
async def open_transports(
    settings: TransportsSettings,
    types: tuple[TransportType, ...],
    security: Security,
    identity: Identity,
    clock: Clock,
    entropy: Entropy,
    lifecycle: Lifecycle,
    events: Events,
    sources: Live[EntrySource] = NOBODY,
) -> AsyncIterator[Transports]:
    """Run the transport manager: listeners are bound now, strangers accepted once we are ready."""
    names = [one.name for one in types]
    for name in names:
        if names.count(name) > 1:
            raise PluginConflictError(f"two transport types are called {name!r}")
        if name == DIRECT:
            raise PluginConflictError(f"a transport type cannot be called {name!r}")
    async with AsyncExitStack() as stack:
        # bound before there is a task group: a taken port is then an error and not a group of one
        bound = [
            (kind, await stack.enter_async_context(kind.listen())) for kind in relays_last(types)
        ]
        tasks = await stack.enter_async_context(anyio.create_task_group())
        manager = TransportManager(
            settings, types, security, identity, clock, entropy, events, tasks, sources
        )
        for address in (a for _, listener in bound for a in listener.addresses):
            log.info("listening type=%s endpoint=%s", address.kind, address.endpoint)
        sides = [manager.inbound(kind, listener) for kind, listener in bound]
        for side in sides:  # all addresses are known before anybody is told them
            tasks.start_soon(side.run, lifecycle, tasks)
        tasks.start_soon(manager.dials.ending.watch)
        tick_s = settings.ping_interval_s / PING_TICKS
        tasks.start_soon(partial(every, tick_s, manager.look_after, name="links", at_once=False))
        try:
            yield manager
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_S):
                await manager.stop()
            tasks.cancel_scope.cancel()

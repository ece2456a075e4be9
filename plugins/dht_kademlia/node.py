"""The Kademlia node: routing table, calls that keep it true, and lookups that run.

Why one object of its own contract: Dht, Mirror, RPC methods and status are four faces of it, each
a part by itself, so that whoever needs one of them does not need the others.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup

from dht_kademlia.client import Client, Meter
from dht_kademlia.core.contacts import has_global
from dht_kademlia.core.crates import Sent
from dht_kademlia.core.hints import Hints
from dht_kademlia.core.holders import DUTY, Holders, version_of
from dht_kademlia.core.lookup import PATIENCE_S, Lookup
from dht_kademlia.core.messages import FindNode, Message, Nodes, Ping, Pong
from dht_kademlia.core.routing_table import K, RoutingTable
from dht_kademlia.core.waiting import Waiting
from dht_kademlia.settings import KademliaSettings
from dht_kademlia.standing import Standing
from skycore.contracts.dht import DhtMode, PeerInfo, SyncReport
from skycore.contracts.runtime import Clock, Identity
from skycore.contracts.store import Items
from skycore.contracts.transport import Transports
from skycore.errors import (
    ProtocolError,
    RemoteProtocolError,
    ReplyError,
    SkycoreError,
    TransportError,
)
from skycore.jsonrpc.turns import TaskPool
from skycore.model.addresses import Address, Contact
from skycore.model.items import MutableItem
from skycore.model.keys import short
from skycore.model.limits import CALL_TIMEOUT_S
from skycore.model.numbers import DhtMethod
from skycore.tasks import Ending

__all__ = ["SETTLE", "Kademlia", "PeerChanged", "Stats"]

log = logging.getLogger(__name__)

LOOKUPS_MAX = 64
BACKGROUND_MAX = 512
SETTLE = 3
"""A lookup for a place to put is over when this many of the nearest answered with nobody nearer."""

Ask = Callable[[Contact], Awaitable[None]]


@dataclass(frozen=True)
class PeerChanged:
    """Event: a contact entered the routing table, or left it."""

    public: bytes
    entered: bool
    peers: int


@dataclass
class Stats:
    """Counters for status; each true since the start."""

    lookups: Counter[str] = field(default_factory=Counter)
    reads: Counter[str] = field(default_factory=Counter)
    """How reads were answered: local, one_hop, iterative (docs/protocols/dht.md, "Reads")."""
    answers: Counter[str] = field(default_factory=Counter)
    """The same with how they ended, as "source.outcome": one_hop.found, local.miss."""
    sync_bytes: Counter[str] = field(default_factory=Counter)
    """Bytes both ways of what keeps stores in step: pull, reconcile, watch."""
    contacts_left: int = 0
    """Contacts dropped from the routing table for not answering."""
    calls_served: int = 0
    calls_failed: int = 0
    malformed: int = 0
    """Frames of peers that were none, and ended their stream."""
    puts: int = 0
    replicas: int = 0
    """Stored replicas of all puts together."""
    repaired: int = 0
    """Copies that repair and hints asked about or brought, and that were there after it."""
    refused: Counter[int] = field(default_factory=Counter)
    last_sync: SyncReport | None = None
    last_sync_s: float = 0.0


class Kademlia:
    """A node of the DHT, made by `service.open_kademlia`. Its methods may be called in parallel."""

    def __init__(
        self,
        settings: KademliaSettings,
        identity: Identity,
        items: Items,
        client: Client,
        transports: Transports,
        clock: Clock,
        dice: random.Random,
        tasks: TaskGroup,
        publish: Callable[[object], None] = lambda event: None,
    ) -> None:
        self.settings = settings
        self.identity = identity
        self.items = items
        self.client = client
        self.transports = transports
        self.clock = clock
        self.dice = dice
        self.mode = DhtMode.FULL if settings.full_node else DhtMode.REGULAR
        self.table = RoutingTable(identity.public)
        self.stats = Stats()
        self.waiting = Waiting()
        self.standing = Standing()
        self.sent = Sent()
        self.holders = Holders(clock.now(), settled_s=2 * settings.repair_interval_s)
        self.hints = Hints()
        self.returned: dict[bytes, None] = {}
        """Who was heard of again and is owed something."""
        self.stirred = anyio.Event()
        """Set when repair has something to do before its next pass."""
        self.seeds: tuple[Contact, ...] = ()
        self.joined_s = clock.now()
        """When somebody answered us for the first time after there was nobody."""
        self._tasks = TaskPool(tasks)
        self._ending = Ending()
        tasks.start_soon(self._ending.watch)
        self.publish = publish
        self._background = 0
        self._lookups = anyio.Semaphore(LOOKUPS_MAX, fast_acquire=True)

    # --- whom we know ----------------------------------------------------------------------------

    def heard(self, public: bytes, addresses: Sequence[Address] = (), mode: str = "") -> None:
        """Note that a key spoke to us over an authenticated stream."""
        known = self.table.find(public)
        if known is None and not addresses:
            addresses = self.transports.addresses.find(public)
        before, now = len(self.table), self.clock.now()
        failed = known is not None and known.failures > 0
        to_ping = self.table.seen(public, addresses, now, mode)
        if known is None and len(self.table) != before:
            log.debug("contact entered peer=%s peers=%d", short(public), len(self.table))
            self.publish(PeerChanged(public, True, len(self.table)))
        if known is None and public in self.table:
            self.holders.entered(public, now)
        if known is None or failed:
            self._stir(public)
        if self.hints.is_due(public, now):
            self.returned[public] = None
            self.stirred.set()
        if to_ping is not None and not self.later(self.probe, to_ping.contact):
            to_ping.pinging = False

    def _stir(self, public: bytes) -> None:
        """Let repair look at once at a change among the contacts next to this node."""
        if self.table.nearer_to_self(public) < K:
            self.stirred.set()

    def sees_to(self, item: MutableItem) -> bool:
        """Tell whether it may be for this node to see to an item's replicas (C36)."""
        if item.signer == self.identity.public:
            return True
        return self.table.closer_than_self(int.from_bytes(item.target, "big")) < DUTY

    def credit(self, item: MutableItem, public: bytes) -> None:
        """Note that whoever sent an item holds it: its signer does, and those near it do."""
        if not self.sees_to(item):
            return
        target = int.from_bytes(item.target, "big")
        near = (entry.contact.public for entry in self.table.closest(target))
        if public == item.signer or public in near:
            self.holders.took(version_of(item), public, self.clock.now())

    def lost(self, public: bytes) -> None:
        """Note that a key did not answer."""
        self.stats.calls_failed += 1
        if self.table.failed(public):
            self.stats.contacts_left += 1
            self.holders.left(public)
            self._stir(public)
            log.debug("contact left peer=%s peers=%d", short(public), len(self.table))
            self.publish(PeerChanged(public, False, len(self.table)))

    def later(self, work: Callable[..., Awaitable[object]], *args: object) -> bool:
        """Do something in the background, unless too much is going on there already."""
        if self._background >= BACKGROUND_MAX or self._ending.is_over:
            return False
        self._background += 1
        self._tasks.start(self._run, work, args)
        return True

    async def _run(self, work: Callable[..., Awaitable[object]], args: Sequence[object]) -> None:
        try:
            await work(*args)
        except SkycoreError as trouble:  # our own store's: nobody waits here to be told
            log.warning("background work failed error=%r", str(trouble))
        finally:
            self._background -= 1

    def near(self, target: int, count: int = K) -> tuple[Contact, ...]:
        """Return the closest live contacts: what we tell others."""
        return tuple(e.contact for e in self.table.closest(target, count, live=True))

    def keeps(self, target: bytes) -> bool:
        """Tell whether this node stores what lies at a target (C26)."""
        return self.mode is DhtMode.FULL or self.table.is_near(int.from_bytes(target, "big"))

    def peers(self) -> Sequence[PeerInfo]:
        """Return the routing table, for people."""
        now = self.clock.now()
        return [
            PeerInfo(
                e.contact.public,
                tuple(f"{a.kind}:{a.endpoint}" for a in e.contact.addresses),
                self.table.bucket_of(e.contact.public),
                max(0.0, now - e.seen_s),
                e.failures,
                self.transports.find(e.contact.public) is not None,
            )
            for e in self.table
        ]

    # --- calls -----------------------------------------------------------------------------------

    async def ask(
        self, contact: Contact, method: int, request: Message, timeout_s: float = CALL_TIMEOUT_S
    ) -> Message:
        """Call, and let the routing table know how it went. Raises as `Client.exchange`."""
        frame = self.client.frame(method, request)
        return await self.send(contact, method, frame, timeout_s=timeout_s)

    async def send(
        self,
        contact: Contact,
        method: int,
        frame: bytes,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
        again: bool = True,
        meter: Meter = lambda count: None,
    ) -> Message:
        """Do the same with a ready frame; `meter` is told the bytes both ways."""
        self.meet(contact)
        try:
            reply = await self.client.exchange(
                contact.public, method, frame, timeout_s=timeout_s, again=again, meter=meter
            )
        except ReplyError:
            self.heard(contact.public, contact.addresses)
            raise
        except (TransportError, RemoteProtocolError):
            self.lost(contact.public)
            raise
        mode = reply.mode if isinstance(reply, Pong) else ""
        self.heard(contact.public, contact.addresses, mode if mode in ("full", "regular") else "")
        return reply

    def meet(self, contact: Contact) -> None:
        """Let the dialler know where a contact may be found, where that is needed."""
        if contact.addresses and self.transports.find(contact.public) is None:
            self.transports.addresses.learn(contact)

    async def ping(self, contact: Contact) -> Pong:
        """Ask a node what it is."""
        reply = await self.ask(contact, DhtMethod.PING, Ping())
        assert isinstance(reply, Pong)
        return reply

    async def probe(self, contact: Contact) -> None:
        """Ping, for what the routing table learns of it; raises nothing remote."""
        try:
            await self.ping(contact)
        except (TransportError, ProtocolError) as failed:
            log.debug("no answer peer=%s error=%r", short(contact.public), str(failed))

    # --- lookups ---------------------------------------------------------------------------------

    def is_global(self, public: bytes) -> bool:
        """Tell whether a peer is known to be on the open internet."""
        return has_global(self.transports.addresses.find(public))

    async def walk(self, lookup: Lookup, ask: Ask) -> None:
        """Run a lookup to its end. `ask` reports to the lookup and raises nothing.

        Questions run in the background: those still open at the end finish by themselves, so
        their streams stay usable and the routing table learns of their fate.
        """
        wake = anyio.Event()

        async def one(contact: Contact) -> None:
            await ask(contact)
            launch()
            if lookup.done(self.clock.now()):
                wake.set()

        def launch() -> None:
            for candidate in lookup.next(self.clock.now()):
                if not self.later(one, candidate.contact):
                    lookup.failed(candidate.contact.public)

        async with self._lookups:
            launch()
            while not lookup.done(now := self.clock.now()):
                with anyio.move_on_after(max(0.0, lookup.wake_s() - now) + 0.001):
                    await wake.wait()
                lookup.tick(self.clock.now())
                launch()
        self.table.refreshed(lookup.target, self.clock.now())

    async def find_nodes(
        self,
        target: int,
        *,
        settle: int = K,
        also: Sequence[Contact] = (),
        first: Sequence[Contact] = (),
        patient: bool = False,
    ) -> Lookup:
        """Look for the nodes closest to a target; `also` are starting points besides the table.

        `first` are asked before the others and in any case, however far they are. `patient`: slow
        nodes are waited for, as those nearest have to be where all must agree who that is.
        """
        start = [e.contact for e in self.table.closest(target)]
        lookup = Lookup(
            target,
            [*first, *start, *also],
            own=self.identity.public,
            now=self.clock.now(),
            settle=settle,
            patient=patient,
        )
        request = FindNode(target.to_bytes(32, "big"))

        async def ask(contact: Contact) -> None:
            try:
                reply = await self.ask(contact, DhtMethod.FIND_NODE, request)
            except (TransportError, ProtocolError):
                lookup.failed(contact.public)
                return
            assert isinstance(reply, Nodes)
            lookup.answered(
                contact.public,
                reply.contacts,
                now=self.clock.now(),
                teller_is_global=self.is_global(contact.public),
            )

        if first:
            with anyio.move_on_after(PATIENCE_S):
                async with anyio.create_task_group() as tasks:
                    for contact in first:
                        tasks.start_soon(ask, contact)
        await self.walk(lookup, ask)
        return lookup

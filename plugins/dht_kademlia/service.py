"""The factories: the node itself, and its faces to the rest of skycore."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import anyio

from dht_kademlia.bootstrap import bootstrap, check_contacts, load_table, save_table
from dht_kademlia.client import DHT_SERVICE, Client
from dht_kademlia.comparisons import Comparisons, open_comparisons
from dht_kademlia.core.codec import MsgpackCodec
from dht_kademlia.core.messages import PutValue
from dht_kademlia.dht import KademliaDht
from dht_kademlia.node import Kademlia
from dht_kademlia.put.puts import hand_out, put_many
from dht_kademlia.put.repair import keep_replicas
from dht_kademlia.rpc.against import open_dht_against_rpc
from dht_kademlia.rpc.live import open_dht_live_rpc
from dht_kademlia.rpc.namespaces import open_dht_namespaces_rpc
from dht_kademlia.rpc.records import DhtMethods
from dht_kademlia.serve.server import Server
from dht_kademlia.settings import KademliaSettings
from dht_kademlia.source import open_dht_source
from dht_kademlia.status import DhtStatus
from dht_kademlia.sync.adverts import open_adverts
from dht_kademlia.sync.fullnode import Live
from dht_kademlia.sync.pull import Cursors
from skycore import Live as Up
from skycore import Provider
from skycore.contracts.dht import Dht, Mirror, PutReport
from skycore.contracts.discovery import EntrySource
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Publisher
from skycore.contracts.rpc import RpcService
from skycore.contracts.runtime import Clock, Entropy, Files, Identity, Lifecycle
from skycore.contracts.status import StatusSource
from skycore.contracts.store import Items
from skycore.contracts.streams import StreamListener, Streams
from skycore.contracts.transport import Transports
from skycore.errors import StoreError
from skycore.events import Events
from skycore.model.addresses import Contact, parse_contact
from skycore.model.items import Lease, MutableItem
from skycore.tasks import every

__all__ = [
    "RPC_METHODS",
    "SERVICES",
    "KademliaMirror",
    "open_dht",
    "open_dht_mirror",
    "open_dht_rpc",
    "open_dht_source",
    "open_dht_status",
    "open_kademlia",
]

log = logging.getLogger(__name__)
NO_SOURCES: Final = Up[EntrySource](())


@asynccontextmanager
async def open_kademlia(
    settings: KademliaSettings,
    identity: Identity,
    items: Items,
    streams: tuple[Streams, ...],
    transports: Transports,
    clock: Clock,
    entropy: Entropy,
    files: Files,
    lifecycle: Lifecycle,
    events: Events,
    sources: Up[EntrySource] = NO_SOURCES,
) -> AsyncIterator[Kademlia]:
    """Run a node of the DHT: listen first, then (once all parts are up) serve and bootstrap."""
    codec = MsgpackCodec()
    client = Client(streams, codec, clock, per_peer_max=settings.pool_streams_per_peer_max)
    async with anyio.create_task_group() as tasks, AsyncExitStack() as stack:
        node = Kademlia(
            settings,
            identity,
            items,
            client,
            transports,
            clock,
            entropy.random(),
            tasks,
            events.publish,
        )
        node.seeds = _seeds(settings, identity, transports)
        saved = load_table(files, len(identity.public))
        server = Server(node, codec)
        listeners = [await stack.enter_async_context(s.listen(DHT_SERVICE)) for s in streams]
        tasks.start_soon(_live, node, server, listeners, saved, files, lifecycle, sources)
        try:
            yield node
        finally:
            try:
                save_table(node, files)
            except StoreError as trouble:
                log.warning("cannot save the contacts error=%r", str(trouble))
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True), anyio.move_on_after(1.0):
                await client.aclose()


def _seeds(
    settings: KademliaSettings, identity: Identity, transports: Transports
) -> tuple[Contact, ...]:
    suite = identity.network.suite
    parsed = [parse_contact(suite, text) for text in settings.bootstrap]
    seeds = tuple(c for c in parsed if c.public != identity.public)
    for seed in seeds:
        transports.addresses.learn(seed, pinned=True)
    return seeds


async def _live(
    node: Kademlia,
    server: Server,
    listeners: Sequence[StreamListener],
    saved: Sequence[Contact],
    files: Files,
    lifecycle: Lifecycle,
    sources: Up[EntrySource],
) -> None:
    await lifecycle.wait_ready()
    settings = node.settings

    looked = entered = float("-inf")
    alone = True

    def rest_s() -> float:
        """Return what is left of the retry period: a dial that hung for long is part of it."""
        return max(1.0, looked + settings.bootstrap_retry_s - node.clock.now())

    async def enter() -> None:
        """Bootstrap if nobody is known, or if it is time again; hand out what waited for it."""
        nonlocal looked, entered, alone
        looked = node.clock.now()
        if not len(node.table) or looked - entered >= settings.bootstrap_interval_s:
            entered = looked
            await bootstrap(node, saved if not len(node.table) else (), sources)
        if alone and len(node.table):
            node.waiting.all_due()
        alone = not len(node.table)
        if not alone:
            await hand_out(node)

    async def check() -> None:
        await check_contacts(node)
        save_table(node, files)

    async with anyio.create_task_group() as tasks:
        for listener in listeners:
            tasks.start_soon(server.accept, listener, tasks)
        tasks.start_soon(server.reap)
        tasks.start_soon(lambda: every(rest_s, enter, name="dht bootstrap"))
        check_s = settings.check_interval_s
        tasks.start_soon(lambda: every(check_s, check, name="dht contacts", at_once=False))
        tasks.start_soon(keep_replicas, node)


# --- the faces -----------------------------------------------------------------------------------


class KademliaMirror:
    """Published entries go into the DHT: `contracts.dht.RenewingMirror`."""

    name = "dht"

    def __init__(self, node: Kademlia) -> None:
        self._node = node

    async def mirror(
        self,
        items: Sequence[MutableItem],
        *,
        cas: int | None = None,
        progress: Callable[[int], None] | None = None,
        blocks: Mapping[bytes, bytes] | None = None,
    ) -> Sequence[PutReport]:
        """Put the items; one report each."""
        loads = [PutValue(item, cas) for item in items]
        return await put_many(self._node, loads, progress, blocks=blocks)

    async def renew(self, leases: Sequence[Lease]) -> Sequence[PutReport]:
        """Prolong what is held, about 150 bytes a node; NOT_HELD asks for the item."""
        return await put_many(self._node, [PutValue(None, lease=lease) for lease in leases])


@asynccontextmanager
async def open_dht(node: Kademlia, files: Files) -> AsyncIterator[Dht]:
    """Give the DHT to the rest of the node; a full node also keeps in step with the others."""
    cursors = Cursors(files)
    live = Live(node, cursors)
    async with live.running():
        yield KademliaDht(node, cursors, live)


@asynccontextmanager
async def open_dht_mirror(node: Kademlia) -> AsyncIterator[Mirror]:
    """Bring published entries into the DHT."""
    yield KademliaMirror(node)


@asynccontextmanager
async def open_dht_rpc(
    dht: Dht, node: Kademlia, publisher: Publisher, namespaces: Namespaces, clock: Clock
) -> AsyncIterator[RpcService]:
    """Offer the methods of `rpc.records`."""
    yield DhtMethods(dht, node, publisher, namespaces, clock)


@asynccontextmanager
async def open_dht_status(node: Kademlia, comparisons: Comparisons) -> AsyncIterator[StatusSource]:
    """Say how the DHT is, for `visor info`."""
    yield DhtStatus(node, comparisons.status_fields)


SERVICES = (
    Provider(Kademlia, open_kademlia),
    Provider(Comparisons, open_comparisons),
    open_adverts,
)
RPC_METHODS = (open_dht_rpc, open_dht_namespaces_rpc, open_dht_live_rpc, open_dht_against_rpc)

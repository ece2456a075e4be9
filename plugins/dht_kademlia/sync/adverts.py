"""Full nodes say that they are: one record each under `fullnode`, renewed every 5 minutes.

Why verified anew on reading: the gate has checked the signature, and that the key in the value is
the subject (C6); how fresh an advert is depends on when it is read. Why through the publisher: its
seq goes on over restarts, so a full node that comes back is seen at once (O13). A node that stops
being a full node, or has no room for new records, deletes its advert and says so (C25, O23).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import anyio
import msgspec

from dht_kademlia.node import Kademlia
from dht_kademlia.sync.pull import Cursors, find_full_node, pull
from skycore.contracts.dht import DhtMode
from skycore.contracts.namespace import Namespace, Namespaces
from skycore.contracts.publish import Fact, Publisher
from skycore.contracts.runtime import Lifecycle
from skycore.contracts.store import CapacityChanged
from skycore.errors import ProtocolError, SkycoreError, TransportError
from skycore.events import Events
from skycore.model.entries import FullNodeAdvert
from skycore.model.items import ItemClass, Kind, StoredItem, mutable_item_target
from skycore.model.keys import PubKey
from skycore.model.limits import CLOCK_SKEW_MAX_S

__all__ = [
    "ADVERT_S",
    "FULLNODE",
    "Advert",
    "find_full_nodes",
    "fresh_adverts",
    "open_adverts",
    "read_advert",
]

log = logging.getLogger(__name__)
FULLNODE: Final = b"fullnode"
ADVERT_S: Final = 300.0
RETRY_S: Final = 30.0
ADVERT_LIFE_S: Final = 7_200
ADVERTS_MAX: Final = 1_000
VERSION: Final = 1
_decoder = msgspec.msgpack.Decoder(tuple[int, FullNodeAdvert])


class Advert(NamedTuple):
    """A full node that says so, freshly."""

    public: bytes
    items: int
    ts_ns: int


def read_advert(stored: StoredItem, now_ns: int) -> Advert | None:
    """Return what an item under `fullnode` says, or None where it is no fresh advert."""
    item = stored.item
    if item.kind != Kind.VALUE or item.signer != item.subject:
        return None
    try:
        version, advert = _decoder.decode(item.v)
    except (msgspec.DecodeError, UnicodeError):
        return None
    age_s = (now_ns - advert.ts) / 1e9
    is_fresh = -CLOCK_SKEW_MAX_S <= age_s <= ADVERT_LIFE_S
    if version != VERSION or advert.pk != item.subject.hex() or not advert.full_node:
        return None
    return Advert(item.subject, advert.stored_items, advert.ts) if is_fresh else None


async def fresh_adverts(node: Kademlia) -> Sequence[Advert]:
    """Return the adverts in our own store, our own included, the most recent first."""
    found = await node.items.listing(FULLNODE, bytes(32), b"\xff" * 32, ADVERTS_MAX)
    now_ns = node.clock.wall_ns()
    adverts = [a for stored in found if (a := read_advert(stored, now_ns))]
    return sorted(adverts, key=lambda advert: -advert.ts_ns)


async def find_full_nodes(node: Kademlia, cursors: Cursors) -> Sequence[PubKey]:
    """Return the full nodes that advertise themselves, the most recent first.

    A full node has all adverts; a regular one first pulls what is new among them from a full node.
    """
    if not (node.mode is DhtMode.FULL and node.standing.is_complete):
        try:
            await pull(node, cursors, await find_full_node(node), FULLNODE)
        except (TransportError, ProtocolError) as failed:
            log.debug("adverts as known here error=%r", str(failed))
    return [PubKey(advert.public) for advert in await fresh_adverts(node)]


class _Advertiser:
    """Keeps our own advert as it must be."""

    def __init__(self, node: Kademlia, publisher: Publisher, namespace: Namespace) -> None:
        self._node = node
        self._publisher = publisher
        self._namespace = namespace

    async def run(self, lifecycle: Lifecycle) -> None:
        """Publish every ADVERT_S, and at once when the node's standing changes."""
        await lifecycle.wait_ready()
        standing = self._node.standing
        while True:
            changed, wait_s = standing.changed, ADVERT_S
            try:
                await self._adjust()
            except SkycoreError as failed:
                log.warning("cannot publish our advert error=%r", str(failed))
                wait_s = RETRY_S
            with anyio.move_on_after(wait_s):
                await changed.wait()

    async def _adjust(self) -> None:
        node, standing = self._node, self._node.standing
        if node.mode is not DhtMode.FULL or standing.is_refusing:
            await self._delete()
        elif standing.is_complete:
            usage = await node.items.usage()
            count = sum(used.items for used in usage.values())
            public = node.identity.public
            advert = FullNodeAdvert(public.hex(), count, True, node.clock.wall_ns())
            await self._publisher.publish(Fact(FULLNODE, self._namespace.encode(advert)))
            if not standing.is_advertised:
                log.info("advertised as a full node items=%d", count)
            standing.is_advertised = True
        # else: what an earlier run has published stands until we know better

    async def _delete(self) -> None:
        standing, public = self._node.standing, self._node.identity.public
        held = await self._node.items.get(mutable_item_target(public, FULLNODE))
        ours = any(s.item_class == ItemClass.OWNER and s.item.kind == Kind.VALUE for s in held)
        if ours or standing.is_advertised:
            await self._publisher.publish(Fact(FULLNODE, None))
            log.info("advertised no longer")
        standing.is_advertised = False


async def _watch_capacity(node: Kademlia, events: Events) -> None:
    with events.subscribe(CapacityChanged, limit=1) as changes:
        async for change in changes:
            node.standing.is_refusing = change.is_full
            node.standing.change()


@asynccontextmanager
async def open_adverts(
    node: Kademlia,
    publisher: Publisher,
    namespaces: Namespaces,
    lifecycle: Lifecycle,
    events: Events,
) -> AsyncIterator[None]:
    """Advertise a full node for as long as it is one and has room."""
    namespace = namespaces.find(FULLNODE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_watch_capacity, node, events)
        if namespace is None:
            log.info("no advert: no active plugin declares the namespace fullnode")
        else:
            tasks.start_soon(_Advertiser(node, publisher, namespace).run, lifecycle)
        yield
        tasks.cancel_scope.cancel()

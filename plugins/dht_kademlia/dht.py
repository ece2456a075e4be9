"""The node as the rest of skycore sees it: find, put, sync, watch, and be a full node or not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from dht_kademlia.core.messages import PutValue
from dht_kademlia.node import Kademlia
from dht_kademlia.put.puts import put_many
from dht_kademlia.reads import ask_one, read
from dht_kademlia.serve.changelog import changes_from, log_end
from dht_kademlia.sync.adverts import find_full_nodes
from dht_kademlia.sync.fullnode import Live
from dht_kademlia.sync.pull import Cursors, find_full_node, pull
from dht_kademlia.sync.watch import locate
from skycore.contracts.dht import (
    DhtMode,
    PeerInfo,
    PutReport,
    ReconcileReport,
    RecordServed,
    SyncReport,
)
from skycore.errors import LocalProtocolError
from skycore.model.items import MutableItem, StoredItem
from skycore.model.keys import PubKey
from skycore.model.limits import SALT_MAX

__all__ = ["KademliaDht"]


class KademliaDht:
    """`contracts.dht.Dht`."""

    def __init__(self, node: Kademlia, cursors: Cursors, live: Live) -> None:
        self._node = node
        self._cursors = cursors
        self._live = live

    @property
    def mode(self) -> DhtMode:
        """What this node keeps now."""
        return self._node.mode

    async def set_mode(self, mode: DhtMode) -> None:
        """Become a full node, or a regular one, until the next start."""
        self._live.set_mode(mode)

    @property
    def peer_count(self) -> int:
        """Contacts in the routing table."""
        return len(self._node.table)

    async def get(
        self, subject: bytes, salt: bytes, *, age_max_s: float | None = None, local: bool = False
    ) -> StoredItem | None:
        """Return the best live item."""
        found = await read(self._node, subject, salt, age_max_s=age_max_s, local=local)
        if found is not None:
            age_s = (self._node.clock.wall_ns() - found.stored_ns) / 1e9
            self._node.publish(RecordServed(max(0.0, age_s)))
        return found

    async def put(
        self,
        item: MutableItem,
        *,
        cas: int | None = None,
        blocks: Mapping[bytes, bytes] | None = None,
    ) -> PutReport:
        """Store here if near (or full), and at the closest nodes."""
        return (await put_many(self._node, [PutValue(item, cas)], blocks=blocks))[0]

    async def put_many(
        self,
        items: Sequence[MutableItem],
        progress: Callable[[int], None] | None = None,
        *,
        blocks: Mapping[bytes, bytes] | None = None,
    ) -> Sequence[PutReport]:
        """Put a batch, grouped by node."""
        loads = [PutValue(item) for item in items]
        return await put_many(self._node, loads, progress, blocks=blocks)

    async def sync(
        self,
        peer: PubKey | None = None,
        salt: bytes | None = None,
        progress: Callable[[int, bool], None] | None = None,
    ) -> SyncReport:
        """Pull what changed at a full node."""
        node = self._node
        contact = await find_full_node(node) if peer is None else await locate(node, peer)
        return await pull(node, self._cursors, contact, salt, progress)

    async def find_full_nodes(self) -> Sequence[PubKey]:
        """Return the full nodes that advertise themselves, the most recent first."""
        return await find_full_nodes(self._node, self._cursors)

    @property
    def is_complete(self) -> bool:
        """Whether this node is a full node that has had all there is."""
        return self._node.mode is DhtMode.FULL and self._node.standing.is_complete

    @property
    def lag_s(self) -> float | None:
        """How long ago somebody else told what is new; None where this node is not complete."""
        if not self.is_complete:
            return None
        return self._node.standing.lag_s(self._node.clock.now())

    async def ask(self, peer: PubKey, subject: bytes, salt: bytes) -> Sequence[StoredItem]:
        """Return what exactly this peer holds, verified."""
        return await ask_one(self._node, await locate(self._node, peer), subject, salt)

    async def reconcile(
        self, peer: PubKey, salt: bytes | None = None, *, dry_run: bool = False
    ) -> ReconcileReport:
        """Compare with another node, and repair both sides."""
        return await self._live.compare(await locate(self._node, peer), salt, dry_run=dry_run)

    @asynccontextmanager
    async def watch(self, salt: bytes | None = None) -> AsyncIterator[AsyncIterator[StoredItem]]:
        """Keep a salt in step with a full node, and yield what changes here meanwhile."""
        if salt is not None and len(salt) > SALT_MAX:
            raise LocalProtocolError(f"a salt has {SALT_MAX} bytes at most")
        items = self._node.items
        after = await log_end(items)
        async with self._live.keeping(salt):
            yield changes_from(items, after, salt)

    def peers(self) -> Sequence[PeerInfo]:
        """Return the routing table."""
        return self._node.peers()

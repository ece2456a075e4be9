"""Whole nodes with their real plugins, on virtual time and a simulated network (tier 2)."""

from __future__ import annotations

import hashlib
import itertools

import anyio
import pytest

from dht_kademlia.node import Kademlia
from skycore.contracts.dht import Dht
from skycore.contracts.store import Items
from skycore.errors import SkycoreError
from skycore.model.items import Kind, make_item
from skycore.model.keys import ED25519
from skycore.testing import sim_backend

SALT = b"note"
LIFETIME_S = 7_000


class Notes:
    """Every node's own record; remembers the newest that was acknowledged for each."""

    def __init__(self):
        self.acknowledged = {}
        self.newest = {}

    async def write(self, node, text):
        """Put a node's own record; tell whether another node has it too."""
        identity = node.node.identity
        item = make_item(
            identity.network,
            identity.secret,
            salt=SALT,
            seq=node.clock.wall_ns(),
            until=node.clock.wall_s() + LIFETIME_S,
            v=text.encode(),
        )
        self.newest[node.public] = item
        report = await node.get(Dht).put(item)
        others = [r for r in report.replicas if r.code <= 2]
        if others:
            self.acknowledged[node.public] = max(item.seq, self.acknowledged.get(node.public, 0))
        return bool(others)

    async def behind(self, readers):
        """Return (reader, writer) wherever a read does not give the newest acknowledged record."""
        return [
            (reader.name, writer[:4].hex())
            for reader in readers
            for writer, seq in self.acknowledged.items()
            if await self._seq(reader, writer) < seq
        ]

    async def converge(self, world, readers, limit_s=300):
        """Wait until every reader reads the newest of every writer; return the seconds.

        Why not at once, and why owners put what they have once a minute, as publishers renew it:
        three nodes that agree end a read early, and after trouble these three may be behind.
        """
        began = anyio.current_time()
        for turn in itertools.count():
            if turn % 6 == 0:
                await self._renew(world)
            if not (behind := await self.behind(readers)):
                break
            world.check()
            assert anyio.current_time() - began < limit_s, behind
            await anyio.sleep(10)
        return anyio.current_time() - began

    async def _renew(self, world):
        for node in world.nodes:
            if node.node and node.public in self.newest:
                await node.get(Dht).put(self.newest[node.public])

    async def _seq(self, reader, writer):
        try:
            found = await reader.get(Dht).get(writer, SALT, age_max_s=0)
        except SkycoreError:
            return 0
        return found.item.seq if found else 0

    def peers(self, node):
        """Return how many contacts a running node has; 0 while it is down."""
        return node.get(Dht).peer_count if node.node else 0

    async def all_meet(self, world, limit_s=120):
        """Wait until every running node knows another one."""
        await world.until(
            lambda: all(self.peers(n) for n in world.nodes if n.node),
            limit_s=limit_s,
            what="all meet",
        )


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=12 * 3_600)


@pytest.fixture
def notes():
    """Short records that nodes write and read, with a checker of what was acknowledged."""
    return Notes()


def _secret_of(name):
    return ED25519.secret(hashlib.sha256(name.encode()).digest())


class LiveNodes:
    """Full nodes that keep in step by themselves, and what tests of them ask again and again."""

    life_s = 7_000

    def item_by(self, node, writer, value="", *, kind=Kind.VALUE, life_s=life_s):
        """Sign a record as `writer` would at a node: seq is that node's time."""
        return make_item(
            node.node.identity.network,
            _secret_of(writer),
            salt=SALT,
            seq=node.clock.wall_ns(),
            until=node.clock.wall_s() + life_s,
            kind=kind,
            v=value.encode() if isinstance(value, str) else value,
        )

    async def write_at(self, node, writer, value="", *, must=True):
        """Let one node take a record in, as from its owner; no put, so nobody else is told."""
        item = self.item_by(node, writer, value)
        (outcome,) = await node.get(Items).admit([item], sender=item.signer)
        assert outcome.accepted or not must, outcome
        return item

    async def delete_at(self, node, writer):
        """Let one node take in a writer's tombstone."""
        grave = self.item_by(node, writer, kind=Kind.TOMBSTONE, life_s=7 * 86_400)
        (outcome,) = await node.get(Items).admit([grave], sender=grave.signer)
        assert outcome.accepted, outcome
        return grave

    async def contents(self, node):
        """Return everything that two full nodes must share, byte for byte."""
        held = await node.get(Items).listing(None, bytes(32), b"\xff" * 32, 100_000)
        return {(s.target, s.item_class): (s.rank, s.item, s.until) for s in held}

    async def start(self, world, count):
        """Start full nodes; return them when each keeps in step with all the others."""
        nodes = [await world.full_node() for _ in range(count)]
        await world.until(lambda: all(self.links(n) == count - 1 for n in nodes), limit_s=120)
        return nodes

    def links(self, node):
        """Return how many peers a node watches now."""
        return sum(f.is_live for f in self.standing(node).followed) if node.node else 0

    def standing(self, node):
        """Return what a running node's DHT says of itself."""
        return node.get(Kademlia).standing

    async def equal(self, world, nodes, limit_s):
        """Wait until stores are equal byte for byte; return the seconds and what they hold."""
        began = anyio.current_time()
        while True:
            held = [await self.contents(n) for n in nodes]
            if all(h == held[0] for h in held):
                return anyio.current_time() - began, held[0]
            world.check()
            assert anyio.current_time() - began < limit_s, [len(h) for h in held]
            await anyio.sleep(1)


@pytest.fixture
def live():
    """What tests of live full nodes ask again and again."""
    return LiveNodes()

"""Whole nodes with their real plugins, on virtual time and a simulated network (tier 2)."""

from __future__ import annotations

import itertools

import anyio
import pytest

from skycore.contracts.dht import Dht
from skycore.errors import SkycoreError
from skycore.model.items import make_item
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

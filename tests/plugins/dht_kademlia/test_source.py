"""The DHT as a source of entries: lists that say how much they are, and changes that are proven."""

from __future__ import annotations

from contextlib import asynccontextmanager

import anyio
import pytest

from dht_kademlia.service import open_dht, open_kademlia
from dht_kademlia.settings import KademliaSettings
from dht_kademlia.source import LARGE_BYTES, OUT_OF_STEP_S, open_dht_source
from skycore.contracts.dht import DhtMode
from skycore.contracts.namespace import Form, Namespace, Namespaces
from skycore.errors import DiscoveryError
from skycore.events import Events
from skycore.guards.gate import GateSettings, open_gate
from skycore.model.addresses import Address, Contact
from skycore.model.items import ItemClass, Kind, make_delegation, make_item, make_lease
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.testing import sim_backend
from skycore.testing.contracts.discovery import FollowedSourceContract, Sourced
from skycore.testing.fakes import (
    AlwaysReady,
    InlineWorkers,
    MemoryFiles,
    SeededEntropy,
    identity,
)
from skycore.testing.seams import SimClock
from skycore.testing.streams import MemoryExchange, MemoryStreams, MemoryTransports
from store_memory.service import open_memory_store
from store_memory.settings import MemoryStoreSettings

AUTHORITY = identity("authority").secret
NETWORK = NetworkConstants(ED25519, "skycore-test", ED25519.public(AUTHORITY))
LIFE_S = 3_600
CLASSES = (ItemClass.OWNER, ItemClass.DELEGATE, ItemClass.MIRROR)
NOTE = Namespace(b"note", 1, str, Form.SINGLE, dict.fromkeys(CLASSES, LIFE_S))
TAGS = Namespace(b"tags", 1, str, Form.SET, dict.fromkeys(CLASSES, LIFE_S))
NAMESPACES = Namespaces((NOTE, TAGS))


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=12 * 3_600)


def person(who):
    return identity(f"person{who}", NETWORK)


class Node:
    """A node of a small DHT over memory streams, with its source."""

    def __init__(self, node, dht, items, source, clock):
        self.node, self.dht, self.items, self.source, self.clock = node, dht, items, source, clock
        self.said = 0
        self.public = node.identity.public

    def body(self, who, n):
        return f"note {n} of {who}"

    async def admit(self, item, blocks=()):
        (outcome,) = await self.items.admit([item], sender=item.signer, blocks=blocks)
        assert outcome.accepted, outcome
        return item

    def stamp(self):
        self.said += 1
        return self.clock.wall_ns() + self.said

    async def say(self, who, n, *, salt=b"note", life_s=600):
        me, now_s = person(who), self.clock.wall_s()
        await self.admit(
            make_item(
                NETWORK, me.secret, salt=salt, seq=self.stamp(),
                until=now_s + (life_s if n is not None else 7 * 86_400),
                v=b"" if n is None else NOTE.encode(self.body(who, n)),
                kind=Kind.TOMBSTONE if n is None else Kind.VALUE,
            )
        )  # fmt: skip
        return bytes(me.public)

    async def mirror(self, who, n, life_s=600):
        server, subject = identity("server", NETWORK), bytes(person(who).public)
        token = make_delegation(
            NETWORK, AUTHORITY, server.public, b"note", self.clock.wall_s() + 86_400
        )
        await self.admit(
            make_item(
                NETWORK, server.secret, subject=subject, salt=b"note", seq=self.stamp(),
                until=self.clock.wall_s() + life_s, v=NOTE.encode(self.body(who, n)),
                delegation=token,
            )
        )  # fmt: skip
        return subject

    async def prolong(self, who):
        me = person(who)
        found = await self.dht.get(me.public, b"note", local=True)
        await anyio.sleep(1)
        lease = make_lease(NETWORK, me.secret, found, self.clock.wall_s() + LIFE_S - 10)
        (outcome,) = await self.items.renew([lease], sender=me.public)
        assert outcome.accepted


class Net:
    def __init__(self):
        self.exchange, self.clock = MemoryExchange(0.01), SimClock()
        self.known = {
            bytes(identity(f"n{i}", NETWORK).public): (Address("stcpr", f"192.0.2.1:{1000 + i}"),)
            for i in range(9)
        }

    def contact(self, i):
        public = identity(f"n{i}", NETWORK).public
        return Contact(public, self.known[bytes(public)])

    @asynccontextmanager
    async def node(self, i, *, seeds=(), **settings):
        me, entropy = identity(f"n{i}", NETWORK), SeededEntropy(i)
        contacts = [self.contact(s) for s in seeds]
        boot = tuple(f"{c.public.hex()}@{c.addresses[0].endpoint}" for c in contacts)
        transports, files = MemoryTransports(), MemoryFiles()
        transports.addresses.known.update(self.known)
        streams = (MemoryStreams(self.exchange, me.public),)
        chosen = KademliaSettings(bootstrap=boot, repair_interval_s=0, **settings)
        async with (
            open_memory_store(MemoryStoreSettings(), entropy) as store,
            open_gate(
                GateSettings(), store, me, NAMESPACES, self.clock, InlineWorkers(), Events()
            ) as items,
            open_kademlia(
                chosen, me, items, streams, transports, self.clock, entropy, files,
                AlwaysReady(), Events(),
            ) as node,
            open_dht(node, files) as dht,
            open_dht_source(dht, node, NAMESPACES) as source,
        ):  # fmt: skip
            await anyio.sleep(1)
            yield Node(node, dht, items, source, self.clock)


@pytest.fixture
async def net():
    return Net()


class TestFullNode(FollowedSourceContract):
    @pytest.fixture
    async def sourced(self, net):
        async with net.node(0, full_node=True, full_nodes_max=0) as one:
            yield Sourced(
                one.source, b"note", one.clock, one.say, one.body,
                mirror=one.mirror, prolong=one.prolong,
            )  # fmt: skip


class TestRegularNode(FollowedSourceContract):
    """A regular node that learns everything from a full node."""

    @pytest.fixture
    async def sourced(self, net):
        async with net.node(0, full_node=True, full_nodes_max=0) as full:
            settings = {"watch_salts": ("note",), "local_age_max_s": 0.0}
            async with net.node(1, seeds=(0,), **settings) as one:
                await anyio.sleep(10)
                yield Sourced(
                    one.source, b"note", one.clock, full.say, one.body, mirror=full.mirror,
                    prolong=full.prolong,
                )  # fmt: skip


async def test_l18_only_a_complete_full_node_in_step_claims_to_list_everything(net):
    async with net.node(0, full_node=True, full_nodes_max=0) as full:
        assert (await full.source.records(b"note")).complete
        async with net.node(1, seeds=(0,)) as regular:
            listed = await regular.source.records(b"note")
            assert not listed.complete and "no full node" in listed.note
        async with net.node(2, seeds=(0,), full_node=True) as other:
            await anyio.sleep(30)
            assert (await other.source.records(b"note")).complete
            net.exchange.stop(full.public)
            await anyio.sleep(60)
            listed = await other.source.records(b"note")
            assert not listed.complete and "lost" in listed.note
            assert listed.as_of_ns < net.clock.wall_ns() - 20 * 10**9
    async with net.node(3, seeds=(0,), full_node=True) as alone:
        listed = await alone.source.records(b"note")
        assert not listed.complete and "first sync" in listed.note


async def test_whoever_knows_nobody_says_that_he_cannot_know(net):
    async with net.node(1, seeds=(0,)) as alone:
        with pytest.raises(DiscoveryError, match="no node"):
            await alone.source.find(b"note", bytes(32))


async def test_a_follower_is_told_when_the_others_are_lost_and_begins_again(net):
    async with (
        net.node(0, full_node=True, full_nodes_max=0) as full,
        net.node(2, seeds=(0,), full_node=True) as other,
        anyio.create_task_group() as tasks,
    ):
        await anyio.sleep(20)
        told, ended = [], []

        async def follow():
            try:
                async with other.source.follow(b"note") as batches:
                    async for batch in batches:
                        told.extend(record.body for record in batch)
            except DiscoveryError as lost:
                ended.append((anyio.current_time(), str(lost)))

        tasks.start_soon(follow)
        await full.say(0, 1)
        await anyio.sleep(2)
        assert told == ["note 1 of 0"]
        net.exchange.stop(full.public)
        began = anyio.current_time()
        await anyio.sleep(120)
        assert len(ended) == 1 and "hears of nobody" in ended[0][1]
        assert ended[0][0] - began < 30 + OUT_OF_STEP_S + 30
        tasks.start_soon(follow)
        await anyio.sleep(60)
        assert told == ["note 1 of 0"]  # nothing is told while nothing can be known
        tasks.cancel_scope.cancel()


async def test_what_became_of_a_node_that_changes_its_mode(net):
    async with net.node(0, full_node=True, full_nodes_max=0) as one:
        await one.say(0, 1)
        await one.dht.set_mode(DhtMode.REGULAR)
        listed = await one.source.records(b"note")
        assert [r.body for r in listed.records] == ["note 1 of 0"] and not listed.complete


async def test_many_records_and_large_ones_come_in_small_batches(net):
    async with net.node(0, full_node=True, full_nodes_max=0) as one:
        for who in range(600):
            await one.say(who, 1)
        tags = TAGS.encode([f"{n:06d}" + "x" * 40 for n in range(4_000)])
        for who in range(20):
            me = person(who)
            tree = NAMESPACES.plant(b"tags", me.public, tags)
            head = make_item(
                NETWORK, me.secret, salt=b"tags", seq=one.stamp(), until=one.clock.wall_s() + 600,
                v=tree.manifest, kind=Kind.MANIFEST,
            )  # fmt: skip
            await one.admit(head, tuple(tree.blocks.values()))
        assert len((await one.source.records(b"note")).records) == 600
        for salt, count in ((b"note", 600), (b"tags", 20)):
            sizes = []
            async with one.source.follow(salt) as batches:
                async for batch in batches:
                    sizes.append(len(batch))
                    if sum(sizes) == count:
                        break
            assert max(sizes) <= 256
            if salt == b"tags":
                assert max(sizes) <= 2**20 // LARGE_BYTES
        (record,) = [
            r for r in (await one.source.records(b"tags")).records if r.subject == person(3).public
        ]
        assert len(record.body) == 4_000 and isinstance(record.body, tuple)

"""A store that fails for a while (a full disk, a server that is away) costs calls, never a node."""

import random
from contextlib import asynccontextmanager, suppress

import anyio
import pytest

from dht_kademlia.put.hints import hand_over
from skycore.errors import SkycoreError, StoreError, StoreUnreachableError
from skycore.testing.fakes import TEST_NETWORK, MemoryFiles
from skycore.testing.items import DictItems

READS = ("get", "changes", "fingerprints", "listing", "blocks", "tree", "value", "usage")
FAILING = frozenset((*READS, "admit", "renew", "drop", "history"))


class Failing(DictItems):
    """Items over a store that fails always while `away`, or a `share` of the calls."""

    away = False
    share = 0.0

    def __init__(self, network, clock, *, name):
        super().__init__(network, clock, name=name)
        self.dice = random.Random(name)

    def __getattribute__(self, name):
        if name in FAILING and (self.away or (self.share and self.dice.random() < self.share)):
            return self._fail
        return super().__getattribute__(name)

    async def _fail(self, *args, **more):
        await anyio.lowlevel.checkpoint()
        raise StoreUnreachableError("the store is away")


@asynccontextmanager
async def busy_network(network, make, record, tags, count=5):
    """Yield nodes whose stores can fail, and that put, read and sync all the time."""

    async def live(i, *, task_status):
        settings = {
            "full_node": i < 2,
            "watch_salts": ("t",) if i == 3 else (),
            "repair_interval_s": 3.0,
            "reconcile_interval_s": 4.0,
            "local_age_max_s": 0.0,
        }
        items = Failing(TEST_NETWORK, network.clock, name=f"n{i}")
        seeds = ("n0",) if i else ()
        async with network.node(f"n{i}", seeds=seeds, items=items, **settings) as member:
            task_status.started(member)
            await anyio.sleep_forever()

    async def busy(dht, i, seq=1):
        while True:
            seq += 1
            large, blocks = record(f"u{i}", tags(200, (seq,)), seq)
            small, other = make(f"u{i}", seq, b"x" * 3_000), make(f"u1{i}", seq)
            for call in (
                lambda: dht.put(large, blocks=blocks),  # noqa: B023
                lambda: dht.put_many([large, other], blocks=blocks),  # noqa: B023
                lambda: dht.put(small, cas=seq - 1),  # noqa: B023
                lambda: dht.get(large.subject, large.salt, age_max_s=0),  # noqa: B023
                dht.sync,
                dht.find_full_nodes,
            ):
                with suppress(SkycoreError):
                    await call()
            await anyio.sleep(0.5)

    async with anyio.create_task_group() as tasks:
        members = [await tasks.start(live, i) for i in range(count)]
        await anyio.sleep(2.0)
        for i, member in enumerate(members):
            tasks.start_soon(busy, member.dht, i)
        yield members
        tasks.cancel_scope.cancel()


def test_a_store_that_is_away_for_a_while_ends_no_node(virtual, make_network, make, record, tags):
    async def story():
        async with busy_network(make_network(), make, record, tags) as members:
            for member in members[:4]:
                member.items.away = True
                await anyio.sleep(3)
                member.items.away = False
                await anyio.sleep(1)

    virtual(story)  # what ends a node ends the test


def test_a_store_that_fails_now_and_then_ends_no_node(virtual, make_network, make, record, tags):
    async def story():
        async with busy_network(make_network(), make, record, tags) as members:
            for member in members:
                member.items.share = 0.1
            await anyio.sleep(15)

    virtual(story)


def test_a_salt_is_kept_again_when_the_store_is_back(virtual, make_network, make):
    async def story():
        network = make_network()
        items = Failing(TEST_NETWORK, network.clock, name="n1")
        items.away = True
        async with (
            network.node("n0", full_node=True) as full,
            network.node("n1", items=items, watch_salts=("t",)) as member,
        ):
            await anyio.sleep(5)
            items.away = False
            await member.node.probe(network.contact_of("n0"))
            await full.items.admit([make("u1")], sender=b"")
            await anyio.sleep(60)
            assert await member.items.get(make("u1").target)

    virtual(story)


def test_what_is_owed_stays_owed_where_the_store_fails(virtual, make_network, make):
    async def story():
        network = make_network()
        items = Failing(TEST_NETWORK, network.clock, name="n1")
        async with network.node("n1", items=items) as member:
            node, peer = member.node, network.contact_of("n0").public
            node.hints.owe(peer, make("u1").target, node.clock.now())
            await anyio.sleep(10)
            node.returned[peer] = None
            items.away = True
            with pytest.raises(StoreError):
                await hand_over(node)
            assert len(node.hints) == 1

    virtual(story)


class FullDisk(MemoryFiles):
    """Files that cannot be written any more once `is_full`."""

    is_full = False

    def write(self, name, data):
        if self.is_full:
            raise StoreError("no space left")
        super().write(name, data)


def test_a_node_on_a_full_disk_runs_and_ends_quietly(virtual, make_network, make):
    async def story():
        network, files = make_network(), FullDisk()
        async with (
            network.node("n0", full_node=True) as other,
            network.node("n1", full_node=True, seeds=("n0",), files=files) as member,
        ):
            await anyio.sleep(5)
            files.is_full = True
            await other.items.admit([make("u1")], sender=b"")
            await anyio.sleep(70)
            assert await member.items.get(make("u1").target)

    virtual(story)

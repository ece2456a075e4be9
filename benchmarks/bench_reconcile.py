"""Reconciling two nodes that differ in d of n items: time and bytes against d."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

import anyio

from benchmarks.harness import Figure
from benchmarks.nodes import ITEM_LIFE_S, NETWORK, in_loop
from benchmarks.workloads import secret_of
from dht_kademlia.client import DHT_SERVICE, Client
from dht_kademlia.core.codec import MsgpackCodec
from dht_kademlia.node import Kademlia
from dht_kademlia.serve.server import Server
from dht_kademlia.settings import KademliaSettings
from dht_kademlia.sync.reconcile import reconcile
from skycore.contracts.dht import ReconcileReport
from skycore.contracts.namespace import Namespaces
from skycore.contracts.runtime import Identity
from skycore.contracts.store import Items, ItemStore
from skycore.events import Events
from skycore.guards.gate import GateSettings, open_gate
from skycore.model.addresses import Contact
from skycore.model.items import ItemClass, MutableItem, RankedItem, make_item, mutable_item_target
from skycore.runtime.clock import RealClock
from skycore.runtime.entropy import RealEntropy
from skycore.runtime.workers import ThreadWorkers
from skycore.testing.streams import MemoryExchange, MemoryStreams, MemoryTransports
from store_memory.service import open_memory_store
from store_memory.settings import MemoryStoreSettings

SHARED: Final = (1_000, 10_000, 100_000)
DIFFERENT: Final = (0, 1, 10, 100, 1_000)
VALUE_BYTES: Final = 200
ROOM: Final = 1_000_000
EQUAL_MAX: Final = 1_024
"""What two equal stores may cost, bytes."""


class _Side:
    """A node that does nothing by itself: real gate, memory store, streams in memory."""

    def __init__(self, node: Kademlia, items: Items, store: ItemStore) -> None:
        self.node, self.items, self.store = node, items, store
        self.public = node.identity.public

    async def put(self, items: list[MutableItem]) -> None:
        outcomes = await self.items.admit(items, sender=self.public)
        assert all(outcome.accepted for outcome in outcomes), outcomes[0]


@asynccontextmanager
async def _side(exchange: MemoryExchange, name: str) -> AsyncIterator[_Side]:
    me = Identity(NETWORK, secret_of(NETWORK, name), RealEntropy().bytes(16))
    clock, codec = RealClock(), MsgpackCodec()
    carrier = MemoryStreams(exchange, me.public)
    room = GateSettings(items_max=ROOM, unknown_items_max=ROOM, signer_items_max=ROOM)
    async with (
        open_memory_store(MemoryStoreSettings(), RealEntropy()) as store,
        open_gate(room, store, me, Namespaces(), clock, ThreadWorkers(), Events()) as items,
        carrier.listen(DHT_SERVICE) as listener,
        anyio.create_task_group() as tasks,
    ):
        client = Client((carrier,), codec, clock, per_peer_max=8)
        settings = KademliaSettings(full_node=True)
        node = Kademlia(
            settings, me, items, client, MemoryTransports(), clock, random.Random(name), tasks
        )
        tasks.start_soon(Server(node, codec).accept, listener, tasks)
        yield _Side(node, items, store)
        tasks.cancel_scope.cancel()


def _shared_rows(count: int, until: int) -> list[RankedItem]:
    """What both hold from the start. Nobody sends it, so nobody has signed it."""
    dice = random.Random(count)
    rows = []
    for number in range(count):
        subject = b"shared/%d" % number
        item = MutableItem(bytes(32), subject, b"shared", 1, 0, until, dice.randbytes(VALUE_BYTES))
        target = mutable_item_target(subject, b"shared")
        rank = (1).to_bytes(8, "big") + dice.randbytes(32)
        rows.append(RankedItem(target, int(ItemClass.OWNER), rank, target, item, b"", 1))
    return rows


def _differences(clock: RealClock, salt: bytes, until: int) -> list[MutableItem]:
    """Return what differs, signed: each d takes from the front."""
    dice = random.Random(salt)
    secret = secret_of(NETWORK, "changes")
    return [
        make_item(
            NETWORK, secret, salt=b"%s/%d" % (salt, number), seq=clock.wall_ns(), until=until,
            v=dice.randbytes(VALUE_BYTES),
        )
        for number in range(DIFFERENT[-1])
    ]  # fmt: skip


class _Taken:
    """One reconciliation."""

    def __init__(self, report: ReconcileReport, took_s: float, moved: int) -> None:
        self.report, self.took_s, self.moved = report, took_s, moved


async def _compare(here: _Side, there: _Side, exchange: MemoryExchange, d: int) -> _Taken:
    before, began = exchange.bytes_moved, time.perf_counter()
    report = await reconcile(here.node, Contact(there.public, ()), None)
    taken = _Taken(report, time.perf_counter() - began, exchange.bytes_moved - before)
    assert report.complete and not report.refused, report.reasons
    assert report.different == report.pulled + report.pushed == d
    return taken


async def _measure(
    rows: list[RankedItem], changes: dict[int, list[MutableItem]]
) -> dict[int, _Taken]:
    exchange = MemoryExchange()
    async with _side(exchange, "here") as here, _side(exchange, "there") as there:
        for side in (here, there):
            await side.store.put_many(rows)
        first = await _compare(here, there, exchange, 0)
        taken = {-1: first}
        for d in DIFFERENT:
            await here.put(changes[d][: d // 2])
            await there.put(changes[d][d // 2 : d])
            taken[d] = await _compare(here, there, exchange, d)
    return taken


def _lines(n: int, taken: dict[int, _Taken]) -> Iterator[Figure]:
    equal = taken[0]
    for d in DIFFERENT:
        one = taken[d]
        rounds = f"{one.report.rounds} rounds"
        if not d:
            first = f"the first time, sums not kept yet: {taken[-1].took_s * 1e3:.1f} ms"
            yield Figure(
                f"{n:,} items, equal: bytes", one.moved, "B", EQUAL_MAX, at_most=True,
                beside=f"{one.took_s * 1e3:.1f} ms; {first}",
            )  # fmt: skip
            continue
        each = (one.moved - equal.moved) / d
        yield Figure(
            f"{n:,} items, {d:,} differ: bytes", one.moved / 1024, "KiB",
            beside=f"{each:,.0f} B a difference, {rounds}",
        )  # fmt: skip
        yield Figure(
            f"{n:,} items, {d:,} differ: time", one.took_s * 1e3, "ms",
            beside=f"{one.took_s / d * 1e3:.2f} ms a difference, verified and stored",
        )  # fmt: skip


def figures(*, peers: bool) -> Iterator[Figure]:
    """Yield the lines."""
    clock = RealClock()
    until = clock.wall_s() + ITEM_LIFE_S
    rows = _shared_rows(SHARED[-1], until)
    changes = {d: _differences(clock, b"%d" % d, until) for d in DIFFERENT}
    for n in SHARED:
        yield from _lines(n, in_loop("uvloop", _measure, rows[:n], changes))

"""Records: hubs of transports, heartbeats that change nothing, and how soon a change is seen."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import anyio

from benchmarks.harness import Figure, quantile
from benchmarks.nodes import NETWORK, contact_of, in_loop, open_node
from benchmarks.workloads import HEARTBEAT_RECORDS, HUB_SIZES, hub_entries, secret_of
from namespaces_skywire.declarations import ALL, DMSG, TP
from skycore.contracts.dht import Dht
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Fact, Publisher
from skycore.contracts.runtime import Identity
from skycore.contracts.store import Items
from skycore.contracts.transport import Transports
from skycore.events import Events
from skycore.guards.gate import GateSettings, open_gate
from skycore.guards.publish import PublisherSettings, open_publisher
from skycore.model.entries import DmsgEntry
from skycore.model.items import make_item, mutable_item_target
from skycore.node import Node
from skycore.runtime.entropy import RealEntropy
from skycore.runtime.workers import ThreadWorkers
from skycore.testing.fakes import FakeClock
from skycore.testing.seams import SimFiles
from skycore.wiring import Live
from store_memory.service import open_memory_store
from store_memory.settings import MemoryStoreSettings

FULL_NODES = 5
CHANGES = 200
PERIOD_S = 90
ROUNDS = 5
HALF_LIFE_S = 3_600
CHANGED = 0.01


# --- W-hub ---------------------------------------------------------------------------------------


def _moved(node: Node) -> int:
    return sum(t.bytes_sent for t in node.get(Transports).all())


async def _hub(size: int) -> list[Figure]:
    """One visor publishes, one full node keeps, another visor reads: three nodes, real sockets."""
    async with (
        open_node("hub-full", full=True) as full,
        open_node("hub-owner", bootstrap=[contact_of(full)]) as owner,
        open_node("hub-reader", bootstrap=[contact_of(full)]) as reader,
    ):
        await _joined([owner, reader])
        publisher, key = owner.get(Publisher), owner.identity.public
        entries = hub_entries(key, size)
        began = time.perf_counter()
        done = await publisher.publish(Fact(b"tp", TP.encode(entries)))
        publish_s = time.perf_counter() - began
        assert done.reports[0].stored >= 2, done
        began = time.perf_counter()
        found = await reader.get(Dht).get(key, b"tp", age_max_s=0)
        read_s = time.perf_counter() - began
        assert found is not None
        assert found.value == TP.encode(entries)
        entries[size // 2] = hub_entries(key, size, changed=size // 2)[size // 2]
        before, began = _moved(owner), time.perf_counter()
        await publisher.publish(Fact(b"tp", TP.encode(entries)))
        change_s, moved = time.perf_counter() - began, _moved(owner) - before
    return [
        Figure(f"hub of {size:,}: publish", publish_s * 1e3, "ms"),
        Figure(
            f"hub of {size:,}: read by a node that has nothing", read_s * 1e3, "ms",
            beside=f"{len(found.value or b'') / 1024:,.0f} KiB",
        ),
        Figure(
            f"hub of {size:,}: one entry changed, sent to 2 nodes", moved / 1024, "KiB",
            2 * 16.0, at_most=True, beside=f"{change_s * 1e3:.0f} ms",
        ),
    ]  # fmt: skip


async def _joined(nodes: Sequence[Node], peers: int = 1) -> None:
    with anyio.fail_after(20):
        while any(node.get(Dht).peer_count < peers for node in nodes):
            await anyio.sleep(0.02)


# --- W-heartbeat ---------------------------------------------------------------------------------


@asynccontextmanager
async def _service(clock: FakeClock) -> AsyncIterator[tuple[Publisher, Items]]:
    """A publisher before its own store, on a clock that we move."""
    identity = Identity(NETWORK, secret_of(NETWORK, "heartbeat"), bytes(16))
    namespaces = Namespaces(ALL)
    files = SimFiles({})
    async with (
        open_memory_store(MemoryStoreSettings(), RealEntropy()) as store,
        open_gate(
            GateSettings(), store, identity, namespaces, clock, ThreadWorkers(), Events()
        ) as items,
        open_publisher(
            PublisherSettings(), identity, items, Live([]), namespaces, clock, files
        ) as publisher,
    ):
        yield publisher, items


def _salted(index: int, version: int) -> Fact:
    """A record of this node's own key under a salt of its own: 50,000 slots of one publisher."""
    entry = DmsgEntry(static=f"{index:066x}", sequence=version)
    return Fact(b"heartbeat/%d" % index, DMSG.encode(entry))


async def _heartbeats() -> list[Figure]:
    """Some rounds 90 s apart, then the one in which half a lifetime is over, spread over it."""
    clock = FakeClock()
    facts = [_salted(index, 0) for index in range(HEARTBEAT_RECORDS)]
    step = round(1 / CHANGED)
    async with _service(clock) as (publisher, items):
        await publisher.publish_many(facts)
        stored = items.counters.get("stored", 0)
        began = time.process_time()
        for number in range(1, ROUNDS + 1):
            clock.advance(PERIOD_S)
            for index in range(number % step, HEARTBEAT_RECORDS, step):
                facts[index] = _salted(index, number)
            await publisher.publish_many(facts)
        cpu_s = (time.process_time() - began) / ROUNDS
        written = items.counters["stored"] - stored
        assert "renewed" not in items.counters
        clock.advance(HALF_LIFE_S)
        began = time.process_time()
        await publisher.publish_many(facts)
        lease_s = time.process_time() - began - cpu_s
        leases = items.counters["renewed"]
    changed = ROUNDS * HEARTBEAT_RECORDS // step
    return [
        Figure(
            "heartbeat: 50,000 records every 90 s, 1 % changed",
            (cpu_s + lease_s * PERIOD_S / HALF_LIFE_S) / PERIOD_S * 100, "% core", 20.0,
            at_most=True, beside=f"a round {cpu_s:.2f} s, of it 500 signed and checked; "
            f"50,000 leases in each half life {lease_s:.1f} s",
        ),
        Figure(
            "heartbeat: unchanged items signed and written", written - changed, "items", 0.0,
            at_most=True, beside=f"{changed:,} had changed",
        ),
        Figure(
            "heartbeat: leases a record and half life", leases / HEARTBEAT_RECORDS, "leases", 1.0,
            at_most=True,
        ),
    ]  # fmt: skip


# --- change to visible ---------------------------------------------------------------------------


async def _live() -> list[Figure]:
    """Five full nodes on sockets; a change on any of them, and when each other one holds it."""
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(open_node("live-0", full=True, live=True))
        nodes = [first]
        for index in range(1, FULL_NODES):
            node = open_node(f"live-{index}", full=True, live=True, bootstrap=[contact_of(first)])
            nodes.append(await stack.enter_async_context(node))
        await _joined(nodes, FULL_NODES - 1)
        await _met(nodes)
        waits: list[float] = []
        for change in range(CHANGES):
            waits += await _one_change(nodes, nodes[change % FULL_NODES], change)
    seen = f"{len(waits)} arrivals over {FULL_NODES} full nodes in one process"
    return [
        Figure("change to visible on every full node: p50", statistics.median(waits) * 1e3, "ms"),
        Figure(
            "change to visible on every full node: p99", quantile(waits, 0.99) * 1e3, "ms",
            5_000.0, at_most=True, beside=seen,
        ),
    ]  # fmt: skip


async def _met(nodes: Sequence[Node]) -> None:
    """Wait until every full node has seen something of every other one."""
    for index, node in enumerate(nodes):
        await _one_change(nodes, node, -1 - index, limit_s=60.0)


async def _one_change(
    nodes: Sequence[Node], writer: Node, number: int, limit_s: float = 20.0
) -> list[float]:
    """Admit an item at one node alone (no put: it must travel by itself) and time the others."""
    salt = b"live"
    item = writer.get(Items)
    value = json.dumps([number, time.time_ns()]).encode()
    target = mutable_item_target(writer.identity.public, salt)
    now_ns = time.time_ns()
    made = make_item(
        NETWORK, writer.identity.secret, salt=salt, seq=now_ns, until=now_ns // 10**9 + 3_600,
        v=value,
    )  # fmt: skip
    waits: list[float] = []
    began = time.perf_counter()

    async def wait(node: Node) -> None:
        items = node.get(Items)
        while True:
            changed = items.changed()
            held = await items.get(target)
            if held and held[0].item.seq >= made.seq:
                waits.append(time.perf_counter() - began)
                return
            await changed.wait()

    with anyio.fail_after(limit_s):
        async with anyio.create_task_group() as tasks:
            for node in nodes:
                if node is not writer:
                    tasks.start_soon(wait, node)
            await item.admit([made], sender=writer.identity.public)
    return waits


def figures(*, peers: bool) -> Iterator[Figure]:
    """Yield the lines."""
    for size in HUB_SIZES:
        yield from in_loop("uvloop", _hub, size)
    yield from in_loop("uvloop", _heartbeats)
    yield from in_loop("uvloop", _live)

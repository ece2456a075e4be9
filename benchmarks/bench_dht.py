"""The DHT: whole nodes in one process, real sockets, every link encrypted, every item signed."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskStatus

from benchmarks.harness import Figure, quantile
from benchmarks.nodes import ITEM_LIFE_S, NETWORK, contact_of, in_loop, open_node
from benchmarks.workloads import signed_items
from skycore.contracts.dht import Dht, PutReport
from skycore.contracts.store import ItemKey, Items
from skycore.model.items import MutableItem
from skycore.node import Node
from skycore.runtime.clock import RealClock

SIZES = (50, 20)
OPERATIONS = 200
AT_ONCE = 16
K = 20
BOOTSTRAP_MAX_S = 20.0


async def _live(seeds: Sequence[str], stop: anyio.Event, *, task_status: TaskStatus[Node]) -> None:
    async with open_node(bootstrap=seeds) as node:
        task_status.started(node)
        await stop.wait()


@asynccontextmanager
async def _network(count: int) -> AsyncIterator[tuple[list[Node], float, float]]:
    """Run nodes that all know the first one; give them, and seconds to start and to meet.

    Each has a task of its own, as in a process of its own: fifty nodes entered by one task would
    be fifty cancel scopes deep.
    """
    began = time.perf_counter()
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        nodes: list[Node] = [await tasks.start(_live, (), stop)]
        seeds = (contact_of(nodes[0]),)
        while len(nodes) < count:
            nodes.append(await tasks.start(_live, seeds, stop))
        started = time.perf_counter() - began
        await _met(nodes)
        whole = time.perf_counter() - began
        await anyio.sleep(1.0)  # what bootstrap still has on its way
        yield nodes, started, whole
        stop.set()


async def _met(nodes: Sequence[Node]) -> None:
    enough = min(K, len(nodes) - 1)
    until = time.perf_counter() + BOOTSTRAP_MAX_S
    while any(node.get(Dht).peer_count < enough for node in nodes):
        if time.perf_counter() > until:
            raise TimeoutError(f"not bootstrapped in {BOOTSTRAP_MAX_S:g} s")
        await anyio.sleep(0.005)


class _Times:
    """How long each operation took, and what the process spent on all of them."""

    def __init__(self) -> None:
        self.each: list[float] = []
        self.cpu_s = self.wall_s = 0.0

    async def one_by_one(self, works: Sequence[Callable[[], Awaitable[None]]]) -> None:
        cpu, began = time.process_time(), time.perf_counter()
        for work in works:
            start = time.perf_counter()
            await work()
            self.each.append(time.perf_counter() - start)
        self.cpu_s, self.wall_s = time.process_time() - cpu, time.perf_counter() - began


async def _together(works: Sequence[Callable[[], Awaitable[None]]]) -> float:
    """Do all, AT_ONCE at a time; return how many per second."""
    rest = iter(works)
    began = time.perf_counter()

    async def worker() -> None:
        for work in rest:
            await work()

    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(worker)
    return len(works) / (time.perf_counter() - began)


def _said(report: PutReport) -> str:
    return "; ".join(f"{r.peer[:4].hex()} {r.code} {r.text}" for r in report.replicas if r.code)


def _put(node: Node, item: MutableItem, stored_min: int = K - 1) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        report = await node.get(Dht).put(item)
        if report.stored < stored_min:
            raise RuntimeError(f"stored {report.stored} times only: {_said(report)}")

    return work


def _get(node: Node, item: MutableItem, found: list[bool]) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        stored = await node.get(Dht).get(item.subject, item.salt)
        found.append(stored is not None and stored.item == item)

    return work


async def _reads(
    nodes: Sequence[Node], items: Sequence[MutableItem], found: list[bool], dice: random.Random
) -> list[Callable[[], Awaitable[None]]]:
    """Return a read of each item by a node that does not hold it; a copy it has is dropped."""
    works = []
    for item in items:
        reader = dice.choice(nodes)
        for _ in range(20):
            if not await reader.get(Items).get(item.target):
                break
            reader = dice.choice(nodes)
        held = await reader.get(Items).get(item.target)
        await reader.get(Items).drop([ItemKey(s.target, s.item_class) for s in held])
        works.append(_get(reader, item, found))
    return works


async def _measure(count: int) -> list[Figure]:
    dice = random.Random(count)
    until = RealClock().wall_s() + ITEM_LIFE_S
    items = signed_items(NETWORK, 3 * OPERATIONS, until=until, seed=count, sizes=(64, 64))
    async with _network(count) as (nodes, started, whole):
        cold, first, second = (items[i * OPERATIONS : (i + 1) * OPERATIONS] for i in range(3))
        meshing, puts, gets, found = _Times(), _Times(), _Times(), list[bool]()
        await meshing.one_by_one([_put(dice.choice(nodes), item, K // 2) for item in cold])
        # fifty nodes' objects in one heap: the collector need not walk what stays anyway
        gc.collect()
        gc.freeze()
        await puts.one_by_one([_put(dice.choice(nodes), item) for item in first])
        puts_rate = await _together([_put(dice.choice(nodes), item) for item in second])
        await gets.one_by_one(await _reads(nodes, first, found, dice))
        gets_rate = await _together(await _reads(nodes, second, found, dice))
        gc.unfreeze()
    first_puts = OPERATIONS / meshing.wall_s
    return _lines(count, started, whole, first_puts, puts, gets, puts_rate, gets_rate, found)


def _lines(
    count: int,
    started: float,
    whole: float,
    first_puts: float,
    puts: _Times,
    gets: _Times,
    puts_rate: float,
    gets_rate: float,
    found: list[bool],
) -> list[Figure]:
    n, big = f"N={count}", count == 50
    lines = [
        Figure(
            f"{n}: all started and met", whole, "s", 1.0 if big else None, at_most=True,
            beside=f"of which starting {count} nodes {started:.2f} s",
        )
    ]  # fmt: skip
    for what, times, rate, p50, per_s in (
        ("put, k=20", puts, puts_rate, 4.0, 250.0),
        ("get, uncached", gets, gets_rate, 0.5, 2_000.0),
    ):
        middle = statistics.median(times.each) * 1e3
        late = quantile(times.each, 0.95) * 1e3
        alone = len(times.each) / times.wall_s
        lines += [
            Figure(
                f"{n}: {what}, p50", middle, "ms", p50 if big else None, at_most=True,
                beside=f"p95 {late:.2f} ms; CPU {times.cpu_s / len(times.each) * 1e3:.2f} ms each",
            ),
            Figure(
                f"{n}: {what}, one at a time", alone, "1/s", per_s if big else None,
                beside=f"{AT_ONCE} at a time {rate:,.0f}/s",
            ),
        ]  # fmt: skip
    lines[2].beside += f"; the first {OPERATIONS}, while links are made, {first_puts:,.0f}/s"
    share = 100 * sum(found) / len(found)
    return [*lines, Figure(f"{n}: found", share, "%", 100.0)]


def figures(*, peers: bool) -> Iterator[Figure]:
    """Yield the lines."""
    for count in SIZES:
        yield from in_loop("uvloop", _measure, count)
    if peers:
        from benchmarks.peers import kademlia_dht

        yield from kademlia_dht()

"""A thousand whole nodes in one process, on a virtual clock.

    python examples/simulate_1000_nodes.py            # a thousand: ten minutes, 9 GiB
    python examples/simulate_1000_nodes.py 100        # a hundred: half a minute

Each one is the node that runs on real sockets: handshakes, encryption, streams, DHT. A tenth of
them write a record, a tenth is killed without a goodbye, and then others read what was written.
"""

from __future__ import annotations

import logging
import random
import resource
import statistics
import sys
from time import perf_counter

import anyio
from rich.console import Console
from rich.table import Table

from skycore.contracts.dht import Dht
from skycore.contracts.publish import Fact, Publisher
from skycore.testing import SimNode, World, simulate

READS = 200
SETTLE_S = 10
SETTINGS = {"dht_kademlia": {"check_interval_s": 600}}


class Report:
    """Rows of real and virtual time."""

    def __init__(self, world: World, title: str) -> None:
        self.table = Table("what", "virtual s", "real s", "result", title=title)
        self._world, self._real, self._virtual = world, perf_counter(), 0.0

    def row(self, what: str, result: str) -> None:
        real, now = perf_counter(), anyio.current_time()
        self.table.add_row(what, f"{now - self._virtual:.1f}", f"{real - self._real:.1f}", result)
        self._real, self._virtual = real, now


async def scenario(n: int, seed: int) -> Report:
    dice = random.Random(seed)
    async with World(seed, settings=SETTINGS) as world:
        report = Report(world, f"{n} nodes, seed {seed}")
        await world.full_node()
        nodes = await world.spawn("visor", n=n - 1, pause_s=0.05)
        await anyio.sleep(SETTLE_S)
        counts = [peers(node) for node in nodes]
        median = statistics.median(counts)
        report.row("start and meet", f"{min(counts)} to {max(counts)} peers, median {median:g}")

        writers = dice.sample(nodes, max(1, n // 10))
        async with anyio.create_task_group() as tasks:
            for node in writers:
                fact = Fact(b"motd", f"hello from {node.name}".encode())
                tasks.start_soon(node.get(Publisher).publish, fact)
        report.row("write", f"{len(writers)} records")

        victims = dice.sample(nodes, n // 10)
        async with anyio.create_task_group() as tasks:
            for node in victims:
                tasks.start_soon(world.kill, node)
        report.row("kill", f"{len(victims)} nodes")

        alive = [node for node in nodes if node.node]
        found = []

        async def read(reader: SimNode, writer: SimNode) -> None:
            item = await reader.get(Dht).get(writer.public, b"motd", age_max_s=0)
            found.append(item is not None)

        async with anyio.create_task_group() as tasks:
            for _ in range(READS):
                tasks.start_soon(read, dice.choice(alive), dice.choice(writers))
        report.row("read", f"{sum(found)} of {READS} found")

        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        report.row("memory", f"{memory:.0f} MiB, {memory / n:.2f} a node")
        report.row("trace", f"{world.trace.count} events, {world.trace.digest[:8]}")
        return report


def peers(node: SimNode) -> int:
    return node.get(Dht).peer_count


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    Console().print(simulate(scenario, n, seed, seed=seed, limit_s=3_600).table)

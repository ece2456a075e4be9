"""Simulation: how long an hour of a network takes, cores alone and whole nodes."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import anyio

from benchmarks.harness import Figure
from skycore.contracts.dht import Dht
from skycore.contracts.publish import Fact, Publisher
from skycore.testing import World, simulate

HOUR_S = 3_600.0
CORES_S = 240.0
NODES_S = 300.0
"""What is run of the hour: the load is the same all along, so the rest is arithmetic."""
MEET_S = 60.0
CORES = 1_000
NODES = 50
CHURN = Path(__file__).parents[1] / "tests" / "sim" / "test_churn.py"


def _churn() -> ModuleType:
    """Load tier 1 of the simulation, which lives with the tests that use it."""
    spec = importlib.util.spec_from_file_location("bench_churn", CHURN)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_churn"] = module
    spec.loader.exec_module(module)
    return module


def _cores() -> Figure:
    churn = _churn()
    world = churn.grown(1, CORES)
    began, cpu, calls = time.perf_counter(), time.process_time(), world.calls
    world.run(world.now + CORES_S)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    return Figure(
        f"{CORES:,} cores, seconds per virtual hour", took * HOUR_S / CORES_S, "s", 30.0,
        at_most=True,
        beside=f"from {CORES_S:.0f} s of it: {world.calls - calls:,} calls, {cpu:.1f} s of CPU",
    )  # fmt: skip


def _w_churn() -> Figure:
    churn = _churn()
    began = time.perf_counter()
    results, _ = churn.churned(1, 300, 3, 1_500)
    return Figure(
        "churn: 300 cores, 20 % a minute, 1,500 gets: found",
        100 * churn.found_share(results), "%", 99.9,
        beside=f"{time.perf_counter() - began:.1f} s for 3 virtual minutes",
    )  # fmt: skip


def _nodes() -> Figure:
    spent: list[float] = []

    async def scenario() -> tuple[int, int]:
        async with World(seed=1) as world:
            await world.full_node()
            nodes = await world.spawn("visor", n=NODES - 1)
            await anyio.sleep(MEET_S)
            writers = nodes[::5]
            for index, node in enumerate(writers):
                await node.get(Publisher).publish(Fact(b"bench", b"%d" % index))
            spent.extend((time.perf_counter(), time.process_time()))
            await anyio.sleep(NODES_S)
            spent.extend((time.perf_counter(), time.process_time()))
            met = min(node.get(Dht).peer_count for node in nodes)
            reader = nodes[-1].get(Dht)
            found = [await reader.get(node.public, b"bench") is not None for node in writers]
            return met, 100 * sum(found) // len(found)

    met, share = simulate(scenario, seed=1)
    began, cpu, ended, cpu_ended = spent
    return Figure(
        f"{NODES} whole nodes, seconds per virtual hour", (ended - began) * HOUR_S / NODES_S, "s",
        60.0, at_most=True,
        beside=f"from {NODES_S:.0f} s of it, {cpu_ended - cpu:.1f} s of CPU; all with {met} peers "
        f"or more, {share} % of the records found",
    )  # fmt: skip


def figures(*, peers: bool) -> Iterator[Figure]:
    """Yield the lines."""
    yield _cores()
    yield _w_churn()
    yield _nodes()

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
    world.run(world.now + HOUR_S)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    return Figure(
        f"{CORES:,} cores, one virtual hour", took, "s", 30.0, at_most=True,
        beside=f"{world.calls - calls:,} calls; {cpu:.1f} s of CPU",
    )  # fmt: skip


def _w_churn() -> Figure:
    churn = _churn()
    began = time.perf_counter()
    results, _ = churn.churned(7, CORES, 5, 10_000)
    return Figure(
        "W-churn: 1,000 cores, 20 % a minute, 10,000 gets: found",
        100 * churn.found_share(results), "%", 99.9,
        beside=f"{time.perf_counter() - began:.1f} s for 5 virtual minutes",
    )  # fmt: skip


def _nodes() -> Figure:
    async def scenario() -> tuple[int, int]:
        async with World(seed=1) as world:
            await world.full_node()
            nodes = await world.spawn("visor", n=NODES - 1)
            for index, node in enumerate(nodes[::5]):
                await node.get(Publisher).publish(Fact(b"bench", b"%d" % index))
            await anyio.sleep(HOUR_S)
            met = min(node.get(Dht).peer_count for node in nodes)
            got = 0
            for node in nodes[::5]:
                found = await nodes[-1].get(Dht).get(node.public, b"bench")
                got += found is not None
            return met, got

    began, cpu = time.perf_counter(), time.process_time()
    met, got = simulate(scenario, seed=1)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    return Figure(
        f"{NODES} whole nodes, one virtual hour", took, "s", 60.0, at_most=True,
        beside=f"all with {met} peers or more; {got} of {len(range(0, NODES - 1, 5))} records "
        f"found at its end; {cpu:.1f} s of CPU",
    )  # fmt: skip


def figures(*, peers: bool) -> Iterator[Figure]:
    """Yield the lines."""
    yield _cores()
    yield _w_churn()
    yield _nodes()

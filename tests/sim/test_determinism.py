"""One seed is one run: every byte, at every time, in this process and in any other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from skycore.testing import Link, World, first_difference, simulate

SCENARIO = Path(__file__).with_name("scenario_of_everything.py")


def run(seed):
    namespace = {"__name__": "scenario"}
    exec(compile(SCENARIO.read_text(), SCENARIO, "exec"), namespace)
    return simulate(namespace["everything"], seed, seed=seed, limit_s=10_000)


def test_the_same_seed_twice_is_the_same_run(sim_seed):
    one, again = run(sim_seed), run(sim_seed)
    assert one.count > 10_000
    assert one.digest == again.digest, first_difference(one.kept, again.kept)


def test_another_seed_is_another_run(sim_seed):
    assert run(sim_seed).digest != run(sim_seed + 1).digest


@pytest.mark.processes
def test_the_hash_seed_of_the_process_changes_nothing(sim_seed):
    digests = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, SCENARIO, str(sim_seed)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1
    assert digests == {run(sim_seed).digest}


def test_a_lossy_link_is_as_repeatable(sim_seed):
    async def main():
        link = Link(latency_s=0.08, jitter_s=0.05, loss=0.05, split=0.2)
        async with World(sim_seed, link=link) as world:
            await world.full_node()
            await world.spawn("visor", n=4)
            await world.until(lambda: world.trace.count > 500, limit_s=600)
        return world.trace.digest

    assert simulate(main, limit_s=10_000) == simulate(main, limit_s=10_000)

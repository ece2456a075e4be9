from __future__ import annotations

import threading

import anyio
import pytest

from skycore.runtime.clock import RealClock
from skycore.runtime.entropy import RealEntropy
from skycore.runtime.workers import ThreadWorkers


def test_the_clock_goes_forward():
    clock = RealClock()
    before = clock.now()
    assert clock.now() >= before
    assert clock.wall_ns() // 10**9 <= clock.wall_s() <= clock.wall_ns() // 10**9 + 1
    assert clock.wall_s() > 1_700_000_000


def test_entropy_differs():
    entropy = RealEntropy()
    assert len(entropy.bytes(32)) == 32
    assert entropy.bytes(32) != entropy.bytes(32)
    assert entropy.random().random() != entropy.random().random()


async def test_workers_run_elsewhere_and_bring_results_and_errors_back():
    workers = ThreadWorkers(1)
    assert await workers.run(threading.get_ident) != threading.get_ident()

    def fail():
        raise KeyError("x")

    with pytest.raises(KeyError):
        await workers.run(fail)


async def test_workers_are_bounded():
    workers = ThreadWorkers(2)
    gate = threading.Event()
    started = []
    both = threading.Barrier(3)

    def work():
        started.append(1)
        if len(started) <= 2:
            both.wait(10)
        gate.wait(10)

    async def one():
        await workers.run(work)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(one)
        await anyio.to_thread.run_sync(both.wait, 10)
        await anyio.wait_all_tasks_blocked()
        assert len(started) == 2
        gate.set()
    assert len(started) == 5

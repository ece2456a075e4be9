"""SimLoop: a virtual clock that never waits, never hangs in silence, and repeats itself."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from skycore.testing.loop import (
    SimLoop,
    SimulationDeadlockError,
    SimulationLivelockError,
    SimulationTimeoutError,
    simulate,
)


def test_a_day_passes_at_once_and_sleep_wakes_on_time():
    async def main():
        woken = []

        async def sleeper(seconds):
            await anyio.sleep(seconds)
            woken.append((seconds, anyio.current_time()))

        async with anyio.create_task_group() as tasks:
            for seconds in (86_400, 3_600.5, 0.001):
                tasks.start_soon(sleeper, seconds)
        return woken

    assert simulate(main) == [(s, pytest.approx(s)) for s in (0.001, 3_600.5, 86_400)]


def test_time_limits_are_virtual():
    async def main():
        with anyio.move_on_after(1_000) as scope:
            await anyio.sleep(2_000)
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError), anyio.fail_after(5):
            await anyio.sleep_forever()
        return anyio.current_time()

    assert simulate(main) == pytest.approx(1_005)


def test_result_arguments_and_seed_of_random():
    async def main(a, b):
        return a + b, random.random()

    before = random.getstate()
    assert simulate(main, 1, 2, seed=9) == simulate(main, 1, 2, seed=9)
    assert simulate(main, 1, 2, seed=9) != simulate(main, 1, 2, seed=8)
    assert random.getstate() == before


async def _wait_for_nobody():
    await anyio.Event().wait()


def test_deadlock_is_an_error_that_names_who_waits():
    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_wait_for_nobody, name="the one who waits")

    with pytest.raises(SimulationDeadlockError, match="the one who waits") as caught:
        simulate(main, seed=77)
    assert "test_loop.py" in str(caught.value)
    assert "simulation seed=77" in caught.value.__notes__


def test_a_worker_thread_is_a_deadlock_not_a_hang():
    async def main():
        await anyio.to_thread.run_sync(lambda: None)

    with pytest.raises(SimulationDeadlockError):
        simulate(main)


def test_livelock_is_an_error(monkeypatch):
    monkeypatch.setattr("skycore.testing.loop.TURNS_AT_ONE_TIME_MAX", 1_000)

    async def main():
        while True:
            await anyio.lowlevel.checkpoint()

    with pytest.raises(SimulationLivelockError, match="1000 turns"):
        simulate(main)


async def _tick():
    for _ in range(10**9):
        await anyio.sleep(60)


def test_virtual_time_is_bounded():
    cleaned = []

    async def main():
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_tick)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5)  # a goodbye is still possible
            cleaned.append(True)

    with pytest.raises(SimulationTimeoutError, match="3600 s"):
        simulate(main, limit_s=3_600)
    assert cleaned == [True]


def test_an_error_passes_through_with_its_seed():
    async def main():
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        simulate(main, seed=5)
    assert caught.value.__notes__ == ["simulation seed=5"]


def _order_of_cancellation():
    """Return in which order tasks that wait inside scopes of their own are cancelled."""

    async def main():
        order = []

        async def part(number):
            with contextlib.suppress(TimeoutError):
                try:
                    with anyio.fail_after(1_000):
                        await anyio.sleep_forever()
                finally:
                    order.append(number)

        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(part, number)
            await anyio.sleep(1)
            tasks.cancel_scope.cancel()
        return order

    return simulate(main)


def test_cancellation_has_one_order_whatever_the_memory_looks_like():
    first = _order_of_cancellation()
    litter = [[object() for _ in range(n * 37 % 101)] for n in range(300)]
    assert _order_of_cancellation() == first
    assert sorted(first) == list(range(50))
    del litter


@pytest.mark.parametrize("frozen", [False, True])
def test_collector_and_anyio_are_put_back(frozen):
    from anyio._backends import _asyncio

    scope = _asyncio.CancelScope

    async def main():
        assert not gc.isenabled()
        assert hash(anyio.CancelScope()) < 1_000
        assert isinstance(asyncio.get_running_loop(), SimLoop)

    assert gc.get_freeze_count(), "the suite keeps what it began with frozen"
    if not frozen:
        gc.unfreeze()
    try:
        simulate(main)
        assert bool(gc.get_freeze_count()) == frozen
    finally:
        gc.freeze()
    assert gc.isenabled()
    assert _asyncio.CancelScope is scope

"""What signals do to a node: in good order, in bounded time, or at once; and what a crash does."""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager

import anyio
import pytest

from skycore.errors import StoreError
from skycore.node import STOP_S, until_told
from skycore.testing import sim_backend

TERM = signal.SIGTERM


@pytest.fixture
def anyio_backend():
    return sim_backend()


async def stop(*times, goodbye_s=0.0, start_s=0.0, crash_s=None):
    """Return when it was over and what was done until then."""
    done = []

    @asynccontextmanager
    async def node():
        async with anyio.create_task_group() as tasks:
            await anyio.sleep(start_s)
            done.append("up")
            if crash_s is not None:
                tasks.start_soon(crash)
            yield
            await anyio.sleep(goodbye_s)
            done.append("goodbye")

    async def crash():
        await anyio.sleep(crash_s)
        raise StoreError("the disk is gone")

    async def signals():
        for at in times:
            await anyio.sleep_until(began + at)
            yield TERM
        await anyio.sleep_forever()

    began = anyio.current_time()
    await until_told(node(), signals())
    return round(anyio.current_time() - began, 3), done


async def test_the_first_signal_lets_parts_say_goodbye():
    assert await stop(10, goodbye_s=2) == (12, ["up", "goodbye"])


async def test_goodbyes_of_many_parts_in_vain_are_bounded_together():
    """Each may wait 2 s for a service that hangs; a node with four of them waits no 8 s."""
    assert await stop(10, goodbye_s=60) == (10 + STOP_S, ["up"])


async def test_a_second_signal_ends_it_at_once_and_one_during_the_start_too():
    assert await stop(10, 11, goodbye_s=4) == (11, ["up"])
    assert await stop(1, start_s=5) == (1, [])


async def test_a_part_that_crashes_ends_it_with_its_error_also_while_it_stops():
    with pytest.raises(ExceptionGroup):
        await stop(crash_s=5)
    with pytest.raises(ExceptionGroup):
        await stop(4, goodbye_s=3, crash_s=5)

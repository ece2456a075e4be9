from __future__ import annotations

import anyio
import pytest

from skycore.guards.handshakes import WAITING_MAX, WAITING_PER_HOST_MAX, Handshakes
from skycore.testing.loop import sim_backend
from skycore.testing.seams import SimClock


@pytest.fixture
def anyio_backend():
    return sim_backend(3_600)


def places(**more):
    return Handshakes(SimClock(), **{"places": 64, "places_per_host": 8, **more})


async def quick():
    await anyio.sleep(0.01)
    return "done"


async def silent():
    await anyio.sleep(5)


async def test_runs_the_work():
    shakes = places()
    assert await shakes.run("host", quick) == "done"
    assert shakes.in_flight == 0


async def test_an_error_gives_the_place_back():
    shakes = places(places=1)

    async def fail():
        raise ValueError

    for _ in range(3):
        with pytest.raises(ValueError):
            await shakes.run("host", fail)
    assert shakes.in_flight == 0


async def test_bounded_in_all_and_per_host():
    shakes = places()
    most = []

    async def watch():
        most.append(shakes.in_flight)
        await quick()

    async with anyio.create_task_group() as tasks:
        for _ in range(40):
            tasks.start_soon(shakes.run, "one", watch)
    assert max(most) == 8 and len(most) == 40 and not shakes.evicted
    most.clear()
    async with anyio.create_task_group() as tasks:
        for n in range(400):
            tasks.start_soon(shakes.run, f"host {n}", watch)
    assert max(most) == 64 and len(most) == 400 and not shakes.evicted


async def test_f8_silent_peers_of_one_host_do_not_keep_an_honest_one_out():
    shakes = places()
    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(shakes.run, "127.0.0.1", silent)
        await anyio.sleep(0.1)
        began = anyio.current_time()
        assert await shakes.run("127.0.0.1", quick) == "done"
        assert anyio.current_time() - began < 1
        began = anyio.current_time()
        assert await shakes.run("192.0.2.1", quick) == "done"
        assert anyio.current_time() - began < 0.1, "another host waits for nobody"
        tasks.cancel_scope.cancel()
    assert shakes.in_flight == 0


async def test_f8_silent_peers_of_many_hosts_do_not_keep_an_honest_one_out():
    shakes = places()
    async with anyio.create_task_group() as tasks:
        for n in range(300):
            tasks.start_soon(shakes.run, f"host {n % 50}", silent)
        await anyio.sleep(0.1)
        assert shakes.in_flight == 64
        began = anyio.current_time()
        assert await shakes.run("honest", quick) == "done"
        assert anyio.current_time() - began < 1
        tasks.cancel_scope.cancel()


async def test_a_flood_is_refused_at_once_and_counted():
    shakes = places()
    async with anyio.create_task_group() as tasks:
        for _ in range(5_000):
            tasks.start_soon(shakes.run, "one", silent)
        await anyio.wait_all_tasks_blocked()
        assert shakes.in_flight == 8
        assert shakes.refused == 5_000 - 8 - WAITING_PER_HOST_MAX
        for n in range(5_000):
            tasks.start_soon(shakes.run, f"host {n}", silent)
        await anyio.wait_all_tasks_blocked()
        assert shakes.in_flight == 64
        assert len(shakes._waiting) == WAITING_MAX
        tasks.cancel_scope.cancel()
    assert shakes.in_flight == 0 and not shakes._waiting and not shakes._waiting_of
    assert not shakes._flying_of


async def test_nobody_is_put_out_while_nobody_wants_in():
    shakes = places(places=1, places_per_host=1)
    with anyio.move_on_after(10):
        assert await shakes.run("slow", silent) is None
    assert shakes.evicted == 0

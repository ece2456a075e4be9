from __future__ import annotations

import itertools
import random

import anyio
import pytest

from skycore.errors import DialError
from skycore.guards.dials import REMEMBERED_MAX, Dials
from skycore.guards.links import LABELS
from skycore.model.keys import PubKey
from skycore.testing.loop import sim_backend
from skycore.testing.seams import SimClock

KEY = PubKey(b"k" * 32)


@pytest.fixture
def anyio_backend():
    return sim_backend(100_000)


def stronger(one, other):
    return max(one, other, key=LABELS.index)


class Remote:
    """A peer that can be up or down, and the dials to it."""

    def __init__(self, tasks, **more):
        self.up = True
        self.calls = []
        self.takes_s = 0.1
        settings = {"at_once_max": 64, "limit_s": 10, "first_s": 0.5, "longest_s": 20, **more}
        self.dials = Dials(self.work, tasks, SimClock(), random.Random(1), **settings)

    async def work(self, remote, dial):
        self.calls.append((anyio.current_time(), remote, dial.label))
        await anyio.sleep(self.takes_s)
        if not self.up:
            raise DialError("refused", hint="start it")
        return self

    async def join(self, key=KEY, label="ephemeral"):
        return await self.dials.join(key, label, stronger)


async def test_t4834_parallel_callers_share_one_dial():
    async with anyio.create_task_group() as tasks:
        remote = Remote(tasks)
        async with anyio.create_task_group() as callers:
            for _ in range(100):
                callers.start_soon(remote.join)
        assert len(remote.calls) == 1 and remote.dials.in_flight == 0


async def test_a_failure_reaches_every_caller_with_its_hint():
    async with anyio.create_task_group() as tasks:
        remote = Remote(tasks)
        remote.up = False
        errors = []

        async def call():
            with pytest.raises(DialError, match="refused") as caught:
                await remote.join()
            errors.append(caught.value)

        async with anyio.create_task_group() as callers:
            for _ in range(3):
                callers.start_soon(call)
        assert {error.hint for error in errors} == {"start it"}
        assert len({id(error) for error in errors}) == 3


async def test_t4475_a_dead_peer_is_dialled_ever_more_rarely():
    async with anyio.create_task_group() as tasks:
        remote = Remote(tasks)
        remote.up = False
        while anyio.current_time() < 3_600:
            with pytest.raises(DialError):
                await remote.join()
            await anyio.sleep(0.05)
        starts = [at for at, _, _ in remote.calls]
        gaps = [b - a for a, b in itertools.pairwise(starts)]
        assert gaps[0] < 1 and max(gaps) < 25 and 140 < len(starts) < 260
        assert gaps[:4] == sorted(gaps[:4])


async def test_c40_back_within_30_s_after_a_minute_away():
    async with anyio.create_task_group() as tasks:
        remote = Remote(tasks)
        remote.up = False
        back_at = None
        while back_at is None:
            remote.up = anyio.current_time() >= 60
            try:
                await remote.join()
                back_at = anyio.current_time()
            except DialError:
                await anyio.sleep(1)
        assert back_at < 90


async def test_o05_a_peer_that_starts_a_moment_late_is_reached_a_moment_later():
    async with anyio.create_task_group() as tasks:
        remote = Remote(tasks)
        remote.up = False
        with pytest.raises(DialError):
            await remote.join()
        await anyio.sleep(0.3)
        remote.up = True
        await anyio.sleep(0.5)
        await remote.join()
        assert anyio.current_time() < 1.2


async def test_c40_good_news_ends_the_wait_at_once():
    async with anyio.create_task_group() as tasks:
        remote = Remote(tasks)
        remote.up = False
        for _ in range(6):
            with pytest.raises(DialError):
                await remote.join()
            await anyio.sleep(30)
        with pytest.raises(DialError):
            await remote.join()
        with pytest.raises(DialError, match=r"tried \d times; again in"):
            await remote.join()
        remote.up = True
        remote.dials.clear(KEY)
        await remote.join()


async def test_o06_a_callers_cancellation_marks_nobody_bad():
    async with anyio.create_task_group() as tasks:
        remote = Remote(tasks)
        remote.takes_s = 1
        with anyio.move_on_after(0.5) as gave_up:
            await remote.join()
        assert gave_up.cancelled_caught
        await remote.join()  # joins the same dial, which nobody stopped
        assert len(remote.calls) == 1
        await remote.join()
        assert len(remote.calls) == 2


async def test_a_person_does_not_wait_for_a_backoff():
    async with anyio.create_task_group() as tasks:
        remote = Remote(tasks)
        remote.up = False
        for _ in range(3):
            with pytest.raises(DialError, match="refused"):
                await remote.join(label="user")
        assert len(remote.calls) == 3


async def test_one_dial_has_a_limit():
    async with anyio.create_task_group() as tasks:
        remote = Remote(tasks)
        remote.takes_s = 1_000
        with pytest.raises(DialError, match="no connection within 10 s"):
            await remote.join()
        assert anyio.current_time() == 10


async def test_dials_at_once_are_bounded():
    async with anyio.create_task_group() as tasks:
        remote = Remote(tasks, at_once_max=4)
        async with anyio.create_task_group() as callers:
            for n in range(20):
                callers.start_soon(remote.join, PubKey(bytes((n,)) * 32))
        assert [round(at, 1) for at, _, _ in remote.calls] == sorted([0.0, 0.1, 0.2, 0.3, 0.4] * 4)


async def test_what_is_remembered_is_bounded():
    async with anyio.create_task_group() as tasks:
        remote = Remote(tasks)
        remote.up, remote.takes_s = False, 0
        for n in range(REMEMBERED_MAX + 50):
            with pytest.raises(DialError):
                await remote.join(PubKey(n.to_bytes(32, "big")))
        assert len(remote.dials._failures) == REMEMBERED_MAX


async def test_t700_stopping_tells_whoever_waits():
    raised = []
    async with anyio.create_task_group() as callers, anyio.create_task_group() as tasks:
        remote = Remote(tasks)
        remote.takes_s = 100

        async def call():
            with pytest.raises(DialError, match="stops"):
                await remote.join()
            raised.append(1)

        callers.start_soon(call)
        await anyio.sleep(0.1)
        tasks.cancel_scope.cancel()
    assert raised


async def test_a_mistake_in_a_type_is_a_dial_error_and_no_more(caplog):
    async with anyio.create_task_group() as tasks:
        remote = Remote(tasks)

        async def broken(key, label):
            raise KeyError("x")

        remote.dials._work = broken
        with pytest.raises(DialError, match="KeyError"):
            await remote.join()


async def test_s11_a_goodbye_during_the_end_of_all_tasks_is_refused_a_dial_at_once():
    """A task begun then would never be told of the cancellation, and spin: time stood still."""
    raised = []
    with anyio.CancelScope() as node:
        async with anyio.create_task_group() as tasks:
            remote = Remote(tasks)
            tasks.start_soon(remote.dials.ending.watch)
            await anyio.sleep(0.1)
            node.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.1)
                try:
                    await remote.join()
                except DialError as bad:
                    raised.append(str(bad))
    assert raised == ["this node stops"]

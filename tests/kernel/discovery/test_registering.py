"""The registration loop: when it speaks, what it makes of trouble, how it leaves."""

from __future__ import annotations

import itertools
import logging
import random

import anyio
import pytest

from skycore.discovery.registering import Registration, leave_all
from skycore.errors import DiscoveryError
from skycore.testing.loop import simulate


class Server:
    """Notes when it is asked; fails as `troubles` says for each call; takes `takes_s` to answer."""

    def __init__(self, *troubles, takes_s=0.0):
        self.troubles, self.takes_s = list(troubles), takes_s
        self.asked_at, self.left_at = [], []
        self.busy = 0

    async def register(self):
        assert self.busy == 0, "one request at a time"
        self.busy += 1
        self.asked_at.append(anyio.current_time())
        try:
            await anyio.sleep(self.takes_s)
        finally:
            self.busy -= 1
        if self.troubles and (trouble := self.troubles.pop(0)):
            raise trouble

    async def leave(self):
        self.left_at.append(anyio.current_time())
        await anyio.sleep(self.takes_s)


def run(server, for_s, *nudges, seed=1, **options):
    """Let the loop run, nudge it at some times; return it."""
    made = []

    async def main():
        loop = Registration(
            server.register, server.leave, dice=random.Random(seed), name="tests", **options
        )
        made.append(loop)

        async def nudge_all():
            for at_s in nudges:
                await anyio.sleep(at_s - anyio.current_time())
                loop.nudge()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(nudge_all)
            tasks.start_soon(loop.run)
            await anyio.sleep(for_s)
            await loop.leave()
            tasks.cancel_scope.cancel()

    simulate(main)
    return made[0]


def gaps(times):
    return [round(b - a, 6) for a, b in itertools.pairwise(times)]


def test_it_repeats_before_the_interval_is_over_and_leaves_at_the_end():
    server = Server()
    loop = run(server, 1_000)
    assert server.asked_at[0] == 0
    assert all(85.5 <= gap <= 90 for gap in gaps(server.asked_at))
    assert loop.state.is_current and loop.state.rounds == len(server.asked_at) == 12
    assert server.left_at == [1_000]


def test_l25_five_hundred_changes_are_at_most_one_request_in_five_seconds():
    server = Server()
    run(server, 60, *(10 + i * 0.02 for i in range(500)))
    assert min(gaps(server.asked_at)) >= 5
    assert server.asked_at[-1] >= 19.98, "the last change was said"
    assert len(server.asked_at) == 3, "at the start, and two for ten seconds of changes"


def test_a_change_during_a_request_is_said_with_the_next():
    server = Server(takes_s=4)
    run(server, 30, 1.0)
    assert server.asked_at == [0, 9]


@pytest.mark.parametrize("seed", range(20))
def test_trouble_is_met_with_patience_and_nudges_do_not_shorten_it(seed):
    troubles = [DiscoveryError("away")] * 8
    server = Server(*troubles)
    nudges = [i * 0.5 for i in range(1, 1_000)]
    loop = run(server, 700, *nudges, seed=seed)
    waits = gaps(server.asked_at)
    for attempt, wait in enumerate(waits[:8], 1):
        assert max(5, 0.8 * min(45, 5 * 2 ** (attempt - 1))) <= wait <= 1.2 * 45
    assert loop.state.failures == 8 and loop.state.is_current


def test_trouble_is_told_once_and_so_is_its_end(caplog):
    caplog.set_level(logging.INFO)
    server = Server(DiscoveryError("away"), DiscoveryError("away"), DiscoveryError("full"), None)
    loop = run(server, 100)
    assert caplog.messages == [
        "tests failed error='away'",
        "tests failed error='full'",
        "tests works again failures=3",
    ]
    assert loop.state.trouble == ""


def test_state_tells_the_trouble():
    loop = run(Server(DiscoveryError("away")), 3)
    assert (loop.state.is_current, loop.state.trouble) == (False, "away")


def test_leaving_ends_after_two_seconds_whatever_the_server_does():
    server, ended = Server(takes_s=3_600), []

    async def main():
        loop = Registration(server.register, server.leave, dice=random.Random(1), name="tests")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(loop.run)
            await anyio.sleep(10)
            await leave_all(loop)
        ended.append(anyio.current_time())

    simulate(main)
    assert server.left_at == [10] and ended == [12], "and the loop is over"


def test_one_that_is_cancelled_says_nothing_more():
    server = Server()

    async def main():
        loop = Registration(server.register, server.leave, dice=random.Random(1), name="tests")
        with anyio.move_on_after(10):
            await loop.run()

    simulate(main)
    assert server.asked_at == [0] and server.left_at == []


def test_one_that_never_began_has_nothing_to_take_back():
    server = Server()

    async def main():
        loop = Registration(server.register, server.leave, dice=random.Random(1), name="tests")
        await loop.leave()
        await loop.run()

    simulate(main)
    assert server.asked_at == server.left_at == []


def test_a_server_that_refuses_to_let_go_is_no_error():
    async def refuse():
        raise DiscoveryError("no")

    server = Server()
    server.leave = refuse
    run(server, 5)


def test_a_mistake_in_the_code_ends_the_loop():
    server = Server(ValueError("a bug"))
    with pytest.raises(ExceptionGroup) as error:
        run(server, 5)
    assert error.group_contains(ValueError, match="a bug")


def test_without_a_debounce_a_server_in_trouble_is_not_hammered():
    server = Server(*[DiscoveryError("no")] * 100_000)
    run(server, 600, debounce_s=0.0)
    assert len(server.asked_at) <= 20

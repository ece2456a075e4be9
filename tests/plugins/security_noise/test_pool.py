"""The pool: bursts of 8, in the background, and no pair twice."""

from __future__ import annotations

import itertools

import anyio
import anyio.lowlevel
import pytest

from security_noise.pool import BURST, KeyPairs
from skycore.model.keys import ED25519
from skycore.testing.fakes import SeededEntropy


class CountingSuite:
    """ED25519 that counts what is asked of it."""

    seed_bytes = ED25519.seed_bytes

    def __init__(self) -> None:
        self.made = 0

    def dh_pair(self, seed: bytes) -> tuple[bytes, bytes]:
        self.made += 1
        return ED25519.dh_pair(seed)

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"{name} was asked: a pair is not checked again")


def pool(pairs_max: int = 32, seed: int = 1) -> tuple[KeyPairs, CountingSuite]:
    suite = CountingSuite()
    return KeyPairs(suite, SeededEntropy(seed), pairs_max), suite  # type: ignore[arg-type]


def test_an_empty_pool_makes_one_burst() -> None:
    pairs, suite = pool()
    pairs.take()
    assert suite.made == BURST == 8
    assert len(pairs) == 7
    for _ in range(7):
        pairs.take()
    assert suite.made == 8


def test_no_pair_is_handed_out_twice() -> None:
    pairs, _ = pool()
    taken = [pairs.take() for _ in range(2_000)]
    assert len({pair.secret for pair in taken}) == len({pair.public for pair in taken}) == 2_000
    assert ED25519.dh_pair(taken[0].secret)[1] == taken[0].public


async def test_refilled_in_the_background_up_to_its_bound() -> None:
    pairs, suite = pool(pairs_max=32)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pairs.refill)
        await anyio.wait_all_tasks_blocked()
        assert len(pairs) == suite.made == 32
        for _ in range(7):
            pairs.take()
        await anyio.wait_all_tasks_blocked()
        assert suite.made == 32  # less than a burst is missing
        pairs.take()
        assert suite.made == 32  # taking makes nobody wait
        await anyio.wait_all_tasks_blocked()
        assert len(pairs) == 32
        tasks.cancel_scope.cancel()


async def test_everybody_has_a_turn_between_bursts() -> None:
    pairs, suite = pool(pairs_max=64)
    seen = []

    async def bystander() -> None:
        while len(pairs) < 64:
            seen.append(suite.made)
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pairs.refill)
        tasks.start_soon(bystander)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert all(later - earlier <= BURST for earlier, later in itertools.pairwise(seen))
    assert len(seen) >= 7


async def test_no_pair_twice_while_tasks_are_cancelled() -> None:
    pairs, _ = pool(pairs_max=16)
    taken: list[bytes] = []

    async def taker(stop_after: int) -> None:
        for turn in range(20):
            if turn == stop_after:
                return
            taken.append(pairs.take().secret)
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pairs.refill)
        async with anyio.create_task_group() as takers:
            for number in range(50):
                takers.start_soon(taker, number % 20)
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            takers.cancel_scope.cancel()
        tasks.cancel_scope.cancel()
    assert len(taken) == len(set(taken)) > 50


def test_n20_the_pool_does_not_print_its_pairs() -> None:
    pairs, _ = pool()
    pair = pairs.take()
    assert repr(pairs) == "KeyPairs(ready=7)"
    assert pair.secret.hex() not in repr(pair)
    assert pair.public.hex() in repr(pair)
    pairs.clear()
    assert len(pairs) == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_same_entropy_same_pairs(seed: int) -> None:
    assert pool(seed=seed)[0].take() == pool(seed=seed)[0].take()

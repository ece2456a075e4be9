"""The contract that memory and SQLite pass, by the store in Redis, on a real server."""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import count, cycle

import pytest

from skycore.testing.contracts.store import StoreContract


class TestRedisStore(StoreContract):
    @pytest.fixture
    def open_store(self, open_store):
        return open_store


class Alternating:
    """Several stores as one: each call goes to the next of them."""

    def __init__(self, *stores) -> None:
        self._next = cycle(stores)

    def __getattr__(self, name):
        return getattr(next(self._next), name)


class TestThreeStoresOnOneRedis(StoreContract):
    """Whoever wrote, whoever reads: fingerprints, cursors, history and counters agree."""

    @pytest.fixture
    def open_store(self, redis, opened):
        numbers = count(10**6)

        @asynccontextmanager
        async def open_three():
            number = next(numbers)
            shared = {"prefix": f"three{number}:", "clock_ahead_max_s": 0}
            async with (
                opened(redis, seed=number, **shared) as (one, _),
                opened(redis, seed=-number, **shared) as (two, _),
                opened(redis, seed=number * 7, **shared) as (three, _),
            ):
                yield Alternating(one, two, three)

        return open_three

"""registry_redis passes what every registry passes, on a real Redis."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from skycore.testing.contracts.registry import RegistryContract


class TestRedisRegistry(RegistryContract):
    @pytest.fixture
    def open_registry(self, redis, opened):
        return lambda clock, **bounds: opened(redis, clock, **bounds)

    @pytest.fixture
    def open_pair(self, redis, opened):
        @asynccontextmanager
        async def open_pair(clock):
            async with (
                opened(redis, clock, prefix="both:") as one,
                opened(redis, clock, prefix="both:") as other,
            ):
                yield one, other

        return open_pair

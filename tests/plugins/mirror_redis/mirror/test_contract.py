"""The mirror by the contract of all mirrors, on a real server."""

from __future__ import annotations

import pytest

from skycore.testing.contracts.mirror import MirrorContract, Mirrored
from skycore.testing.contracts.status import StatusSourceContract


class TestRedisMirror(MirrorContract):
    @pytest.fixture
    async def mirrored(self, redis, service, reader):
        async with service(redis.url) as one, reader(redis.url) as full:

            async def read(item):
                for stored in await full.items.get(item.target):
                    return await full.items.value(stored)
                return None

            yield Mirrored(one.mirror, one.me, one.clock, read=read)


class TestStatus(StatusSourceContract):
    @pytest.fixture
    async def source(self, redis, service):
        async with service(redis.url) as one:
            yield one.status

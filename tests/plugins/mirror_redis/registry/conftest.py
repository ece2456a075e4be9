"""Registries on a real Redis."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from mirror_redis.registry_service import open_redis_registry, open_registry_link
from mirror_redis.registry_settings import RedisRegistrySettings
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.testing.fakes import FakeClock, SeededEntropy, identity

_prefixes = iter(range(10**9))


@asynccontextmanager
async def _opened(server, clock=None, *, network="", prefix=None, seed=None, **settings):
    """Open a registry on a server; a prefix of its own, unless it is given one."""
    number = next(_prefixes)
    me = identity("me", NetworkConstants(ED25519, network)) if network else identity("me")
    settings = RedisRegistrySettings(
        **{
            "url": server.url,
            "timeout_s": 10,
            "clock_ahead_max_s": 0,
            "prefix": f"r{number}:" if prefix is None else prefix,
            **settings,
        }
    )
    clock = clock or FakeClock()
    try:
        async with (
            open_registry_link(settings, clock) as link,
            open_redis_registry(link, settings, clock, SeededEntropy(number), me) as registry,
        ):
            yield registry
    except ExceptionGroup as group:  # as the command line does
        raise group.exceptions[0] from None


@pytest.fixture
def opened():
    """Return a context manager: `async with opened(server, clock, **settings) as registry`."""
    return _opened

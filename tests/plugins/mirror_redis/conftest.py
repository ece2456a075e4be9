"""A real Redis for the tests, and stores on it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import pytest
from redis.exceptions import OutOfMemoryError

from mirror_redis import dialing
from mirror_redis.service import open_own_records, open_redis_store, open_store_link
from mirror_redis.settings import RedisStoreSettings
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.testing.fakes import FakeClock, SeededEntropy, identity
from skycore.testing.redisserver import RedisServer


@pytest.fixture(scope="session")
def redis_session(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture
def redis(redis_session):
    redis_session.send("FLUSHALL")
    redis_session.send("CONFIG", "RESETSTAT")
    return redis_session


@pytest.fixture
def own_redis(tmp_path):
    """Return a function that starts a server which the test may hurt."""
    servers: list[RedisServer] = []

    def start(*options: str, **more) -> RedisServer:
        servers.append(RedisServer(tmp_path / f"redis{len(servers)}", *options, **more))
        return servers[-1].start()

    yield start
    for server in servers:
        server.stop()


_prefixes = iter(range(10**9))


@asynccontextmanager
async def _opened(server: RedisServer, *, seed: int = 0, clock=None, network="", **settings):
    """Open a store on a server; (store, link)."""
    me = identity("me", NetworkConstants(ED25519, network)) if network else identity("me")
    settings = RedisStoreSettings(
        **{
            "url": server.url,
            "timeout_s": 10,
            "clock_ahead_max_s": 0,
            "own_bytes_max": 0,
            **settings,
        }
    )
    clock = clock or FakeClock()
    try:
        async with (
            open_store_link(settings, clock) as link,
            open_own_records(settings, me) as own,
            open_redis_store(link, settings, SeededEntropy(seed), me, own, clock) as store,
        ):
            yield store, link
    except ExceptionGroup as group:  # as the command line does
        bad: Exception = group
        while isinstance(bad, ExceptionGroup):
            bad = bad.exceptions[0]
        raise bad from None


@pytest.fixture
def opened():
    """Return a context manager: `async with opened(server) as (store, link)`."""
    return _opened


@pytest.fixture
def open_store(redis):
    """Return a function that opens a new, empty store."""
    return partial(_fresh_store, redis)


@asynccontextmanager
async def _fresh_store(server: RedisServer, **settings):
    """Open a new, empty store: a prefix of its own."""
    number = next(_prefixes)
    async with _opened(server, seed=number, prefix=f"t{number}:", **settings) as (store, _):
        yield store


@pytest.fixture
def full_at(monkeypatch):
    """Return a function: from then on some calls of a transaction are refused as by a full Redis.

    They are not sent, so nothing of them is done, which is what Redis does.
    """
    exchange = dialing.Line.exchange

    def fill(*parts: int) -> None:
        async def refusing(self, commands):
            if len(commands) < 3 or commands[0] != (b"MULTI",):
                return await exchange(self, commands)
            kept = [c for at, c in enumerate(commands[1:-1]) if at not in parts]
            replies = await exchange(self, [commands[0], *kept, commands[-1]])
            done = iter(replies[-1])
            count = len(commands) - 2
            refused = OutOfMemoryError("OOM command not allowed")
            whole = [refused if at in parts else next(done) for at in range(count)]
            return [b"OK", *[b"QUEUED"] * count, whole]

        monkeypatch.setattr(dialing.Line, "exchange", refusing)

    yield fill

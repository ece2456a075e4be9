"""What a request costs at the real registries: round trips, and which commands Redis is asked."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager

import pytest

from mirror_redis.registry_service import open_redis_registry, open_registry_link
from mirror_redis.registry_settings import RedisRegistrySettings
from registry_sqlite.service import open_sqlite_registry
from registry_sqlite.settings import SqliteRegistrySettings
from skycore.runtime.clock import RealClock
from skycore.testing.fakes import InlineWorkers, MemoryFiles, SeededEntropy, identity
from skycore.testing.redisserver import RedisServer

HUB = identity("hub")
PATH = "/v3/transports/"


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield running
    running.stop()


@pytest.fixture(params=["sqlite", "redis"])
def opened(request, make):
    @asynccontextmanager
    async def opening():
        clock, entropy = RealClock(), SeededEntropy()
        if request.param == "sqlite":
            settings = SqliteRegistrySettings()
            parts = (settings, MemoryFiles(), clock, entropy, InlineWorkers())
            async with open_sqlite_registry(*parts) as registry, make(registry, clock) as tpd:
                yield tpd, None
            return
        redis = request.getfixturevalue("server")
        redis.send("FLUSHALL")
        settings = RedisRegistrySettings(url=redis.url)
        async with (
            open_registry_link(settings, clock) as link,
            open_redis_registry(link, settings, clock, entropy, identity("server")) as registry,
            make(registry, clock, sweep_s=300) as tpd,
        ):
            redis.send("CONFIG", "RESETSTAT")
            yield tpd, redis

    return opening


def commands(redis):
    """Return how often Redis was asked for what, by clients and by scripts."""
    told = redis.send("INFO", "commandstats").decode()
    return {name: int(calls) for name, calls in re.findall(r"cmdstat_([^:]+):calls=(\d+)", told)}


@pytest.mark.parametrize("n", [1, 50, 916])
async def test_l7_l11_a_registration_is_one_round_trip_and_no_scan(monkeypatch, opened, tp, n):
    monkeypatch.setattr("skycore.discovery.directory.GATHER_S", 600)  # no look at the log meanwhile
    async with opened() as (tpd, redis):
        other = identity("other")  # connects, and loads the script
        assert (await tpd.register(other, tp(other, HUB))).status == 201
        body = json.dumps([tp(HUB, f"{i:064x}") for i in range(1, n + 1)]).encode()
        for _ in range(3):
            nonce = await tpd.nonce(HUB)
            headers = await tpd.headers(HUB, "POST", PATH, body, nonce=nonce)
            before = tpd.registry.round_trips
            assert (await tpd.send("POST", PATH, body, headers)).status == 201
            assert tpd.registry.round_trips - before == 1, "its nonce included"
        before = tpd.registry.round_trips
        assert len(await tpd.listed()) == n + 1
        assert tpd.registry.round_trips == before
        if redis is not None:
            asked = commands(redis)
            assert not asked.keys() & {"keys", "scan", "hscan", "sscan", "zscan"}, asked


async def test_l8_one_batch_leaves_what_as_many_registrations_leave(opened, tp):
    told = [tp(HUB, f"{i:064x}", label=f"number {i % 3}") for i in range(1, 31)]
    left = []
    for size in (len(told), 7, 1):
        async with opened() as (tpd, _):
            for at in range(0, len(told), size):
                assert (await tpd.register(HUB, *told[at : at + size])).status == 201
            page = await tpd.registry.changes(tpd.desk.table, None, 100)
            (listing,) = page.listings
            served = json.loads((await tpd.get("/all-transports")).body)
            left.append((listing, sorted(served, key=lambda row: row["t_id"])))
    assert left[0] == left[1] == left[2]
    assert len(left[0][0].entries) == len(left[0][1]) == len(told)

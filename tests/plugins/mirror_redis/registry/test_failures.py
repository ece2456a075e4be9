"""What can happen to the Redis below a registry, and what it costs."""

from __future__ import annotations

import re

import anyio
import pytest

from mirror_redis.registry_settings import RedisRegistrySettings
from mirror_redis.status import LinkStatus
from skycore.contracts.registry import Listing, RegistryWrite
from skycore.contracts.status import Health
from skycore.discovery.directory import open_directory
from skycore.errors import (
    CursorInvalidError,
    StoreError,
    StoreFullError,
    StoreUnreachableError,
    StoreUnsupportedError,
    StoreVersionError,
)
from skycore.runtime.clock import RealClock
from skycore.testing.contracts.registry import entries
from skycore.testing.contracts.registry_model import TABLE, Follower
from skycore.testing.fakes import FakeClock


async def used_up(registry, times=5):
    """Use up some nonces of alice; return the last one."""
    nonce = await registry.next_nonce(TABLE, b"alice")
    for n in range(times):
        write = RegistryWrite(b"alice", put=entries(n + 1), whole=True, nonce=nonce + n)
        assert not (await registry.write(TABLE, [write]))[0].error
    return nonce + times - 1


async def nothing_is_taken_for_granted(registry, clock, cursor, nonce):
    clock.advance(1)
    assert await registry.next_nonce(TABLE, b"alice") > nonce + 500, "it begins anew above now"
    replayed = RegistryWrite(b"alice", put=entries(1, "replayed"), nonce=nonce)
    assert (await registry.write(TABLE, [replayed]))[0].error == "nonce"
    with pytest.raises(CursorInvalidError):
        await registry.changes(TABLE, cursor, 9)


async def until(is_so):
    with anyio.fail_after(15):
        while not is_so():
            await anyio.sleep(0.01)


async def test_l21_an_emptied_redis_accepts_no_old_nonce_and_no_old_cursor(redis, opened):
    clock = FakeClock()
    async with opened(redis, clock) as registry:
        nonce = await used_up(registry)
        cursor = (await registry.changes(TABLE, None, 9)).cursor
        clock.advance(1)
        redis.send("FLUSHALL")
        await nothing_is_taken_for_granted(registry, clock, cursor, nonce)
        assert (await registry.changes(TABLE, None, 9)).listings == ()
        assert registry.link.counters["other_store"] == 1


async def test_l21_a_restarted_redis_may_have_lost_the_last_writes(own_redis, opened):
    server = own_redis("--appendonly", "yes", "--appendfsync", "everysec")
    clock = FakeClock()
    async with opened(server, clock, retry_s=0.05) as registry:
        nonce = await used_up(registry)
        cursor = (await registry.changes(TABLE, None, 9)).cursor
        server.send("SHUTDOWN", "NOSAVE")
        server.stop()
        with pytest.raises(StoreUnreachableError):
            await registry.changes(TABLE, cursor, 9)
        clock.advance(1)
        server.start()
        await until(lambda: registry.link.is_usable)
        await nothing_is_taken_for_granted(registry, clock, cursor, nonce)
        [held] = (await registry.changes(TABLE, None, 9)).listings
        assert held == Listing(b"alice", entries(5))


async def test_m5_after_a_fail_over_the_replica_is_another_registry(own_redis, opened):
    first, second = own_redis(), own_redis()
    second.send("REPLICAOF", "127.0.0.1", str(first.port))
    clock = FakeClock()
    async with opened(first, clock, prefix="p:", replicas_min=1, replicas_wait_s=5) as one:
        nonce = await used_up(one)
        cursor = (await one.changes(TABLE, None, 9)).cursor
        with pytest.raises(StoreError, match="replica"):
            async with opened(second, clock, prefix="p:") as other:
                await other.next_nonce(TABLE, b"alice")
        second.send("REPLICAOF", "NO", "ONE")
        clock.advance(1)
        async with opened(second, clock, prefix="p:") as other:
            await nothing_is_taken_for_granted(other, clock, cursor, nonce)
            [held] = (await other.changes(TABLE, None, 9)).listings
            assert held == Listing(b"alice", entries(5))


async def test_scripts_that_were_flushed_are_loaded_again(redis, opened):
    async with opened(redis) as registry:
        await used_up(registry)
        redis.send("SCRIPT", "FLUSH")
        nonce = await registry.next_nonce(TABLE, b"alice")
        redis.send("SCRIPT", "FLUSH")
        write = RegistryWrite(b"alice", put=entries(9), nonce=nonce)
        [done] = await registry.write(TABLE, [write])
        assert done.next_nonce == nonce + 1


async def test_f10_redis_down_is_said_and_over_by_itself(own_redis, opened):
    server = own_redis()
    async with (
        opened(server, RealClock(), retry_s=0.05, prefix="") as registry,
        open_directory(registry, TABLE, RealClock(), sweep_s=0.05) as one,
    ):
        await one.write([RegistryWrite(b"alice", put=entries(3))])
        server.stop()
        with pytest.raises(StoreError):
            await one.write([RegistryWrite(b"bob", put=entries(3))])
        await until(lambda: one.trouble)
        assert len(one.of(b"alice").entries) == 3, "what is here is served"
        status = await LinkStatus("registry_redis", registry.link).status()
        assert status.health is Health.DOWN
        server.start()  # empty
        await until(lambda: not one.trouble and len(one) == 0)
        await one.write([RegistryWrite(b"alice", put=entries(3))])
        assert len(one.of(b"alice").entries) == 3


async def test_a_directory_follows_an_emptied_redis_within_its_look(redis, opened):
    async with (
        opened(redis, RealClock(), poll_s=0.05) as registry,
        open_directory(registry, TABLE, RealClock(), sweep_s=60) as one,
    ):
        await one.write([RegistryWrite(b"s%d" % n, put=entries(2)) for n in range(50)])
        redis.send("FLUSHALL")
        await until(lambda: len(one) == 0)


async def test_a_notification_that_is_lost_is_found_by_looking(redis, opened):
    async with (
        opened(redis, prefix="n:", poll_s=0.05) as registry,
        opened(redis, prefix="n:") as other,
        registry.watch(TABLE) as news,
        anyio.create_task_group() as tasks,
    ):
        rings = []

        async def listen():
            async for _ in news:
                rings.append(registry.round_trips)  # noqa: PERF401

        tasks.start_soon(listen)
        await until(lambda: rings and registry.round_trips > rings[-1] + 5)  # it looked in vain
        before = len(rings)
        other._channel = lambda table: b"elsewhere"
        await other.write(TABLE, [RegistryWrite(b"alice", put=entries(1))])
        await until(lambda: len(rings) > before)
        tasks.cancel_scope.cancel()


async def test_l11_no_keys_no_scan_and_a_few_commands(redis, opened):
    """Whatever a server does in its life; and a heartbeat of a hub writes no body."""
    clock = FakeClock()
    async with opened(redis, clock) as registry:
        follower = Follower(registry)
        for turn in range(3):
            await used_up(registry)
            hub = RegistryWrite(b"hub", put=entries(916), whole=True, beat=True)
            await registry.write(TABLE, [hub])
            await follower.catch_up()
            await registry.beats(TABLE, "2027-01-15")
            clock.advance(100 * turn)
            await registry.sweep(TABLE, 100)
        stats = redis.send("INFO", "commandstats").decode()
        seen = set(re.findall(r"cmdstat_(\w+):", stats))
        assert not seen & {"keys", "scan", "hscan", "zscan", "sscan", "getbit"}, seen
        clock.advance(90)
        redis.send("CONFIG", "RESETSTAT")
        [done] = await registry.write(TABLE, [hub])
        assert not done.changed
        stats = redis.send("INFO", "commandstats").decode()
        calls = {name: int(n) for name, n in re.findall(r"cmdstat_(\w+):calls=(\d+)", stats)}
        assert calls["evalsha"] == 1
        assert sum(calls.values()) < 20, calls


async def test_l7_what_a_batch_costs_is_flat(redis, opened):
    async with opened(redis) as registry:
        await registry.next_nonce(TABLE, b"s0")
        costs = {}
        for count in (1, 50, 916):
            for _ in range(3):
                before = registry.round_trips
                write = RegistryWrite(b"s%d" % count, put=entries(count), whole=True, beat=True)
                await registry.write(TABLE, [write])
                costs.setdefault(count, []).append(registry.round_trips - before)
        assert costs[1][0] <= 3, "the first one loads the script"
        assert [trips[-1] for trips in costs.values()] == [1, 1, 1]
        assert costs[916] == costs[50] == [1, 1, 1]


async def test_known_callers_are_bounded_and_a_forgotten_nonce_is_void(redis, opened):
    clock = FakeClock()
    async with opened(redis, clock, subjects_max=1, prefix="b:") as registry:
        used = {}
        for n in range(25):
            clock.advance(1)
            subject = b"s%d" % n
            for _ in range(3):
                used[subject] = await registry.next_nonce(TABLE, subject)
                await registry.write(
                    TABLE, [RegistryWrite(subject, nonce=used[subject], beat=True)]
                )
        await registry.sweep(TABLE, 1)
        assert redis.send("ZCARD", f"b:{TABLE}:nonces:used") == b":10\r\n"
        for subject, nonce in used.items():
            assert await registry.next_nonce(TABLE, subject) > nonce
        assert len(await registry.beats(TABLE, "2027-01-15")) == 10


async def test_a_server_whose_clock_is_ahead_ends_nothing(redis, opened):
    """Others, whose clocks are right, still list it (a clock of the year 2027 here)."""
    clock = FakeClock()
    async with opened(redis, clock, clock_ahead_max_s=60) as registry:
        await registry.write(TABLE, [RegistryWrite(b"alice", put=entries(1), lifetime_s=1)])
        clock.advance(10)
        assert await registry.sweep(TABLE, 9) == 0
        assert registry.link.state == "clock_ahead"


async def test_another_networks_or_versions_registry_is_left_alone(redis, opened):
    async with opened(redis, prefix="x:") as registry:
        await registry.write(TABLE, [RegistryWrite(b"alice", put=entries(1))])
    async with opened(redis, prefix="x:", network="another") as registry:
        with pytest.raises(StoreUnsupportedError, match="another network"):
            await registry.next_nonce(TABLE, b"alice")
    redis.send("HSET", f"x:{TABLE}:meta", "schema", "2")
    async with opened(redis, prefix="x:") as registry:
        with pytest.raises(StoreVersionError, match="schema"):
            await registry.next_nonce(TABLE, b"alice")


async def test_a_redis_without_memory_says_so(own_redis, opened):
    server = own_redis("--maxmemory", "3mb")
    async with opened(server) as registry:
        with pytest.raises(StoreFullError):
            for n in range(100):
                put = entries(100, f"{n}" * 3_000)
                await registry.write(TABLE, [RegistryWrite(b"s%d" % n, put=put)])
        assert registry.link.state == "full"
        assert (await registry.changes(TABLE, None, 2)).listings, "reading goes on"


def test_a_password_is_not_shown():
    settings = RedisRegistrySettings(url="redis://me:secret@host/0")
    assert "secret" not in repr(settings) + settings.model_dump_json()


@pytest.mark.parametrize("way", ["subject", "entries", "lives", "end"])
async def test_what_others_put_into_our_keys_hides_nothing_that_comes_after(redis, opened, way):
    """A server reads on, or says what is wrong; it is not stuck, and does not end."""
    async with opened(redis) as registry:
        for name in (b"alice", b"bob", b"carol"):
            await registry.write(TABLE, [RegistryWrite(name, put=entries(2))])
        key = f"{registry.link.prefix}{TABLE}:"
        if way == "subject":
            redis.send("ZADD", f"{key}log", "2", "no hex")
            redis.send("HSET", f"{key}entries:no hex", "k", "v")
            redis.send("HSET", f"{key}lives:no hex", "k", "f" * 32)
        elif way == "end":
            redis.send("ZADD", f"{key}log", "+inf", b"bob".hex(), "+inf", b"alice".hex())
        else:
            redis.send("SET", f"{key}{way}:" + b"bob".hex(), "no hash")
        follower = Follower(registry)
        if way == "end":
            with pytest.raises(StoreError, match="cannot be read"):
                await follower.catch_up(limit=1)
        else:
            await follower.catch_up(limit=2)
            assert {b"alice", b"carol"} <= set(follower.held)

"""A Redis that is away, full, read-only, flushed, restarted or tampered with: named, and healed."""

from __future__ import annotations

import anyio
import pytest

from skycore.contracts.status import Health
from skycore.contracts.store import Outcome
from skycore.errors import StoreAuthError, StoreUnsafeError, StoreUnsupportedError
from skycore.model.items import mutable_item_target
from skycore.testing.fakes import identity

BATCH = {f"visor{i}": f"text {i}" for i in range(100)}


def row_of(subject: str, item_class: int = 1) -> str:
    target = mutable_item_target(identity(subject).public, b"note")
    return f"dht:{target.hex()}:{item_class}"


async def holds(full, notes) -> bool:
    return all([await full.note(name) == text for name, text in notes.items()])


def replica(published):
    ((one,),) = [report.replicas for report in published.reports]
    return one


async def test_m1_o22_down_at_the_start_is_said_and_healed(
    own_redis, service, reader, until, caplog
):
    server = own_redis()
    server.stop()
    async with service(server.url, grace_s=0.25) as one:
        assert "no redis to mirror into yet" in caplog.text
        assert "[mirror_redis] url" in caplog.text
        fields = await one.fields()
        assert (fields.health, fields.state) == (Health.DOWN, "down") and fields.hint
        with anyio.fail_after(0.2):  # nobody waits for a Redis that is known to be down
            done = await one.publish("hello", "visor1")
        assert done.reports[0].outcome.code == Outcome.STORED
        assert replica(done).text.startswith("queued: ")
        server.start()
        async with reader(server.url) as full:
            await until(lambda: holds(full, {"visor1": "hello"}))
        assert (await one.fields()).health is Health.OK


async def test_m1_l22_down_in_service_the_newest_versions_wait_and_come(
    own_redis, service, reader, until
):
    server = own_redis()
    async with service(server.url, grace_s=0.1) as one:
        await one.publish_all(BATCH)
        server.stop()
        for number in range(20):
            await one.publish_all(dict.fromkeys(list(BATCH)[:10], f"{number}"))
        await one.publish(None, "visor99")
        fields = await one.fields()
        assert (fields.state, fields.waiting, fields.dropped) == ("down", 11, 0)
        assert fields.coalesced >= 10 and fields.put_failures >= 1 and fields.lag_s >= 0
        assert "11 records wait" in fields.summary
        server.start()
        async with reader(server.url) as full:
            expected = BATCH | dict.fromkeys(list(BATCH)[:10], "19") | {"visor99": None}
            await until(lambda: holds(full, expected))  # M12: it came back with nothing in it
        fields = await one.fields()
        assert (fields.waiting, fields.lag_s, fields.health) == (0, 0.0, Health.OK)


async def test_l22_memory_is_bounded_while_it_is_away(own_redis, service, reader, until):
    server = own_redis()
    server.stop()
    async with service(server.url, queue_bytes_max=4_096, records_max=300) as one:
        for number in range(4):
            await one.publish_all({f"visor{i}": f"{number} of {i}" for i in range(250)})
        fields = await one.fields()
        assert fields.waiting_bytes <= 4_096 and fields.waiting == 250
        server.start()
        async with reader(server.url) as full:
            await until(lambda: holds(full, {f"visor{i}": f"3 of {i}" for i in range(250)}))


async def test_more_records_than_are_remembered_are_counted(redis, service, reader):
    async with service(redis.url, records_max=50) as one, reader(redis.url) as full:
        await one.publish_all(BATCH)
        await one.settled()
        fields = await one.fields()
        assert (fields.records, fields.dropped) == (50, 100)  # of the ledger and of the queue
        assert sum([await full.note(name) is not None for name in BATCH]) >= 50


async def test_m2_a_write_that_timed_out_and_was_done_is_held(own_redis, service, reader, until):
    import signal

    server = own_redis()
    async with service(server.url, timeout_s=0.3, grace_s=0.1) as one:
        await one.publish("first")
        server.signal(signal.SIGSTOP)
        await one.publish_all(BATCH)
        await until(lambda: one.link.state == "slow")
        server.signal(signal.SIGCONT)
        await one.settled()
        async with reader(server.url) as full:
            assert await holds(full, BATCH)
        assert (await one.fields()).state == "up"


async def test_m3_full_is_named_and_goes_on_by_itself(own_redis, service, reader, until):
    server = own_redis("--maxmemory", "4mb", "--maxmemory-policy", "noeviction")
    async with service(server.url) as one:
        await one.publish("small")
        server.send("CONFIG", "SET", "maxmemory", "1")
        done = await one.publish("more", "visor1")
        assert replica(done).text.startswith("queued: ")
        await until(lambda: one.link.state == "full")
        fields = await one.fields()
        assert fields.health is Health.DEGRADED and "no memory left" in fields.summary
        failures = fields.put_failures
        await anyio.sleep(0.3)
        assert (await one.fields()).put_failures - failures < 6  # no loop
        server.send("CONFIG", "SET", "maxmemory", "0")
        async with reader(server.url) as full:
            await until(lambda: holds(full, {"visor1": "more"}))
        await until(lambda: one.link.state == "up")


async def test_m4_an_evicting_redis_is_refused_at_the_start(own_redis, service):
    server = own_redis("--maxmemory", "8mb", "--maxmemory-policy", "allkeys-lru")
    with pytest.raises(ExceptionGroup) as refused:
        async with service(server.url):
            pass
    assert refused.group_contains(StoreUnsafeError, match="throws keys away")


async def test_m4_where_it_is_allowed_what_it_throws_away_comes_back(
    own_redis, service, reader, until
):
    server = own_redis("--maxmemory-policy", "allkeys-lru")
    async with (
        service(server.url, evicting_allowed=True, audit_s=0.1) as one,
        reader(server.url, evicting_allowed=True) as full,
    ):
        await one.publish_all(BATCH)
        for key in (row_of("visor1"), row_of("visor2"), "dht:targets", "dht:log"):
            assert server.send("DEL", key) == b":1\r\n"
        signed = one.suite.signed

        async def is_healed():
            listed = await full.items.listing(None, bytes(32), b"\xff" * 32, 1_000)
            return len(listed) == len(BATCH) and await holds(full, BATCH)

        await until(is_healed)
        assert one.suite.signed == signed
        assert (await one.fields()).healed >= len(BATCH)


@pytest.mark.parametrize("how", ["FLUSHALL", "FLUSHDB", "SWAPDB"])
async def test_m8_c35_flushed_or_replaced_it_heals(own_redis, service, reader, until, how):
    server = own_redis()
    async with (
        service(server.url, "a", audit_s=60) as one,
        service(server.url, "b", audit_s=60) as two,
        reader(server.url) as full,
    ):
        await one.publish_all(BATCH)
        await two.publish("mine")
        signed = one.suite.signed, two.suite.signed
        server.send(*((how, "0", "1") if how == "SWAPDB" else (how,)))
        await until(lambda: holds(full, BATCH | {"b": "mine"}))
        assert (one.suite.signed, two.suite.signed) == signed


async def test_m8_with_the_defaults_in_under_a_minute(service):
    from mirror_redis.mirror_settings import RedisMirrorSettings

    settings = RedisMirrorSettings()
    assert settings.check_s + settings.audit_s + settings.retry_s < 60


async def test_m8_after_a_restart_of_the_mirror_too(own_redis, service, reader, until):
    """Its own store knows: nothing is published again."""
    server = own_redis()
    async with service(server.url) as one:
        await one.publish_all(BATCH)
        server.send("FLUSHALL")
        store = one.store
        async with service(server.url, store=store) as again, reader(server.url) as full:
            await until(lambda: holds(full, BATCH))
            assert again.suite.signed == 0


async def test_m10_a_tampered_row_is_not_served_and_comes_back(redis, service, reader, until):
    async with service(redis.url, audit_s=0.1) as one, reader(redis.url) as full:
        await one.publish_all({"visor1": "true", "visor2": "true"})
        first, second = row_of("visor1"), row_of("visor2")
        there = redis.send("HGET", second, "item").split(b"\r\n", 1)[1][:-2]
        redis.send("HSET", first, "item", there)  # signed, and for somebody else
        seen = set()

        async def is_healed():
            seen.add(await full.note("visor1"))
            return await full.note("visor1") == "true"

        await until(is_healed)
        assert seen <= {None, "true"}


async def test_m10_a_row_of_the_wrong_type_is_replaced(redis, service, reader, until):
    async with service(redis.url, audit_s=0.1) as one, reader(redis.url) as full:
        await one.publish("true", "visor1")
        redis.send("DEL", row_of("visor1"))
        redis.send("SET", row_of("visor1"), "x" * 1_000)
        await until(lambda: holds(full, {"visor1": "true"}))


async def test_m12_killed_and_started_with_nothing_it_is_filled_again(
    own_redis, service, reader, until
):
    server = own_redis()
    async with service(server.url, audit_s=60) as one:
        await one.publish_all(BATCH)
        server.stop()
        server.start()
        async with reader(server.url) as full:
            await until(lambda: holds(full, BATCH))


async def test_scripts_flushed_nobody_notices(redis, service, reader):
    async with service(redis.url) as one, reader(redis.url) as full:
        await one.publish("first", "visor1")
        redis.send("SCRIPT", "FLUSH")
        done = await one.publish("second", "visor1")
        assert replica(done).code == Outcome.STORED
        assert await full.note("visor1") == "second"


async def test_m5_a_replica_is_named_and_records_wait(own_redis, service, reader, until):
    server = own_redis()
    primary = own_redis()
    async with service(server.url, audit_s=60) as one:
        await one.publish("before", "visor1")
        server.send("REPLICAOF", "127.0.0.1", str(primary.port))
        await one.publish("meanwhile", "visor1")
        await until(lambda: one.link.state == "read_only")
        assert (await one.fields()).hint
        server.send("REPLICAOF", "NO", "ONE")  # promoted: it has what the other had: nothing
        async with reader(server.url) as full:
            await until(lambda: holds(full, {"visor1": "meanwhile"}))


async def test_a_wrong_password_is_refused_at_the_start(own_redis, service):
    server = own_redis("--requirepass", "right")
    wrong = server.url.replace("redis://", "redis://:wrong@")
    with pytest.raises(ExceptionGroup) as refused:
        async with service(wrong):
            pass
    assert refused.group_contains(StoreAuthError, match="refuses the user or password")


async def test_another_network_s_redis_is_refused_at_the_start(redis, service, opened):
    async with opened(redis, network="elsewhere"):
        with pytest.raises(ExceptionGroup) as refused:
            async with service(redis.url):
                pass
    assert refused.group_contains(StoreUnsupportedError, match="another network")

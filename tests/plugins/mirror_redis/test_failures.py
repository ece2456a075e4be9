"""What can be wrong with a Redis: each has a name, an error of its own, and an end."""

from __future__ import annotations

import hashlib
import random
import signal

import anyio
import pytest

from mirror_redis.status import LinkStatus
from skycore.contracts.status import Health
from skycore.errors import (
    CursorInvalidError,
    StoreAuthError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreSlowError,
    StoreUnreachableError,
    StoreUnsafeError,
    StoreUnsupportedError,
)
from skycore.testing.contracts.store_model import (
    EVERY_CHANGE,
    EVERYTHING,
    START_S,
    ranked,
    read_all,
    read_pages,
)
from skycore.testing.redisserver import RedisServer

TARGET = ranked().target


async def until_state(link, state: str) -> None:
    with anyio.fail_after(15):
        while link.state != state:
            await anyio.sleep(0.01)


async def health(link) -> tuple[Health, str]:
    status = await LinkStatus("redis", link).status()
    return status.health, status.fields["state"]


async def test_m1_down_at_start_the_node_starts_and_redis_is_found_when_it_comes(tmp_path, opened):
    server = RedisServer(tmp_path)
    async with opened(server, retry_s=0.02) as (store, link):
        for _ in range(3):
            with pytest.raises(StoreUnreachableError) as down:
                await store.put_many([ranked()])
        assert "tried again" in down.value.hint
        assert await health(link) == (Health.DOWN, "down")
        server.start()
        try:
            await until_state(link, "up")
            assert (await store.put_many([ranked()]))[0].code == 0
            assert await health(link) == (Health.OK, "up")
        finally:
            server.stop()


async def test_o22_m1_down_in_service_a_put_says_so_and_others_do_not_wait(own_redis, opened):
    server = own_redis()
    async with opened(server, retry_s=30) as (store, link):
        await store.put_many([ranked()])
        server.stop()
        with pytest.raises(StoreUnreachableError):
            await store.put_many([ranked(seq=2)])
        trips, connections = link.counters["round_trips"], link.counters["connections"]
        for _ in range(100):
            with pytest.raises(StoreUnreachableError):
                await store.get([TARGET])
        assert link.counters["failed_at_once"] == 100
        assert (link.counters["round_trips"], link.counters["connections"]) == (trips, connections)


async def test_m2_hung_costs_one_timeout_and_what_was_sent_may_have_been_done(own_redis, opened):
    server = own_redis()
    async with opened(server, retry_s=0.05, timeout_s=0.3) as (store, link):
        await store.put_many([ranked()])
        server.signal(signal.SIGSTOP)
        with pytest.raises(StoreSlowError):
            await store.put_many([ranked(seq=2)])
        for _ in range(50):
            with pytest.raises(StoreUnreachableError):
                await store.get([TARGET])
        assert (link.counters["failed_at_once"], link.state) == (50, "slow")
        server.signal(signal.SIGCONT)
        await until_state(link, "up")
        [[held]] = await store.get([TARGET])
        assert held.item.seq == 2, "the put that timed out was done"
        [again] = await store.put_many([ranked(seq=2)])
        assert (again.accepted, again.seq) == (True, 2), "and may be sent again"


async def test_m3_full_refuses_writes_by_name_and_reads_go_on(own_redis, opened):
    server = own_redis("--maxmemory", "4mb")
    async with opened(server) as (store, link):
        with pytest.raises(StoreFullError) as full:
            for i in range(500):
                await store.put_many([ranked(b"s%d" % i, v=b"x" * 60_000)])
        assert "maxmemory" in full.value.hint
        assert await health(link) == (Health.DEGRADED, "full")
        held = await read_all(store)
        assert len(held) == i
        usage = (await store.usage())[b"tp"]
        assert usage == (i, i * 60_000), "nothing of the refused call is there"
        server.send("CONFIG", "SET", "maxmemory", "40mb")
        assert (await store.put_many([ranked(b"s%d" % i)]))[0].code == 0
        assert await health(link) == (Health.OK, "up")


async def test_m4_a_redis_that_evicts_is_refused_at_start_with_the_reason(own_redis, opened):
    server = own_redis("--maxmemory-policy", "allkeys-lru")
    with pytest.raises(StoreUnsafeError, match="allkeys-lru") as unsafe:
        async with opened(server):
            pass
    assert "noeviction" in unsafe.value.hint
    async with opened(server, evicting_allowed=True) as (store, _):
        assert (await store.put_many([ranked()]))[0].code == 0
    server.send("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    async with opened(server, retry_s=0.02) as (store, link):  # ours never have a TTL
        await store.put_many([ranked(seq=2)])
        server.send("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
        await link.hang_up()
        with pytest.raises(StoreUnsafeError):
            await store.get([TARGET])
        server.send("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await until_state(link, "up")


async def test_m5_a_replica_is_named_and_a_new_primary_is_found(own_redis, opened):
    first, second = own_redis(), own_redis()
    second.send("REPLICAOF", "127.0.0.1", str(first.port))
    async with opened(second, retry_s=0.02) as (store, link):
        with pytest.raises(StoreReadOnlyError) as replica:
            await store.get([TARGET])
        assert "primary" in replica.value.hint
        second.send("REPLICAOF", "NO", "ONE")
        await until_state(link, "up")
        await store.put_many([ranked()])
        before = store.store_id
        second.send("REPLICAOF", "127.0.0.1", str(first.port))
        with pytest.raises(StoreReadOnlyError):
            await store.put_many([ranked(seq=2)])
        assert await health(link) == (Health.DOWN, "read_only")
        second.send("REPLICAOF", "NO", "ONE")
        await until_state(link, "up")
        assert (await store.put_many([ranked(seq=3)]))[0].code == 0
        assert store.store_id != before, "another primary's positions are others"


async def test_m6_too_few_replicas_and_a_full_disk_are_named(own_redis, opened):
    server = own_redis()
    async with opened(server) as (store, link):
        await store.put_many([ranked()])
        server.send("CONFIG", "SET", "min-replicas-to-write", "1")
        with pytest.raises(StoreReadOnlyError, match="too few replicas"):
            await store.put_many([ranked(seq=2)])
        assert await health(link) == (Health.DEGRADED, "no_replicas")
        assert len(await store.get([TARGET])) == 1
        server.send("CONFIG", "SET", "min-replicas-to-write", "0")
        (server.folder / "dump.rdb").mkdir()  # a snapshot cannot take its place
        (server.folder / "dump.rdb" / "x").touch()
        server.send("CONFIG", "SET", "save", "3600 1")
        server.send("BGSAVE")
        with anyio.fail_after(10):
            while b"rdb_last_bgsave_status:err" not in server.send("INFO", "persistence"):
                await anyio.sleep(0.02)
        with pytest.raises(StoreReadOnlyError, match="save to its disk"):
            await store.put_many([ranked(seq=2)])
        assert link.state == "cannot_save"
        server.send("CONFIG", "SET", "save", "")
        assert (await store.put_many([ranked(seq=2)]))[0].code == 0
        assert link.state == "up"


async def test_m6_a_redis_that_loads_is_waited_for(own_redis, opened):
    server = own_redis()
    async with opened(server) as (store, _):
        noise = random.Random(6).randbytes(60_000)  # it answers after every 2 MiB that it has read
        await store.put_many([ranked(b"s%d" % i, v=noise) for i in range(150)])
    server.send("SAVE")
    server.stop()
    server.options = ("--key-load-delay", "3000", "--rdbcompression", "no")
    server.start()
    async with opened(server, retry_s=0.05) as (store, link):
        if link.state == "loading":
            with pytest.raises(StoreBusyError):
                await store.get([TARGET])
        await until_state(link, "up")
        assert len(await read_all(store)) == 150
        assert link.counters["loading"] >= 1


async def test_m7_what_no_replica_confirmed_is_counted(redis, opened):
    async with opened(redis, replicas_min=1, replicas_wait_s=0.01) as (store, link):
        assert (await store.put_many([ranked()]))[0].code == 0
        assert link.counters["not_replicated"] == 1


async def test_m8_flushall_is_another_store_and_is_told(redis, opened):
    async with opened(redis) as (store, link):
        await store.put_many([ranked(b"s%d" % i) for i in range(30)])
        cursor = (await read_pages(store))[-1].cursor
        assert (await store.fingerprints(None, [EVERYTHING]))[0].items == 30
        async with store.watch() as news:
            await anext(news)
            redis.send("FLUSHALL")
            with anyio.fail_after(5):
                await anext(news)
        with pytest.raises(CursorInvalidError):
            await store.changes(cursor, EVERY_CHANGE, 9, 9_999)
        assert await store.fingerprints(None, [EVERYTHING]) == [(0, 0)]
        assert await store.get([TARGET]) == [()]
        assert (await store.put_many([ranked()]))[0].code == 0
        assert link.counters["other_store"] == 1


async def test_scripts_that_were_flushed_are_loaded_again(redis, opened):
    async with opened(redis) as (store, link):
        await store.put_many([ranked()])
        for seq in range(2, 5):
            redis.send("SCRIPT", "FLUSH")
            batch = [ranked(b"s%d" % i, seq=seq) for i in range(1_100)]  # three calls, one EXEC
            assert {o.code for o in await store.put_many(batch)} == {0}
        assert link.counters["scripts_loaded"] >= 3


async def test_where_only_the_id_was_lost_no_position_is_used_twice(redis, opened):
    async with opened(redis) as (store, _):
        await store.put_many([ranked(b"s%d" % i) for i in range(9)])
        redis.send("DEL", "dht:meta")
        await store.put_many([ranked(b"new")])
        assert [s.position for p in await read_pages(store) for s in p.entries] == [*range(1, 11)]


async def test_a_node_whose_clock_is_ahead_sweeps_nothing_that_others_need(redis, opened):
    async with opened(redis, clock_ahead_max_s=600) as (ahead, link), opened(redis) as (store, _):
        now_s = int(redis.send("TIME").split(b"\r\n")[2])
        await store.put_many([ranked(until=now_s + 300), ranked(b"bob", until=now_s - 5)])
        assert await ahead.sweep(now_s + 100_000) == 0
        assert await health(link) == (Health.DEGRADED, "clock_ahead")
        assert await ahead.sweep(now_s) == 1
        assert await health(link) == (Health.OK, "up")


# --- who may come in ---------------------------------------------------------------------------


async def test_a_wrong_password_is_refused_at_start_and_never_shown(own_redis, opened, caplog):
    server = own_redis("--requirepass", "hunter2")
    at = server.url.removeprefix("redis://")
    for url in (f"redis://{at}", f"redis://:swordfish@{at}", f"redis://nobody:swordfish@{at}"):
        with pytest.raises(StoreAuthError) as refused:
            async with opened(server, url=url):
                pass
        assert "swordfish" not in f"{refused.value!r} {refused.value} {refused.value.__cause__!r}"
        assert "password" in refused.value.hint
    assert "swordfish" not in caplog.text


async def test_the_password_comes_from_the_url_a_file_or_the_environment(
    own_redis, opened, tmp_path, monkeypatch
):
    server = own_redis("--requirepass", "hunter 2/@:")
    secret = tmp_path / "secret"
    secret.write_text("hunter 2/@:\nanother line\n")
    monkeypatch.setenv("OUR_PASSWORD", "hunter 2/@:")
    at = server.url.removeprefix("redis://")
    for settings in (
        {"url": f"redis://:hunter%202%2F%40%3A@{at}"},
        {"url": f"redis://default:hunter%202%2F%40%3A@{at}"},
        {"password_file": str(secret)},
        {"password_env": "OUR_PASSWORD"},
    ):
        async with opened(server, **settings) as (store, link):
            await store.get([TARGET])
            status = await LinkStatus("redis", link).status()
            assert "hunter" not in f"{status} {link.where} {link.__dict__['_dialer'].place!r}"


async def test_a_password_that_changes_in_service_is_named_and_cured(own_redis, opened):
    server = own_redis()
    async with opened(server, retry_s=0.02) as (store, link):
        await store.put_many([ranked()])
        server.send("CONFIG", "SET", "requirepass", "new")
        await link.hang_up()
        with pytest.raises(StoreAuthError):
            await store.get([TARGET])
        assert await health(link) == (Health.DOWN, "wrong_password")
        server.send("CONFIG", "SET", "requirepass", "", login=("AUTH", "new"))
        await until_state(link, "up")


async def test_a_user_without_the_rights_is_named(own_redis, opened):
    server = own_redis()
    server.send("ACL", "SETUSER", "bob", "on", ">pw", "~dht:*", "+@all", "-evalsha")
    server.send("ACL", "SETUSER", "carol", "on", ">pw", "~dht:*", "&*", "+@all", "-@admin")
    at = server.url.removeprefix("redis://")
    with pytest.raises(StoreAuthError, match="ACL"):
        async with opened(server, url=f"redis://bob:pw@{at}"):
            pass
    async with opened(server, url=f"redis://carol:pw@{at}") as (store, _):
        assert (await store.put_many([ranked()]))[0].code == 0


async def test_a_cluster_and_another_network_are_refused_by_name(own_redis, redis, opened):
    cluster = own_redis("--cluster-enabled", "yes")
    with pytest.raises(StoreUnsupportedError, match="Cluster"):
        async with opened(cluster):
            pass
    async with opened(redis):
        pass
    with pytest.raises(StoreUnsupportedError, match="another network"):
        async with opened(redis, network="other"):
            pass
    async with opened(redis, network="other", prefix="other:") as (store, _):
        await store.put_many([ranked()])
    async with opened(redis) as (store, _):
        assert await store.get([TARGET]) == [()], "a prefix is a place of its own"


async def test_a_unix_socket_and_a_database_number(own_redis, opened):
    server = own_redis("--unixsocket", "redis.sock")
    path = server.folder / "redis.sock"
    async with (
        opened(server, url=f"unix://{path}?db=3") as (store, link),
        opened(server, url=server.url[:-1] + "3") as (same, _),
        opened(server) as (other, _),
    ):
        await store.put_many([ranked()])
        assert len((await same.get([TARGET]))[0]) == 1
        assert await other.get([TARGET]) == [()]
        assert str(path) in link.where


# --- what others may have done to the rows -----------------------------------------------------


@pytest.mark.parametrize(
    "harm",
    [
        ("HSET", "item", b"\xc1 this is no item"),
        ("HSET", "item", b"x" * 5_000_000),
        ("HSET", "rank", "zz"),
        ("HSET", "rank", "g" * 80),
        ("HSET", "facts", "short"),
        ("HSET", "facts", b"f" * 20_000),
        ("HSET", "until", "f" * 16),
        ("HSET", "lease", b"l" * 200),
        ("HSET", "lease", b"l" * 20_000),
        ("HSET", "pos", "many"),
        ("HSET", "ipos", b"p" * 9_000),
        ("HDEL", "item"),
        ("HDEL", "rank"),
        ("DEL",),
        ("SET", b"a string"),
    ],
    ids=lambda harm: " ".join(str(word)[:20] for word in harm),
)
async def test_m10_a_row_that_is_no_row_is_dropped_and_can_come_again(redis, opened, harm):
    async with opened(redis) as (store, link):
        items = [ranked(b"s%d" % i) for i in range(5)]
        await store.put_many(items)
        key = b"dht:%s:3" % items[2].target.hex().encode()
        redis.send(harm[0], key, *harm[1:])
        if harm[0] != "DEL":
            assert await store.get([items[2].target]) == [()]
        assert len(await read_all(store)) == 4
        assert len((await read_pages(store))[0].entries) == 4
        assert link.counters["damaged"] >= 1
        assert (await store.put_many([items[2]]))[0].code == 0
        assert len(await read_all(store)) == 5
        assert (await store.usage())[b"tp"].items == 5
        assert await store.sweep(START_S + 301) == 5
        assert await store.usage() == {}


@pytest.mark.parametrize("facts", [b"", b"\x05", b"x\x04", b"\x00\x00\x00\x00\x01", b"\xff" * 9])
async def test_m10_facts_of_any_bytes_never_stop_the_log(redis, opened, facts):
    """Nobody has read the slot before: the log is where it is met."""
    async with opened(redis) as (store, link):
        items = [ranked(b"s%d" % i) for i in range(5)]
        await store.put_many(items)
        redis.send("HSET", b"dht:%s:3" % items[2].target.hex().encode(), "facts", facts)
        assert len((await read_pages(store))[0].entries) == 4
        assert link.counters["damaged"] == 1


async def test_m10_a_damaged_block_is_not_served_and_is_asked_for_again(redis, opened):
    async with opened(redis) as (store, _):
        data = [b"block %d" % i for i in range(3)]
        names = [hashlib.sha256(block).digest() for block in data]
        blocks = dict(zip(names, data, strict=True))
        await store.put_many([ranked(refs=names)], blocks)
        redis.send("HSET", b"dht:block:" + names[0], "data", b"something else")
        redis.send("SET", b"dht:block:" + names[1], b"no hash")
        assert await store.blocks(names) == [None, None, data[2]]
        [missing] = await store.put_many([ranked(b"bob", refs=names)])
        assert missing.missing == (names[0], names[1])
        assert (await store.put_many([ranked(b"bob", refs=names)], blocks))[0].code == 0
        assert await store.blocks(names) == data


async def test_a_key_of_another_program_is_told(redis, opened):
    redis.send("SET", "dht:meta", "mine")
    with pytest.raises(StoreError, match="WRONGTYPE"):
        async with opened(redis):
            pass

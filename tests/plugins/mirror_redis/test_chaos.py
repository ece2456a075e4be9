"""Several stores on one Redis: nothing lost, nothing regressed, nothing newer swept away."""

from __future__ import annotations

import random
from collections import defaultdict

import anyio
import pytest

from skycore.contracts.store import ChangeFilter, ItemKey
from skycore.errors import StoreError
from skycore.testing.contracts.store_model import (
    EVERYTHING,
    START_S,
    lease_for,
    ranked,
    read_all,
    read_pages,
)

_BIG = 1 << 30


async def test_o20_l5_m11_a_stale_writer_never_lowers_what_is_stored(redis, opened):
    async with opened(redis) as (one, _), opened(redis, seed=1) as (two, _):
        assert one.store_id == two.store_id
        await one.put_many([ranked(seq=99)])
        [refused] = await two.put_many([ranked(seq=7, v=b"x" * 60_000)])
        assert (refused.code, refused.seq) == (302, 99)
        [[held]] = await two.get([ranked().target])
        assert held.item.seq == 99


async def test_o21_l4_a_sweep_leaves_what_another_node_renewed_or_replaced(redis, opened):
    async with opened(redis) as (one, _), opened(redis, seed=1) as (two, _):
        old = [ranked(b"s%d" % i, until=START_S + 5) for i in range(40)]
        await one.put_many(old)
        await one.listing(None, *EVERYTHING, 100)  # it has seen them with their first end
        await two.put_many([ranked(b"s%d" % i, seq=2, until=START_S + 500) for i in range(20)])
        await two.renew([lease_for(item, START_S + 400) for item in old[20:30]], 0)
        assert await one.sweep(START_S + 6) == 10
        assert len(await read_all(two)) == 30
        assert await one.sweep(START_S + 401) == 10
        assert {s.item.seq for s in await read_all(one)} == {2}


async def test_c35_many_writers_lose_nothing_and_agree(redis, opened):
    """Four stores write the same slots at once, while others read, renew, drop and sweep."""
    accepted: dict[bytes, int] = defaultdict(int)
    dice = random.Random(35)
    subjects = [b"s%d" % i for i in range(40)]

    async def write(store, number: int) -> None:
        for _ in range(40):
            batch = [
                ranked(dice.choice(subjects), seq=dice.randrange(1, 10_000), v=b"w%d" % number,
                       until=START_S + dice.randrange(100, 900))
                for _ in range(dice.randrange(1, 12))
            ]  # fmt: skip
            for item, outcome in zip(batch, await store.put_many(batch), strict=True):
                if outcome.accepted:
                    accepted[item.target] = max(accepted[item.target], item.item.seq)
                else:
                    assert outcome.seq > item.item.seq or outcome.code == 302

    async def read(store) -> None:
        seen: dict[bytes, int] = defaultdict(int)
        for _ in range(60):
            for [*slots] in await store.get([ranked(s).target for s in subjects]):
                for row in slots:
                    assert row.item.seq >= seen[row.target], "a record went backwards"
                    seen[row.target] = row.item.seq
            await store.sweep(START_S + 50)

    async with (
        opened(redis, seed=1) as (a, _), opened(redis, seed=2) as (b, _),
        opened(redis, seed=3) as (c, _), opened(redis, seed=4) as (d, _),
    ):  # fmt: skip
        async with anyio.create_task_group() as tasks:
            for number, store in enumerate((a, b, c, d)):
                tasks.start_soon(write, store, number)
            tasks.start_soon(read, a)
            tasks.start_soon(read, d)
        held = await read_all(a)
        assert {row.target: row.item.seq for row in held} == dict(accepted)
        assert held == await read_all(d)
        assert len({row.position for row in held}) == len(held)
        log = [row for page in await read_pages(b) for row in page.entries]
        assert sorted(log, key=lambda row: row.target) == held
        usage = await c.usage()
        assert usage[b"tp"] == (len(held), sum(len(row.item.v) for row in held))


async def test_c31_fingerprints_are_right_whoever_wrote(redis, opened, open_store):
    """Each store keeps its own; puts, leases, drops and sweeps of the others are in them."""
    dice = random.Random(31)
    sixteenths = [
        (bytes((i << 4,)) + bytes(31), bytes((i << 4 | 15,)) + b"\xff" * 31) for i in range(16)
    ]
    async with opened(redis, seed=1) as (a, _), opened(redis, seed=2) as (b, _):
        for turn in range(12):
            writer, other = (a, b) if turn % 2 else (b, a)
            items = [
                ranked(b"s%d" % dice.randrange(200), seq=turn + 1, salt=dice.choice([b"x", b"y"]),
                       until=START_S + 100 + turn)
                for _ in range(60)
            ]  # fmt: skip
            await writer.put_many(items)
            await writer.renew([lease_for(item, START_S + 300 + turn) for item in items[:9]], 0)
            await writer.drop([ItemKey(item.target, 3) for item in items[20:29]])
            await writer.sweep(START_S + 95 + turn)
            async with open_store() as plain:
                rows = await read_all(other)
                await plain.put_many([_as_put(row) for row in rows])
                await plain.renew([row.lease for row in rows if row.lease], 0)
                for salt in (None, b"x", b"y", b"none"):
                    ranges = [EVERYTHING, *sixteenths, (items[0].target, items[1].target)]
                    assert await other.fingerprints(salt, ranges) == await plain.fingerprints(
                        salt, ranges
                    )


def _as_put(row):
    from skycore.model.items import RankedItem

    return RankedItem(
        row.target, row.item_class, row.rank, row.digest, row.item, row.sender, row.stored_ns
    )


@pytest.mark.parametrize(
    "wanted", [300, pytest.param(10_000, marks=pytest.mark.soak)], ids=["300", "10000"]
)
async def test_m9_a_cancelled_call_never_gives_another_its_reply(redis, opened, wanted):
    """Calls interrupted at any point; every other one reads its own, and no connection is lost."""
    dice = random.Random(9)
    async with opened(redis, connections_max=4) as (store, link):
        items = [ranked(b"s%d" % i, v=b"v%d" % i) for i in range(50)]
        await store.put_many(items)
        cancelled = 0

        async def read() -> None:
            item = dice.choice(items)
            [[row]] = await store.get([item.target])
            assert row.item == item.item

        async def reader() -> None:
            while cancelled < wanted:
                await read()

        async def interrupted() -> None:
            nonlocal cancelled
            while cancelled < wanted:
                with anyio.move_on_after(dice.random() * 0.003) as scope:
                    await store.get([item.target for item in items[: dice.randrange(50)]])
                cancelled += scope.cancelled_caught

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(reader)
                tasks.start_soon(interrupted)
        assert len(link._idle) <= 4
        assert link.state == "up"
        for _ in range(20):
            await read()
    with anyio.fail_after(5):
        while b"connected_clients:1\r" not in redis.send("INFO", "clients"):
            await anyio.sleep(0.01)  # a close is seen at the other end a little later


async def test_m12_what_a_killed_redis_kept_is_there_again_and_cursors_begin_anew(
    own_redis, opened
):
    """With an append-only file it is all there; positions belong to the run that made them."""
    server = own_redis("--appendonly", "yes", "--appendfsync", "always")
    async with opened(server, retry_s=0.02) as (store, link):
        items = [ranked(b"s%d" % i) for i in range(200)]
        await store.put_many(items)
        cursor = (await read_pages(store))[-1].cursor
        server.stop()
        lost = 0
        while not lost:
            try:
                await store.get([items[0].target])
            except StoreError:
                lost += 1
        assert link.state == "down"
        server.start()
        while link.state != "up":
            await anyio.sleep(0.01)
        before = store.store_id
        assert len(await read_all(store)) == 200
        assert store.store_id != before or cursor.store_id != store.store_id
        page = await store.changes(None, ChangeFilter(), 1, _BIG)
        assert page.cursor.store_id == store.store_id != cursor.store_id
        assert link.counters["other_store"] == 1


async def test_writers_go_on_while_redis_dies_and_returns(own_redis, opened):
    """What was acknowledged before, during and after is there, and never lower."""
    server = own_redis("--appendonly", "yes", "--appendfsync", "always")
    acknowledged: dict[bytes, int] = {}
    is_over = False

    async def write(store, number: int) -> None:
        seq = number
        while not is_over:
            seq += 3
            item = ranked(b"s%d" % (seq % 7), seq=seq)
            try:
                [outcome] = await store.put_many([item])
            except StoreError:
                await anyio.sleep(0.005)
                continue
            if outcome.accepted:
                acknowledged[item.target] = max(acknowledged.get(item.target, 0), seq)
            await anyio.sleep(0)

    async with (
        opened(server, seed=1, retry_s=0.02) as (a, _),
        opened(server, seed=2, retry_s=0.02) as (b, link),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(write, a, 1)
        tasks.start_soon(write, b, 2)
        for _ in range(3):
            await anyio.sleep(0.05)
            server.stop()
            await anyio.sleep(0.05)
            server.start()
            while link.state != "up":
                await anyio.sleep(0.01)
        await anyio.sleep(0.05)
        is_over = True
    async with opened(server, seed=3) as (store, _):
        held = {row.target: row.item.seq for row in await read_all(store)}
        assert acknowledged
        assert all(held[target] >= seq for target, seq in acknowledged.items())

"""What a call costs: round trips, commands and bytes, never time (L7, L11, L24, C32)."""

from __future__ import annotations

import hashlib
import re

import anyio
import pytest

from mirror_redis import dialing
from mirror_redis.dialing import SLICE_BYTES, slices
from skycore.contracts.store import ChangeFilter, ItemKey
from skycore.testing.contracts.store_model import EVERYTHING, START_S, lease_for, ranked


@pytest.fixture
def counted(monkeypatch):
    """Count what connections send: each call of `counted` returns (sends, bytes) since the last."""
    sent = [0, 0]
    library = dialing.library.Connection

    class Counting(library):
        async def send_packed_command(self, command, check_health=True):
            sent[0] += 1
            sent[1] += sum(map(len, command))
            await super().send_packed_command(command, check_health)

    monkeypatch.setattr(dialing.library, "Connection", Counting)

    def since():
        found = tuple(sent)
        sent[:] = 0, 0
        return found

    return since


async def test_l7_a_batch_is_one_round_trip_whatever_its_size(redis, opened, counted):
    async with opened(redis) as (store, link):
        loaded = link.counters["scripts_loaded"]
        for size in (1, 1, 50, 511, 512, 2_000):  # the first loads the scripts
            items = [ranked(b"s%d" % i, seq=size + 1) for i in range(size)]
            leases = [lease_for(item, START_S + 400 + size) for item in items]
            keys = [ItemKey(item.target, 3) for item in items]
            signers = [item.item.signer for item in items]
            calls = {
                "put": lambda: store.put_many(items),  # noqa: B023
                "renew": lambda: store.renew(leases, 0),  # noqa: B023
                "signers": lambda: store.signer_usage(signers[:500]),  # noqa: B023
                "usage": store.usage,
                "get": lambda: store.get([k.target for k in keys][:500]),  # noqa: B023
                "page": lambda: store.changes(None, ChangeFilter(), 500, 1 << 20),
                "listing": lambda: store.listing(None, *EVERYTHING, 500),
                "history": lambda: store.history(keys[0].target, 5),  # noqa: B023
                "drop": lambda: store.drop(keys),  # noqa: B023
            }
            for name, call in calls.items():
                before = link.counters["round_trips"]
                counted()
                await call()
                trips = link.counters["round_trips"] - before
                sends, sent = counted()
                if link.counters["scripts_loaded"] > loaded:
                    loaded = link.counters["scripts_loaded"]
                    continue
                assert trips == 1, (name, size)
                assert sends <= 1 + sent // (SLICE_BYTES // 2), (name, size)


async def test_l24_one_change_of_a_large_head_sends_the_change(redis, opened, counted):
    """The gate hands over every block; those that are here are not sent again."""
    async with opened(redis) as (store, _):
        blocks = {}
        for n in range(1_000):
            data = (b"block %d " % n) * 300
            blocks[hashlib.sha256(data).digest()] = data
        names = list(blocks)
        await store.put_many([ranked(refs=names[:990])], blocks)
        counted()
        new = ranked(seq=2, refs=[*names[5:990], *names[990:995]])
        assert (await store.put_many([new], blocks))[0].code == 0
        sends, sent = counted()
        assert sends <= 4
        assert sent < 32 * 1_000 * 4 + sum(len(blocks[n]) for n in names[990:995])
        assert await store.blocks(names[990:995]) == [blocks[n] for n in names[990:995]]


async def test_a_block_that_goes_between_question_and_put_is_sent_after_all(redis, opened):
    async with opened(redis) as (store, _):
        data = [b"%d" % n * 4_000 for n in range(10, 30)]
        blocks = {hashlib.sha256(block).digest(): block for block in data}
        await store.put_many([ranked(refs=list(blocks))], blocks)
        ask = store._puts._ask

        async def and_one_goes(*words):
            answer = await ask(*words)
            if words[0] == "held":
                redis.send("HDEL", b"dht:block:" + next(iter(blocks)), "data")
            return answer

        store._puts._ask = and_one_goes
        [outcome] = await store.put_many([ranked(b"bob", refs=list(blocks))], blocks)
        assert outcome.code == 0
        assert await store.blocks(list(blocks)) == data


async def test_l11_no_call_walks_the_key_space(redis, opened):
    async with opened(redis) as (store, _):
        redis.send("CONFIG", "RESETSTAT")
        items = [ranked(b"s%d" % i, salt=b"ab"[i % 2 :][:1]) for i in range(300)]
        await store.put_many(items)
        await store.renew([lease_for(item, START_S + 900) for item in items], 0)
        await store.get([item.target for item in items])
        some, one = ChangeFilter(salt=b"a", since_seq=1), ChangeFilter(salt=b"a", subject=b"s0")
        for wanted in (ChangeFilter(), ChangeFilter(subject=b"s1"), some, one):
            await store.changes(None, wanted, 9, 9_999)
        await store.fingerprints(None, [EVERYTHING])
        await store.fingerprints(b"a", [EVERYTHING, (items[0].target, items[0].target)])
        await store.listing(b"a", *EVERYTHING, 99)
        await store.history(items[0].target, 9)
        await store.usage()
        await store.drop([ItemKey(item.target, 3) for item in items[:9]])
        await store.sweep(START_S + 901)
        used = set(re.findall(rb"cmdstat_([a-z|]+):", redis.send("INFO", "commandstats")))
        assert used
        assert not used & {b"keys", b"scan", b"hscan", b"sscan", b"zscan", b"smembers", b"sort"}


async def test_c32_the_cost_of_a_put_does_not_grow_with_what_is_held(redis, opened):
    async def commands(call) -> int:
        redis.send("CONFIG", "RESETSTAT")
        await call
        stats = redis.send("INFO", "commandstats").decode()
        return sum(int(n) for n in re.findall(r"calls=(\d+)", stats))

    async with opened(redis) as (store, _):
        costs = []
        for size in (10, 1_000, 5_000):
            await store.put_many([ranked(b"fill%d" % i) for i in range(size)])
            new = [ranked(b"new%d-%d" % (size, i)) for i in range(20)]
            costs.append(
                (
                    await commands(store.put_many(new)),
                    await commands(store.get([new[0].target])),
                    await commands(store.renew([lease_for(new[0], START_S + 999)], 0)),
                    await commands(store.sweep(START_S)),
                )
            )
        assert costs[0] == costs[1] == costs[2]
        assert costs[0][0] <= 20 * 20 + 10


async def test_packing_a_large_batch_lets_the_loop_go_on(redis, opened):
    """20 MiB in one call: others get a turn after every slice of 256 KiB."""
    async with opened(redis) as (store, _):
        items = [ranked(b"s%d" % i, v=bytes(60_000)) for i in range(340)]
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await anyio.sleep(0)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count_turns)
            assert {o.code for o in await store.put_many(items)} == {0}
            tasks.cancel_scope.cancel()
        assert turns >= 340 * 60_000 // SLICE_BYTES


def test_slices_are_what_the_protocol_says():
    commands = [(b"SET", b"k", b"v" * 600_000), (b"GET", b""), (b"MGET", *[b"k"] * 100_000)]
    whole = b"".join(
        b"*%d\r\n" % len(c) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in c) for c in commands
    )
    parts = list(slices(commands))
    assert b"".join(parts) == whole
    assert all(len(part) < SLICE_BYTES + 600_100 for part in parts)
    assert len(parts) > 3


async def test_replies_are_bounded_and_asked_for_in_stretches(redis, opened):
    """Large rows: each reply ends near 2 MiB, and nothing is missing in the end."""
    async with opened(redis) as (store, link):
        items = [ranked(b"s%d" % i, v=bytes(65_536)) for i in range(120)]
        await store.put_many(items)
        largest = 0
        exchange = dialing.Line.exchange

        async def weighed(self, commands):
            nonlocal largest
            replies = await exchange(self, commands)
            largest = max(largest, _weight(replies))
            return replies

        dialing.Line.exchange = weighed
        try:
            assert len(await store.listing(None, *EVERYTHING, 1_000)) == 120
            assert sum(len(slots) for slots in await store.get([i.target for i in items])) == 120
            page = await store.changes(None, ChangeFilter(), 1_000, 1 << 30)
            assert (len(page.entries), page.has_more) == (120, False)
            for seq in range(2, 60):
                await store.put_many([ranked(b"s1", v=bytes(65_536), seq=seq)])
            assert len(await store.history(items[1].target, 100)) == 4
        finally:
            dialing.Line.exchange = exchange
        assert largest < 5 << 20
        assert link.state == "up"


def _weight(reply) -> int:
    if isinstance(reply, list):
        return sum(map(_weight, reply))
    return len(reply) if isinstance(reply, bytes) else 8

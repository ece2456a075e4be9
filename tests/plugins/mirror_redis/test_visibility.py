"""What others write into the same Redis: noticed, proven, and then served as anything else."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import msgspec
import pytest

from skycore.contracts.namespace import Form, Namespace, Namespaces
from skycore.contracts.store import ChangeFilter, ItemKey, ItemStore
from skycore.errors import StoreError, StoreUnreachableError
from skycore.events import Events
from skycore.guards.gate import GateSettings, open_gate
from skycore.guards.shared import SharedStore
from skycore.model.items import (
    ItemClass,
    Kind,
    RankedItem,
    item_digest,
    item_rank,
    item_signed_bytes,
    make_item,
    make_lease,
)
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.testing.contracts.store_model import EVERYTHING
from skycore.testing.fakes import TEST_NETWORK, FakeClock, InlineWorkers, SeededEntropy, identity
from skycore.testing.redisserver import RedisServer
from store_memory.service import open_memory_store
from store_memory.settings import MemoryStoreSettings

NOTE = Namespace(b"note", 1, str, Form.SINGLE, dict.fromkeys(ItemClass, 3_600))
TAGS = Namespace(b"tags", 1, str, Form.SET, {ItemClass.OWNER: 300})
SPACES = Namespaces([NOTE, TAGS])


class CountingSuite:
    def __init__(self) -> None:
        self.verified = 0

    def __getattr__(self, name):
        return getattr(ED25519, name)

    def verify(self, public, message, signature):
        self.verified += 1
        return ED25519.verify(public, message, signature)


class House:
    """A gate on a store, and hands to sign with."""

    def __init__(self, gate, store, link, clock, suite) -> None:
        self.gate, self.store, self.link, self.clock, self.suite = gate, store, link, clock, suite

    def item(self, name="alice", v="hello", *, salt=b"note", seq=None, life_s=250, kind=Kind.VALUE):
        encoded = NOTE.encode(v) if isinstance(v, str) else v
        seq = self.clock.wall_ns() if seq is None else seq
        until = self.clock.wall_s() + life_s
        secret = identity(name).secret
        return make_item(
            TEST_NETWORK, secret, salt=salt, seq=seq, until=until, v=encoded, kind=kind
        )

    async def put(self, *items, **more):
        outcomes = await self.gate.admit(items, sender=b"p" * 32, **more)
        assert {o.code for o in outcomes} == {0}

    async def read(self, item):
        return [row.item for row in await self.gate.get(item.target)]


def ranked_as(item, **changes):
    """Return an item as a gate would rank it, or not quite."""
    signed = item_signed_bytes(TEST_NETWORK, item)
    row = RankedItem(
        item.target, 3, item_rank(item.seq, signed, item.sig), item_digest(signed), item, b"x", 7
    )
    return msgspec.structs.replace(row, **changes)


@pytest.fixture
async def open_house(redis, opened):
    """Return a function that opens one more gate on the same Redis."""
    async with AsyncExitStack() as stack:

        async def open_one(seed, **settings):
            return await stack.enter_async_context(_house(opened, redis, seed, settings))

        yield open_one


@asynccontextmanager
async def _house(opened, server, seed, settings):
    suite, clock = CountingSuite(), FakeClock()
    me = identity(f"node{seed}", NetworkConstants(suite, TEST_NETWORK.name))
    async with (
        opened(server, seed=seed, clock=clock, **settings) as (store, link),
        open_gate(GateSettings(), store, me, SPACES, clock, InlineWorkers(), Events()) as gate,
    ):
        yield House(gate, store, link, clock, suite)


async def until(condition) -> None:
    with anyio.fail_after(5):
        while not condition():
            await anyio.sleep(0.005)


async def listens(*houses) -> None:
    """Wait until a subscription hears."""
    for house in houses:
        await until(lambda house=house: house.link.counters["news"] >= 1)


# --- noticed -----------------------------------------------------------------------------------


async def test_o19_c35_l4_a_write_of_another_is_told_and_served(open_house):
    one, two = await open_house(1, poll_s=30), await open_house(2, poll_s=30)
    await listens(one, two)
    before = (await one.gate.changes(None, ChangeFilter(), 9, 1 << 20)).cursor
    changed = one.gate.changed()
    item = two.item()
    await two.put(item)
    with anyio.fail_after(2):
        await changed.wait()
    page = await one.gate.changes(before, ChangeFilter(salt=b"note"), 9, 1 << 20)
    assert [row.item for row in page.entries] == [item]
    assert await one.read(item) == [item]
    for act in (
        lambda: two.gate.renew([_lease(page.entries[0])], sender=b"p" * 32),
        lambda: two.gate.drop([ItemKey(item.target, 3)]),
    ):
        changed = one.gate.changed()
        await act()
        with anyio.fail_after(2):
            await changed.wait()
    assert await one.read(item) == []


def _lease(row):
    return make_lease(TEST_NETWORK, identity("alice").secret, row, row.until + 60)


async def test_o19_without_notifications_a_look_every_second_finds_it(open_house, redis):
    one, two = await open_house(1, poll_s=0.05), await open_house(2)
    await listens(one)
    redis.send("CLIENT", "KILL", "TYPE", "pubsub")
    redis.send("ACL", "SETUSER", "default", "resetchannels")  # nobody may tell or be told
    try:
        changed = one.gate.changed()
        item = two.item()
        await two.put(item)
        with anyio.fail_after(2):
            await changed.wait()
        assert await one.read(item) == [item]
    finally:
        redis.send("ACL", "SETUSER", "default", "allchannels")


async def test_what_a_node_writes_itself_is_no_news(open_house):
    one, two = await open_house(1, poll_s=60), await open_house(2)
    await listens(one)
    news, rung = one.store.news, one.link.counters

    async def is_still() -> bool:
        await news._find()  # what each poll does
        before = rung["news"]
        await anyio.sleep(0.02)
        return rung["news"] == before

    with anyio.fail_after(5):
        while not await is_still():
            pass
    before = rung["news"]
    for n in range(10):
        await one.put(one.item(f"n{n}"))
    assert await is_still()
    assert rung["news"] == before
    await two.put(two.item("another's"))
    await until(lambda: rung["news"] > before)


async def test_a_store_of_ones_own_is_not_wrapped():
    async with (
        open_memory_store(MemoryStoreSettings(), SeededEntropy()) as store,
        open_gate(
            GateSettings(), store, identity("me"), SPACES, FakeClock(), InlineWorkers(), Events()
        ) as gate,
    ):
        assert gate._store is store


# --- proven ------------------------------------------------------------------------------------


async def test_what_others_wrote_is_proven_once_and_ones_own_never(open_house):
    one, two = await open_house(1), await open_house(2)
    items = [one.item(f"n{i}") for i in range(40)]
    await one.put(*items)
    one.suite.verified = two.suite.verified = 0
    for _ in range(3):
        for house in (one, two):
            assert len(await house.gate.listing(None, *EVERYTHING, 100)) == 40
            assert len((await house.gate.changes(None, ChangeFilter(), 99, 1 << 20)).entries) == 40
    assert (one.suite.verified, two.suite.verified) == (0, 40)
    assert two.gate.counters["proven"] == 40
    row = (await one.gate.get(items[0].target))[0]
    lease = make_lease(TEST_NETWORK, identity("n0").secret, row, row.until + 60)
    await one.gate.renew([lease], sender=b"p" * 32)
    one.suite.verified = 0
    for house in (one, two):
        assert (await house.gate.get(items[0].target))[0].lease == lease
    assert (one.suite.verified, two.suite.verified) == (0, 42)


@pytest.mark.parametrize("way", ["signature", "value", "rank", "digest", "target", "lease"])
async def test_m10_o22b_what_nobody_signed_is_dropped_by_name_and_never_served(
    open_house, way, caplog
):
    one, two = await open_house(1), await open_house(2)
    good, item = one.item("bob"), one.item()
    await one.put(good)
    row = ranked_as(item)
    forged = {
        "signature": lambda: ranked_as(msgspec.structs.replace(item, sig=bytes(64))),
        "value": lambda: ranked_as(msgspec.structs.replace(item, v=NOTE.encode("evil"))),
        "rank": lambda: msgspec.structs.replace(row, rank=b"\xff" * 40),
        "digest": lambda: msgspec.structs.replace(row, digest=bytes(32)),
        "target": lambda: msgspec.structs.replace(row, target=bytes(32)),
        "lease": lambda: row,
    }[way]()
    await two.store.put_many([forged])  # past any gate
    if way == "lease":
        bad = make_lease(TEST_NETWORK, identity("mallory").secret, forged, item.until + 60)
        await two.store.renew([bad], 0)
    assert await one.gate.get(forged.target) == ()
    assert (await two.gate.listing(None, *EVERYTHING, 9))[0].item == good
    assert [s.item for s in (await one.gate.changes(None, ChangeFilter(), 9, 9_999)).entries] == [
        good
    ]
    assert one.gate.counters["tampered"] == 1
    assert "wrong signatures" in caplog.text
    assert await one.store.get([forged.target]) == [()]
    await one.put(item)
    assert await two.read(item) == [item], "what it stood in the way of comes in"


async def test_m10_a_row_altered_after_it_was_proven_is_a_new_row(open_house, redis):
    one = await open_house(1)
    item = one.item()
    await one.put(item)
    assert await one.read(item) == [item]
    evil = msgspec.structs.replace(item, sig=b"s" * 64)
    key = b"dht:%s:3" % item.target.hex().encode()
    redis.send("HSET", key, "item", msgspec.msgpack.encode(evil))
    assert await one.read(item) == []
    assert one.gate.counters["tampered"] == 1


async def test_o22b_keys_of_other_shapes_are_not_items(open_house, redis):
    one = await open_house(1)
    item = one.item()
    await one.put(item)
    hexed = item.target.hex()
    redis.send("SET", f"dht:{hexed}", "{}")
    redis.send("SET", f"dht:{hexed.upper()}:3", "x")
    redis.send("ZADD", "dht:targets", "0", "zzz", "0", hexed.upper() + ":3", "0", hexed + ":x")
    redis.send("ZADD", "dht:log", "2", "not a member")
    assert [s.item for s in await one.gate.listing(None, *EVERYTHING, 9)] == [item]
    page = await one.gate.changes(None, ChangeFilter(), 9, 9_999)
    assert [s.item for s in page.entries] == [item]
    assert await one.gate.get(bytes(32)) == ()


async def test_what_this_node_would_not_admit_is_not_served_but_left_to_others(open_house):
    """Another schema, a clock far ahead: no reason to delete what others may be right about."""
    one = await open_house(1)
    two = await open_house(2)
    ahead = one.item("ahead", seq=one.clock.wall_ns() + 3_600 * 10**9, life_s=3_500)
    other = make_item(
        TEST_NETWORK, identity("x").secret, salt=b"note", seq=one.clock.wall_ns(),
        until=one.clock.wall_s() + 200, v=b"\xc1 not of this schema",
    )  # fmt: skip
    await one.store.put_many([ranked_as(ahead), ranked_as(other)])
    for house in (one, two):
        assert await house.gate.listing(None, *EVERYTHING, 9) == ()
        assert house.gate.counters["unproven"] == 2
    assert len(await one.store.listing(None, *EVERYTHING, 9)) == 2
    one.clock.wall_offset_s = 3_001
    assert await one.read(ahead) == [], "for some seconds it is not looked at again"
    one.clock.advance(11)
    assert await one.read(ahead) == [ahead], "it is time now"


async def test_a_head_with_its_blocks_is_proven_and_one_that_lacks_some_is_not_shown(open_house):
    one, two = await open_house(1), await open_house(2)
    value = TAGS.encode([f"tag {n:04d} of a list" for n in range(600)])
    tree = SPACES.plant(b"tags", identity("alice").public, value)
    head = one.item(v=tree.manifest, salt=b"tags", kind=Kind.MANIFEST)
    await one.put(head, blocks=list(tree.blocks.values()))
    [row] = await two.gate.get(head.target)
    assert await two.gate.value(row) == value
    lame = two.item("bob", v=tree.manifest, salt=b"tags", kind=Kind.MANIFEST)
    await one.store.put_many([ranked_as(lame)])  # refers to nothing: its blocks are not held by it
    assert await two.read(lame) == [lame], "the blocks are here all the same"
    await one.gate.drop([ItemKey(head.target, 3)])
    await one.store.sweep(one.clock.wall_s())
    await one.store.sweep(one.clock.wall_s() + 121)
    three = await open_house(3)
    assert await three.read(lame) == []
    assert three.gate.counters["unproven"] == 1


async def test_listing_fills_its_page_past_what_is_not_shown(open_house):
    one, two = await open_house(1), await open_house(2)
    good = [one.item(f"g{i}") for i in range(30)]
    bad = [one.item(f"b{i}", seq=one.clock.wall_ns() + 3_600 * 10**9) for i in range(30)]
    await one.put(*good)
    await one.store.put_many([ranked_as(item) for item in bad])
    listed = await two.gate.listing(None, *EVERYTHING, 30)
    assert {row.item for row in listed} == set(good)
    assert len(await two.gate.listing(None, *EVERYTHING, 11)) == 11


async def test_o21_an_expired_row_is_cleared_only_if_nobody_renewed_it(open_house):
    """Between this node's look and its write another node may have been there."""
    one, two = await open_house(1), await open_house(2)
    item = one.item(life_s=60, seq=one.clock.wall_ns() + 10**9)
    await one.put(item)
    for house in (one, two):
        house.clock.advance(61)
    stale = one.item(seq=item.seq - 1)
    real_get = one.store.get
    [[row]] = await real_get([item.target])

    async def and_then_another_node_writes(targets):
        rows = await real_get(targets)
        lease = make_lease(TEST_NETWORK, identity("alice").secret, row, item.until + 600)
        await two.store.renew([lease], 0)
        return rows

    one.store.get = and_then_another_node_writes
    [outcome] = await one.gate.admit([stale], sender=b"p" * 32)
    assert (outcome.code, outcome.seq) == (302, item.seq)
    assert await two.read(item) == [item]


# --- a Redis that is away ----------------------------------------------------------------------


async def test_m1_the_gate_starts_without_redis_and_serves_once_it_is_there(
    tmp_path, opened, caplog
):
    server = RedisServer(tmp_path)
    async with _house(opened, server, 1, {"retry_s": 0.02, "poll_s": 0.02}) as house:
        assert "not counted yet" in caplog.text
        with pytest.raises(StoreUnreachableError):
            await house.put(house.item())
        changed = house.gate.changed()
        server.start()
        try:
            with anyio.fail_after(5):
                await changed.wait()
            item = house.item()
            await house.put(item)
            assert await house.read(item) == [item]
            server.signal(signal.SIGKILL)
            with anyio.fail_after(5):
                while True:
                    try:
                        await house.read(item)
                    except StoreError:
                        break
                    await anyio.sleep(0.01)
        finally:
            server.stop()


async def test_m8_flushall_is_told_to_those_who_wait(open_house, redis):
    one = await open_house(1, poll_s=0.05)
    await listens(one)
    await one.put(one.item())
    before, changed = one.gate.store_id, one.gate.changed()
    redis.send("FLUSHALL")
    with anyio.fail_after(2):
        await changed.wait()
    assert one.gate.store_id != before
    await one.put(one.item("bob"))


def test_the_face_before_a_shared_store_is_a_store():
    wanted = {name for name in vars(ItemStore) if not name.startswith("_")}
    assert wanted <= set(dir(SharedStore))

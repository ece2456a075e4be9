"""A Redis that was emptied, with nobody but full nodes on it: they bring what is theirs again."""

from __future__ import annotations

import anyio
import msgspec
import pytest

from mirror_redis import bringing
from mirror_redis.bringing import Bringer
from mirror_redis.own import OwnRecords
from mirror_redis.service import StoreStatus
from skycore.contracts.publish import Fact, Publisher
from skycore.contracts.status import Health
from skycore.contracts.store import Items
from skycore.model.items import (
    Kind,
    RankedItem,
    item_digest,
    item_rank,
    item_signed_bytes,
    make_item,
    make_lease,
    mutable_item_target,
)
from skycore.node import Node
from skycore.testing.contracts.store_model import lease_for, ranked
from skycore.testing.fakes import FakeClock, identity
from skycore.testing.redisserver import RedisServer

HEALED_MAX_S = 60.0
SALTS = (b"note", b"large", b"gone")


def settings(server: RedisServer, **more):
    return {
        "node": {"enable": ["store_redis"], "disable": ["store_sqlite", "rpc_local"]},
        "transport_stcpr": {"listen": "127.0.0.1:0"},
        "store_redis": {"url": server.url, "timeout_s": 5, **more},
    }


async def publish(node) -> dict[bytes, bytes]:
    """Publish a value, one in blocks, and a deletion; return what readers get."""
    publisher = node.get(Publisher)
    large = bytes(range(256)) * 800
    await publisher.publish(Fact(b"gone", b"soon"))
    for salt, value in ((b"note", b"hello"), (b"large", large), (b"gone", None)):
        assert (await publisher.publish(Fact(salt, value))).reports[0].stored
    return {b"note": b"hello", b"large": large}


async def read(node, public) -> dict[bytes, bytes | None]:
    found = {}
    for salt in SALTS:
        for row in await node.get(Items).get(mutable_item_target(public, salt)):
            is_gone = row.item.kind == Kind.TOMBSTONE
            found[salt] = None if is_gone else await node.get(Items).value(row)
    return found


async def until_same(nodes, expected) -> None:
    with anyio.fail_after(HEALED_MAX_S):
        while True:
            if all([await read(n, p) == e for n in nodes for p, e in expected.items()]):
                return
            await anyio.sleep(0.05)


async def test_m8_full_nodes_alone_heal_an_emptied_redis_from_their_own_knowledge(redis):
    async with (
        Node.open("fullnode", settings(redis)) as one,
        Node.open("fullnode", settings(redis)) as two,
    ):
        expected = {n.identity.public: await publish(n) | {b"gone": None} for n in (one, two)}
        await until_same((one, two), expected)
        for _ in range(2):
            redis.send("FLUSHALL")
            await until_same((one, two), expected)


async def test_m8_and_what_they_published_before_they_were_started_anew(redis, tmp_path):
    async with Node.open("fullnode", settings(redis), data=tmp_path) as node:
        expected = {node.identity.public: await publish(node) | {b"gone": None}}
    async with Node.open("fullnode", settings(redis), data=tmp_path) as node:
        own = node.get(OwnRecords)  # of what else a node publishes, too
        with anyio.fail_after(10):
            while not {r.ranked.item.salt for r in own.living(0)}.issuperset(SALTS):
                await anyio.sleep(0.02)
        redis.send("FLUSHALL")
        await until_same((node,), expected)


async def test_it_is_said_while_it_lasts(redis, opened):
    async with opened(redis) as (_, link):
        own = OwnRecords(b"k" * 32, 1_000)
        status = StoreStatus(link, own)
        assert (await status.status()).health is Health.OK
        own.is_bringing = True
        told = await status.status()
        assert told.health is Health.DEGRADED
        assert "emptied, or another one" in told.summary


# --- what is remembered ---------------------------------------------------------------------------


async def nothing(names):
    return [None] * len(names)


async def test_the_newest_is_remembered_with_its_lease_and_bounded():
    mine = ranked()
    own = OwnRecords(mine.item.signer, 5_000)
    await own.note(ranked(seq=5), {}, nothing)
    await own.note(ranked(seq=4), {}, nothing)
    own.prolong(lease_for(ranked(seq=4), 10**10))
    own.prolong(lease_for(ranked(seq=5), 10**9 * 9))
    [held] = own.living(0)
    assert (held.ranked.item.seq, held.until, held.ranked.cas) == (5, 10**9 * 9, None)
    for number in range(50):
        await own.note(ranked(b"s%d" % number, v=bytes(500)), {}, nothing)
    assert own.bytes <= 5_000 and own.fallen == 51 - len(own)
    assert own.bytes == sum(record.size for record in own.living(0))
    assert not own.living(10**11) and not own.bytes and not len(own)


def signed(salt: bytes, name: str = "me", **wrong) -> RankedItem:
    """Return what somebody signed, as a gate ranks it, or not quite."""
    who, until = identity(name), FakeClock().wall_s() + 500
    item = make_item(who.network, who.secret, salt=salt, seq=7, until=until, v=b"v")
    said = item_signed_bytes(who.network, item)
    rank = item_rank(7, said, item.sig)
    row = RankedItem(item.target, 3, rank, item_digest(said), item, b"x", 7)
    return msgspec.structs.replace(row, **wrong)


async def recalled(store, link) -> list:
    me = identity("me")
    own = OwnRecords(me.public, 1 << 20)
    await Bringer(store, own, me, FakeClock())._recall()
    return own.living(0)


@pytest.mark.parametrize(
    "wrong",
    [{"rank": b"\xff" * 40}, {"target": bytes(32)}, {"item_class": 1}, {"digest": bytes(32)}],
    ids=lambda wrong: next(iter(wrong)),
)
async def test_m8_what_others_moved_or_raised_is_not_brought_as_ours(redis, opened, wrong):
    """Its signature is ours; where it lies, and above what, is not what we said."""
    async with opened(redis) as (store, link):
        await store.put_many([signed(b"good"), signed(b"bad", **wrong), signed(b"a", "mallory")])
        assert [r.ranked.item.salt for r in await recalled(store, link)] == [b"good"]


async def test_m8_a_lease_that_others_forged_is_not_brought_as_ours(redis, opened):
    async with opened(redis) as (store, link):
        one, two = signed(b"one"), signed(b"two")
        me, mallory = identity("me"), identity("mallory")
        await store.put_many([one, two])
        later = one.item.until + 100
        ours, forged = (make_lease(me.network, w.secret, r, later)
                        for w, r in ((me, one), (mallory, two)))  # fmt: skip
        await store.renew([ours, forged], 0)
        leases = {r.ranked.item.salt: r.lease for r in await recalled(store, link)}
        assert leases == {b"one": ours, b"two": None}


async def test_m8_all_of_ours_is_remembered_where_pages_end_with_it(redis, opened, monkeypatch):
    monkeypatch.setattr(bringing, "LISTED_AT_ONCE", 2)
    async with opened(redis) as (store, link):
        await store.put_many([signed(b"s%d" % n) for n in range(9)])
        assert len(await recalled(store, link)) == 9

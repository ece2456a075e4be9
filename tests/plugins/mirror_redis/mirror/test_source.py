"""The mirror's Redis as a source of entries: what full nodes hold there, proven once more."""

from __future__ import annotations

import time

import anyio
import pytest

from mirror_redis.settings import RedisStoreSettings
from mirror_redis.source import open_redis_source
from skycore.contracts.namespace import Form, Namespace, Namespaces
from skycore.errors import CursorInvalidError, StoreError
from skycore.model.items import ItemClass, Kind, MutableItem, RankedItem, make_item, make_lease
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.testing.contracts.discovery import FollowedSourceContract, Sourced
from skycore.testing.fakes import SeededEntropy, identity
from skycore.testing.redisserver import RedisServer

AUTHORITY = identity("authority").secret
NETWORK = NetworkConstants(ED25519, "skycore-test", ED25519.public(AUTHORITY))
CLASSES = (ItemClass.OWNER, ItemClass.DELEGATE, ItemClass.MIRROR)
NOTE = Namespace(b"note", 1, str, Form.SINGLE, dict.fromkeys(CLASSES, 3_600))
NAMESPACES = Namespaces([NOTE])


def person(who):
    return identity(f"person{who}", NETWORK)


class Both:
    """A mirror with its source, and a full node on the same Redis, where people put records."""

    def __init__(self, service, full, source, server):
        self.service, self.full, self.source, self.server = service, full, source, server
        self.stamp = time.time_ns()

    def body(self, who, n):
        return f"note {n} of {who}"

    def item(self, who, n, **more) -> MutableItem:
        self.stamp += 1
        return make_item(
            NETWORK, person(who).secret, salt=b"note", seq=self.stamp,
            **{
                "until": int(time.time()) + (600 if n is not None else 86_400),
                "v": b"" if n is None else NOTE.encode(self.body(who, n)),
                "kind": Kind.TOMBSTONE if n is None else Kind.VALUE,
                **more,
            },
        )  # fmt: skip

    async def admit(self, item, **more):
        (outcome,) = await self.full.items.admit([item], sender=item.signer, **more)
        assert outcome.accepted, outcome

    async def say(self, who, n):
        await self.admit(self.item(who, n))
        return bytes(person(who).public)

    async def mirror(self, who, n):
        await self.service.publish(self.body(who, n), f"person{who}")
        await self.service.settled()
        return bytes(person(who).public)

    async def prolong(self, who):
        me = person(who)
        [stored, *_] = await self.full.items.get(self.item(who, 0).target)
        lease = make_lease(NETWORK, me.secret, stored, int(time.time()) + 3_000)
        (outcome,) = await self.full.items.renew([lease], sender=me.public)
        assert outcome.accepted

    async def fail(self):
        self.server.stop()


@pytest.fixture
async def both(request, service, reader):
    is_hurt = any(word in request.node.name for word in ("cannot_be_asked", "gone"))
    server: RedisServer = (
        request.getfixturevalue("own_redis")() if is_hurt else request.getfixturevalue("redis")
    )
    async with (
        service(server.url) as mirror,
        reader(server.url) as full,
        open_redis_source(
            mirror.link, mirror.items,
            NAMESPACES, mirror.me, mirror.clock, SeededEntropy(7),
        ) as source,
    ):  # fmt: skip
        source._poll_s = 0.05
        yield Both(mirror, full, source, server)


class TestRedisSource(FollowedSourceContract):
    @pytest.fixture
    async def sourced(self, both):
        yield Sourced(
            both.source, b"note", both.service.clock, both.say, both.body, fail=both.fail,
            mirror=both.mirror, prolong=both.prolong,
        )  # fmt: skip


async def test_m10_what_somebody_wrote_into_redis_is_not_told(both):
    """Rows that no gate let in: a forged value, a forged signer, an item in another's place."""
    await both.say(0, 1)
    await both.say(1, 1)
    rows = both.server.send("KEYS", "*")
    assert rows
    alice = person(0)
    forged = both.item(1, 5)
    forged = type(forged)(alice.public, alice.public, *[getattr(forged, name) for name in (
        "salt", "seq", "kind", "until", "v", "sig")])  # fmt: skip
    store = both.source._store
    [(row,)] = await store.get([both.item(0, 0).target])
    rank = (2**63 - 1).to_bytes(8, "big") + bytes(32)
    await store.put_many(
        [RankedItem(row.target, row.item_class, rank, row.digest, forged, b"x", time.time_ns())]
    )
    assert await both.source.find(b"note", bytes(alice.public)) is None
    listed = await both.source.records(b"note")
    assert [r.body for r in listed.records] == ["note 1 of 1"]
    assert both.source.counters["refused"] >= 2
    told = []
    async with both.source.follow(b"note") as batches:
        with anyio.move_on_after(1.5):
            async for batch in batches:
                told += [r.body for r in batch]
    assert told == ["note 1 of 1"]


async def test_l4_each_look_tells_what_came_since(both):
    """And there is one a second, unless a setting says otherwise."""
    assert RedisStoreSettings.model_fields["poll_s"].default == 1.0
    told = []
    await both.say(0, 0)
    async with both.source.follow(b"note") as batches:
        told += [r.body for r in await anext(batches)]
        for n in (1, 2):
            await both.say(0, n)
            told += [r.body for r in await anext(batches)]
    assert told == [both.body(0, n) for n in range(3)]


async def test_a_follower_hears_that_redis_is_gone_or_another_one(both):
    await both.say(0, 1)
    async with both.source.follow(b"note") as batches:
        assert [r.body for r in await anext(batches)] == ["note 1 of 0"]
        both.server.send("FLUSHALL")
        with pytest.raises((CursorInvalidError, StoreError)):
            async for _ in batches:
                pass
    both.server.stop()
    async with both.source.follow(b"note") as batches:
        with pytest.raises(StoreError):
            async for _ in batches:
                pass


async def test_values_in_blocks_are_told_whole(both):
    await both.service.publish("x" * 200_000, "person3")
    await both.service.settled()
    record = await both.source.find(b"note", bytes(person(3).public))
    assert record.body == "x" * 200_000 and record.signer == both.service.me.public

"""A store that others write too: noticed, proven once, and never just believed."""

from __future__ import annotations

from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest

from skycore.contracts.store import ChangeFilter, ItemKey
from skycore.guards import shared
from skycore.guards.shared import SharedStore
from skycore.model.items import RankedItem, item_digest, item_rank, item_signed_bytes, make_lease
from store_memory.service import MemoryStore

EVERYTHING = (bytes(32), b"\xff" * 32)


class SharedMemory(MemoryStore):
    """A store in memory that says that others write to it, and rings when told to."""

    def __init__(self) -> None:
        super().__init__(b"i" * 16, 4)
        self.bell = anyio.Event()

    @asynccontextmanager
    async def watch(self):  # type: ignore[override]
        async def rings():
            while True:
                await self.bell.wait()
                self.bell = anyio.Event()
                yield

        yield rings()


@pytest.fixture
async def house(open_house):
    async with open_house(store=SharedMemory()) as one:
        yield one


def row_of(house, item, **changes):
    signed = item_signed_bytes(house.network, item)
    rank, digest = item_rank(item.seq, signed, item.sig), item_digest(signed)
    row = RankedItem(item.target, 3, rank, digest, item, b"other", house.clock.wall_ns())
    return msgspec.structs.replace(row, **changes)


async def write_past_the_gate(house, *rows):
    await house.store._store.put_many(rows)


async def test_news_of_others_are_changes(house):
    changed = house.gate.changed()
    await write_past_the_gate(house, row_of(house, house.item()))
    house.store._store.bell.set()
    with anyio.fail_after(1):
        await changed.wait()
    assert len(await house.read("alice")) == 1


async def test_each_way_of_reading_proves_and_only_once(house):
    items = [house.item(f"n{i}") for i in range(5)]
    await write_past_the_gate(house, *(row_of(house, item) for item in items))
    house.suite.verified = 0
    assert len(await house.gate.listing(None, *EVERYTHING, 9)) == 5
    assert len((await house.gate.changes(None, ChangeFilter(), 9, 1 << 20)).entries) == 5
    assert len(await house.read("n0")) == 1
    await house.put(house.item("n0", "newer", seq=items[0].seq + 1))
    assert len(await house.gate.history(items[0].target, 9)) == 1
    assert house.suite.verified == 6
    assert house.gate.counters["proven"] == 5


async def test_what_is_not_signed_goes_and_what_is_not_for_us_stays_unseen(house):
    forged = msgspec.structs.replace(house.item(), sig=bytes(64))
    ahead = house.item("bob", seq=house.clock.wall_ns() + 3_600 * 10**9)
    await write_past_the_gate(house, row_of(house, forged), row_of(house, ahead))
    assert await house.gate.listing(None, *EVERYTHING, 9) == ()
    left = await house.store._store.listing(None, *EVERYTHING, 9)
    assert [row.item for row in left] == [ahead]
    assert (house.gate.counters["tampered"], house.gate.counters["unproven"]) == (1, 1)
    house.suite.verified = 0
    assert await house.gate.listing(None, *EVERYTHING, 9) == ()
    assert house.suite.verified == 0, "what was refused is not looked at again at once"


async def test_what_changed_while_it_was_judged_is_not_dropped(house):
    store = house.store._store
    forged = row_of(house, msgspec.structs.replace(house.item(), sig=bytes(64)))
    await store.put_many([forged])
    good = house.item(seq=house.clock.wall_ns() + 10)
    real_drop = store.drop

    async def drop(keys, positions=None):
        await store.put_many([row_of(house, good)])  # another node is faster
        return await real_drop(keys, positions)

    store.drop = drop
    assert await house.read("alice") == []
    assert [s.item for s in await house.read("alice")] == [good]


async def test_a_row_that_has_ended_was_right_once_and_gives_way(house):
    old = house.item(seq=house.clock.wall_ns() + 5 * 10**9, life_s=60)
    await write_past_the_gate(house, row_of(house, old))
    house.clock.advance(61)
    assert await house.read("alice") == []
    assert await house.put(house.item(seq=old.seq - 1)) == [0], "also to a lower seq"
    assert "unproven" not in house.gate.counters


async def test_leases_are_proven_apart(house):
    item = house.item()
    await house.put(item)
    [row] = await house.read("alice")
    good = make_lease(house.network, house.key("alice"), row, row.until + 60)
    bad = make_lease(house.network, house.key("mallory"), row, row.until + 90)
    await house.store._store.renew([good], 0)
    house.suite.verified = 0
    assert [s.lease for s in await house.read("alice")] == [good]
    assert house.suite.verified == 2
    await house.store._store.renew([bad], 0)
    assert await house.read("alice") == []
    assert house.gate.counters["tampered"] == 1


async def test_what_is_remembered_is_bounded(open_house, monkeypatch):
    monkeypatch.setattr(shared, "PROVEN_MAX", 20)
    async with open_house(store=SharedMemory()) as house:
        await house.put(*[house.item(f"n{i}") for i in range(50)])
        face = house.gate._store
        assert isinstance(face, SharedStore)
        assert len(face._proven._young) + len(face._proven._old) <= 20
        assert len(await house.gate.listing(None, *EVERYTHING, 99)) == 50


async def test_drop_and_usage_are_the_stores_own(house):
    item = house.item()
    await house.put(item)
    assert (await house.gate.usage())[b"note"].items == 1
    assert await house.gate.drop([ItemKey(item.target, 3)]) == 1

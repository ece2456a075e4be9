"""What was published, over restarts: a lease where nothing changed, and no trust in a bad file."""

from __future__ import annotations

from contextlib import asynccontextmanager

import msgspec
import pytest

from skycore.contracts.publish import Fact
from skycore.errors import StoreError
from skycore.guards import published as published_module
from skycore.guards.publish import PublisherSettings, open_publisher
from skycore.guards.published import RECORDS_FILE
from skycore.model.delegation_token import encode_delegation
from skycore.model.items import mutable_item_target
from skycore.testing.fakes import MemoryFiles
from skycore.testing.mirrors import PeersMirror
from skycore.wiring import Live

HOUR_S = 3_600
TAGS = [f"tag {n}" for n in range(2_000)]


def note(house, text):
    return Fact(b"note", house.namespaces.find(b"note").encode(text))


def tags(house, values=TAGS):
    return Fact(b"tags", house.namespaces.find(b"tags").encode(values))


@asynccontextmanager
async def publishing(house, mirrors, files, **settings):
    async with open_publisher(
        PublisherSettings(**settings), house.me, house.gate, Live(mirrors), house.namespaces,
        house.clock, files,
    ) as publisher:  # fmt: skip
        yield publisher


@pytest.fixture
async def net(open_house):
    async with open_house("me") as house, open_house("peer") as peer:
        yield house, peer, PeersMirror("peers", [peer.gate], house.me.public)


@pytest.mark.parametrize("has_disk", [True, False])
async def test_c27_a_restart_with_unchanged_content_signs_no_item(net, has_disk):
    """With the disk: a lease each. Without it: everything once more, as after a first start."""
    house, peer, mirror = net
    files = MemoryFiles()
    facts = [note(house, "hello"), tags(house)]
    async with publishing(house, [mirror], files) as publisher:
        first = await publisher.publish_many(facts)
    sent, blocks, wrote = mirror.items_sent, mirror.blocks_sent, _writes(peer)
    house.clock.advance(5)
    peer.clock.advance(5)
    kept = files if has_disk else MemoryFiles()
    async with publishing(house, [mirror], kept) as publisher:
        again = await publisher.publish_many(facts)
        assert [p.unchanged for p in again] == [has_disk] * 2
        if has_disk:
            assert [p.seq for p in again] == [p.seq for p in first]
            assert mirror.leases_sent == 2
            assert (mirror.items_sent, mirror.blocks_sent, _writes(peer)) == (sent, blocks, wrote)
        else:
            assert (mirror.items_sent, mirror.leases_sent) == (sent + 2, 0)
        third = await publisher.publish_many(facts)  # known now: nothing at all
        assert [(p.unchanged, p.reports) for p in third] == [(True, ())] * 2


def _writes(house):
    return house.store.calls.count("put_many")


async def test_c27_what_changed_while_we_were_away_is_signed(net):
    house, _, mirror = net
    files = MemoryFiles()
    async with publishing(house, [mirror], files) as publisher:
        await publisher.publish_many([note(house, "old"), tags(house)])
    async with publishing(house, [mirror], files) as publisher:
        changed, same = await publisher.publish_many([note(house, "new"), tags(house)])
        assert (changed.unchanged, same.unchanged) == (False, True)


async def test_c17_what_was_lost_meanwhile_is_sent_again(net):
    """A file says that it was published; nobody holds it: the item goes out, not a lease."""
    house, peer, mirror = net
    files = MemoryFiles()
    async with publishing(house, [mirror], files) as publisher:
        await publisher.publish(tags(house))
    (stored,) = await peer.gate.get(mutable_item_target(house.me.public, b"tags"))
    await peer.gate.drop([(stored.target, stored.item_class)])
    async with publishing(house, [mirror], files) as publisher:
        published = await publisher.publish(tags(house))
        assert not published.unchanged
        assert published.reports[0].stored == 1
        (stored,) = await peer.gate.get(stored.target)
        assert await peer.gate.value(stored) == tags(house).v


async def test_c17_a_mirror_that_came_meanwhile_gets_the_item(net):
    house, peer, mirror = net
    files = MemoryFiles()
    async with publishing(house, [], files) as publisher:
        await publisher.publish(tags(house))
    async with publishing(house, [mirror], files) as publisher:
        assert not (await publisher.publish(tags(house))).unchanged
        assert len(await peer.gate.get(mutable_item_target(house.me.public, b"tags"))) == 1


@pytest.mark.parametrize("has_disk", [True, False])
@pytest.mark.parametrize("set_back_s", [0, HOUR_S])
async def test_c13_l13_a_restart_with_the_clock_set_back(net, has_disk, set_back_s):
    """The first publish is accepted, changed or not; an old lease does not keep it from us."""
    house, peer, mirror = net
    files = MemoryFiles()
    two_hours = [Fact(b"a", b"same"), Fact(b"b", b"before"), Fact(b"c", bytes(100_000))]
    async with publishing(house, [mirror], files) as publisher:
        await publisher.publish_many(two_hours)
    house.clock.wall_offset_s = -set_back_s
    after = [two_hours[0], Fact(b"b", b"after"), two_hours[2]]
    async with publishing(house, [mirror], files if has_disk else MemoryFiles()) as publisher:
        done = await publisher.publish_many(after)
        assert [p.reports[0].stored for p in done] == [1, 1, 1]
        is_known = has_disk and not set_back_s
        assert [p.unchanged for p in done] == [is_known, False, is_known]
        for fact in after:
            (stored,) = await peer.gate.get(mutable_item_target(house.me.public, fact.salt))
            assert await peer.gate.value(stored) == fact.v
            assert stored.until > peer.clock.wall_s() + HOUR_S - 1


@pytest.mark.parametrize("restarted", [True, False])
async def test_c3_what_only_we_took_while_our_clock_ran_ahead_goes_out_when_it_is_right(
    net, restarted
):
    """Two days ahead: our own store believes us, nobody else does; then the clock is corrected."""
    house, peer, _ = net
    files, fact = MemoryFiles(), tags(house)

    class Both(PeersMirror):
        """As the DHT reports: our own store's outcome, and the replicas'."""

        async def mirror(self, items, **more):
            reports = await super().mirror(items, **more)
            own = await house.gate.admit(
                items, sender=house.me.public, blocks=tuple((more["blocks"] or {}).values())
            )
            return [
                msgspec.structs.replace(report, outcome=outcome)
                for report, outcome in zip(reports, own, strict=True)
            ]

    both = Both("dht", [peer.gate], house.me.public)
    house.clock.wall_offset_s = 2 * 86_400
    async with publishing(house, [both], files) as publisher:
        published = await publisher.publish(fact)
        assert (published.reports[0].stored, published.reports[0].replicas[0].code) == (1, 303)
        if not restarted:
            house.clock.wall_offset_s = 0
            published = await publisher.publish(fact)
    if restarted:
        house.clock.wall_offset_s = 0
        async with publishing(house, [both], files) as publisher:
            published = await publisher.publish(fact)
    assert published.reports[0].stored == 2
    (stored,) = await peer.gate.get(mutable_item_target(house.me.public, b"tags"))
    assert await peer.gate.value(stored) == fact.v


async def test_a_delegate_s_records_are_remembered_too(net):
    house, peer, mirror = net
    files = MemoryFiles()
    token = house.delegation("authority", "me", life_s=HOUR_S)
    value = note(house, "hello").v
    facts = [Fact(b"note", value, b"subject %d" % n) for n in range(300)]
    for turn in range(3):
        async with publishing(
            house, [mirror], files, delegations=(encode_delegation(token),)
        ) as publisher:
            published = await publisher.publish_many(facts)
            assert [p.unchanged for p in published] == [turn > 0] * 300
    assert (mirror.items_sent, mirror.leases_sent) == (300, 600)
    assert len(await peer.contents()) == 300


# --- the file -------------------------------------------------------------------------------------


async def test_the_file_is_bounded_and_keeps_the_latest(net, monkeypatch):
    house, _, mirror = net
    monkeypatch.setattr(published_module, "FILE_RECORDS_MAX", 10)
    files = MemoryFiles()
    facts = [Fact(b"s%d" % n, b"x") for n in range(30)]
    async with publishing(house, [mirror], files) as publisher:
        await publisher.publish_many(facts)
    assert len(files.held[RECORDS_FILE]) < 10 * 160 + 200
    async with publishing(house, [mirror], files) as publisher:
        again = await publisher.publish_many(facts)
        assert [p.unchanged for p in again] == [False] * 20 + [True] * 10
    async with publishing(house, [mirror], files, records_max=4) as publisher:
        again = await publisher.publish_many(facts)
        assert [p.unchanged for p in again].count(True) == 4


async def test_the_largest_file_fits_into_what_files_takes(net):
    house, _, mirror = net
    files = MemoryFiles()
    rows = [(bytes(32), bytes(32), 2**63 - 1, bytes(32), 2**40, 2**62, [0, 1])]
    row = len(msgspec.msgpack.encode(rows[0]))
    assert row * published_module.FILE_RECORDS_MAX < 4 * 1024 * 1024 - 20_000
    async with publishing(house, [mirror], files, records_max=0) as publisher:
        await publisher.publish(Fact(b"s", b"x"))
        assert not (await publisher.publish(Fact(b"s", b"x"))).unchanged


async def test_a_damaged_file_is_like_none(net):
    house, _, mirror = net
    files = MemoryFiles()
    async with publishing(house, [mirror], files) as publisher:
        await publisher.publish(note(house, "hello"))
    good = files.held[RECORDS_FILE]
    wrong_version = b"\x95\x02" + good[2:]
    assert good[:2] == b"\x95\x01"
    damaged = [b"", b"junk", good[:-1], good[:40], b"\x91" * 5_000, wrong_version, good + b"\xc1"]
    for data in damaged:
        files.held[RECORDS_FILE] = data
        sent = mirror.items_sent
        async with publishing(house, [mirror], files) as publisher:
            published = await publisher.publish(note(house, "hello"))
            assert not published.unchanged
            assert mirror.items_sent > sent
            assert published.reports[0].stored == 1


async def test_another_key_s_file_is_not_ours(open_house, net):
    house, _, mirror = net
    files = MemoryFiles()
    token = [house.delegation("authority", name) for name in ("me", "bob")]
    fact = Fact(b"note", note(house, "x").v, b"subject")
    async with publishing(house, [mirror], files) as publisher:
        await publisher.publish_many([fact], delegations=token)
    async with open_house("bob") as bob, publishing(bob, [mirror], files) as publisher:
        (published,) = await publisher.publish_many([fact], delegations=token)
        assert not published.unchanged


async def test_a_disk_that_fails_stops_no_publish(net, caplog):
    house, _, mirror = net

    class Full(MemoryFiles):
        def write(self, name, data):
            if name == RECORDS_FILE:
                raise StoreError("the disk is full")
            super().write(name, data)

        def read(self, name):
            if name == RECORDS_FILE:
                raise StoreError("the disk cannot be read")
            return super().read(name)

    async with publishing(house, [mirror], Full()) as publisher:
        assert (await publisher.publish(note(house, "x"))).reports[0].stored == 1
        assert (await publisher.publish(note(house, "x"))).unchanged
    assert "the disk is full" in caplog.text
    assert "the disk cannot be read" in caplog.text


async def test_what_is_over_is_not_written(net):
    house, _, mirror = net
    files = MemoryFiles()
    async with publishing(house, [mirror], files) as publisher:
        await publisher.publish(tags(house))
        house.clock.advance(HOUR_S)
        await publisher.publish(note(house, "x"))
    assert len(msgspec.msgpack.decode(files.held[RECORDS_FILE])[4]) == 1

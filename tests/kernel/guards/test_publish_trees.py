"""Large records on their way out: whole, planted once, and nothing moved while nothing changed."""

from __future__ import annotations

import random
import uuid
from contextlib import asynccontextmanager

import msgspec
import pytest

from namespaces_skywire.declarations import ALL, SVC, TP
from skycore.contracts.publish import Fact
from skycore.contracts.store import Outcome
from skycore.errors import NamespaceError, ValueTooBigError
from skycore.guards.publish import PublisherSettings, open_publisher
from skycore.model.entries import ServiceEntry, TransportEntry
from skycore.model.items import Kind, mutable_item_target
from skycore.model.limits import SET_INLINE_MAX
from skycore.model.trie import reach, read_manifest
from skycore.testing.fakes import FakeClock, MemoryFiles, identity
from skycore.testing.mirrors import PeersMirror
from skycore.wiring import Live

HUB = identity("me").public.hex()
STORED = int(Outcome.STORED)


def transport(rng, edge=HUB):
    other = rng.randbytes(33).hex()
    return TransportEntry(uuid.UUID(bytes=rng.randbytes(16)), (edge, other), "stcpr", "automatic")


def hub(size, seed=0):
    rng = random.Random(seed)
    return [transport(rng) for _ in range(size)]


def tp(entries, subject=None):
    return Fact(b"tp", TP.encode(entries), subject)


@asynccontextmanager
async def publishing(house, mirrors=()):
    async with open_publisher(
        PublisherSettings(), house.me, house.gate, Live(mirrors), house.namespaces, house.clock,
        MemoryFiles(),
    ) as publisher:  # fmt: skip
        yield publisher


@pytest.fixture
async def net(open_house):
    """A node and a peer on one clock, and the mirror between them."""
    clock = FakeClock()
    async with (
        open_house("me", namespaces=ALL, clock=clock) as house,
        open_house("peer", namespaces=ALL, clock=clock) as peer,
    ):
        yield house, peer, PeersMirror("peers", [peer.gate], house.me.public)


async def held(house, subject, salt=b"tp"):
    (stored,) = await house.gate.get(mutable_item_target(subject, salt))
    return stored


@pytest.mark.parametrize("size", [0, 1, 13, 14, 200, 552, 916, 1_271, 5_000])
async def test_c18_hub_of_5000_is_readable_whole_at_every_size(net, size):
    """W-hub: what the namespace encodes, the trie carries, the gate checks and a reader decodes."""
    house, peer, mirror = net
    entries = hub(size)
    fact = tp(entries)
    async with publishing(house, [mirror]) as publisher:
        published = await publisher.publish(fact)
    assert published.reports[0].stored == 1
    stored = await held(peer, house.me.public)
    is_inline = len(fact.v) <= SET_INLINE_MAX
    assert stored.item.kind == (Kind.VALUE if is_inline else Kind.MANIFEST)
    assert bool(mirror.blocks_sent) != is_inline
    value = await peer.gate.value(stored)
    assert value == fact.v
    assert sorted(TP.decode(value), key=lambda e: e.set_key) == sorted(
        entries, key=lambda e: e.set_key
    )


async def test_c18_without_a_mirror_it_is_whole_in_our_own_store(net):
    house, _, _ = net
    fact = tp(hub(916))
    async with publishing(house) as publisher:
        published = await publisher.publish(fact)
        assert published.reports[0].stored == 1
        assert await house.gate.value(await held(house, house.me.public)) == fact.v


async def test_c20_a_plain_value_of_10_mb_under_any_salt(net):
    house, peer, mirror = net
    value = random.Random(1).randbytes(10_000_000)
    async with publishing(house, [mirror]) as publisher:
        published = await publisher.publish(Fact(b"anything", value))
        assert published.reports[0].stored == 1
        stored = await held(peer, house.me.public, b"anything")
        assert read_manifest(stored.item.v).version == 0
        assert await peer.gate.value(stored) == value


async def test_c27_l9_an_unchanged_hub_of_5000_moves_leases_and_nothing_else(net):
    """A heartbeat a minute for an hour: one item signature, and no value, no block, no write."""
    house, peer, mirror = net
    fact = tp(hub(5_000))
    async with publishing(house, [mirror]) as publisher:
        first = await publisher.publish(fact)
        signed, blocks = house.suite.signed, mirror.blocks_sent
        wrote = peer.store.calls.count("put_many")
        for _minute in range(60):
            house.clock.advance(60)
            again = await publisher.publish(fact)
            assert again.unchanged
            assert again.seq == first.seq
        assert (mirror.items_sent, mirror.blocks_sent) == (1, blocks)
        assert house.suite.signed - signed == mirror.leases_sent == 20
        assert peer.store.calls.count("put_many") == wrote
        assert await peer.gate.value(await held(peer, house.me.public)) == fact.v


async def test_c19_entries_added_by_turns_are_all_there(net):
    """Each writer publishes the union of what it read and its own: none is lost."""
    house, peer, mirror = net
    entries = hub(600)
    async with publishing(house, [mirror]) as publisher:
        known = []
        for start in range(0, 600, 150):
            known = [*known, *entries[start : start + 150]]
            await publisher.publish(tp(known))
            value = await peer.gate.value(await held(peer, house.me.public))
            known = list(TP.decode(value))
        assert {e.t_id for e in known} == {e.t_id for e in entries}


async def test_c28_a_changed_entry_leaves_most_blocks_as_they_were(net):
    house, peer, mirror = net
    entries = hub(916)
    async with publishing(house, [mirror]) as publisher:
        trees = []
        for latency in (0.0, 5.0):
            entries[7] = msgspec.structs.replace(entries[7], latency=latency)
            await publisher.publish(tp(entries))
            trees.append(await peer.gate.tree((await held(peer, house.me.public)).item))
        fresh = {name: block for name, block in trees[1].items() if name not in trees[0]}
        assert len(fresh) == 3
        assert sum(map(len, fresh.values())) < 4_096


async def test_c11_c12_a_large_record_is_deleted_and_comes_back(net):
    house, peer, mirror = net
    fact = tp(hub(916))
    async with publishing(house, [mirror]) as publisher:
        await publisher.publish(fact)
        gone = await publisher.publish(Fact(b"tp", None))
        stored = await held(peer, house.me.public)
        assert (stored.item.kind, stored.item.v) == (Kind.TOMBSTONE, b"")
        assert await peer.gate.value(stored) is None
        back = await publisher.publish(fact)
        assert gone.seq < back.seq
        assert await peer.gate.value(await held(peer, house.me.public)) == fact.v


async def test_a_record_that_shrinks_stands_inline_again(net):
    house, peer, mirror = net
    async with publishing(house, [mirror]) as publisher:
        for size, kind in ((300, Kind.MANIFEST), (3, Kind.VALUE), (300, Kind.MANIFEST)):
            await publisher.publish(tp(hub(size)))
            assert (await held(peer, house.me.public)).item.kind == kind


async def test_c14_a_large_record_that_was_beaten_is_sent_again_with_its_blocks(net):
    house, peer, mirror = net
    ahead = peer.item("me", TP.encode([]), salt=b"tp", seq=peer.clock.wall_ns() + 300 * 10**9,
                      life_s=200)  # fmt: skip
    assert await peer.put(ahead) == [STORED]
    fact = tp(hub(200))
    async with publishing(house, [mirror]) as publisher:
        published = await publisher.publish(fact)
        assert published.seq == ahead.seq + 1
        assert published.reports[0].stored == 1
        assert await peer.gate.value(await held(peer, house.me.public)) == fact.v


async def test_c31_a_mirror_that_lacks_blocks_has_not_stored_it(net):
    """Missing blocks are no success: it is said, and the next publish tries again."""
    house, peer, mirror = net

    class Losing(PeersMirror):
        async def mirror(self, items, *, cas=None, progress=None, blocks=None):
            first = dict(list((blocks or {}).items())[:1])
            return await super().mirror(items, cas=cas, progress=progress, blocks=first)

    losing = Losing("losing", [peer.gate], house.me.public)
    fact = tp(hub(200))
    async with publishing(house, [losing]) as publisher:
        for _ in range(2):
            published = await publisher.publish(fact)
            assert not published.unchanged
            assert published.reports[0].stored == 0
            assert published.reports[0].replicas[0].code == Outcome.MISSING_BLOCKS
        assert await peer.gate.get(mutable_item_target(house.me.public, b"tp")) == ()
        assert mirror.items_sent == 0


async def test_what_fits_nowhere_is_refused_before_anything_is_sent(open_house):
    async with open_house("me") as house:
        tags = house.namespaces.find(b"tags")
        good = tags.encode([f"tag {n}" for n in range(2_000)])
        shuffled = msgspec.msgpack.encode((1, ["b" * 3_000, "a" * 3_000]))
        longer = good[:2] + b"\xdd\x00\x00\x07\xd0" + good[5:]  # a 32-bit count, where 16 will do
        assert tags.decode(longer) == tags.decode(good)
        async with publishing(house) as publisher:
            for value, error, said in (
                (tags.encode(["x" * 9_000]), ValueTooBigError, "an entry of a set"),
                (shuffled, NamespaceError, "not in order"),
                (longer, NamespaceError, "one encoding"),
                (b"\xc0" * 5_000, NamespaceError, "not a value"),
            ):
                with pytest.raises(error, match=said):
                    await publisher.publish_many([Fact(b"other", b"fine"), Fact(b"tags", value)])
            assert await house.contents() == {}
            published = await publisher.publish(Fact(b"tags", good))
            assert published.reports[0].stored == 1


async def test_a_batch_of_large_values_goes_out_in_parts_of_bounded_size(net, monkeypatch):
    house, peer, _ = net
    monkeypatch.setattr("skycore.guards.publish.PART_BYTES", 250_000)
    calls = []

    class Spy(PeersMirror):
        async def mirror(self, items, *, blocks=None, **more):
            calls.append((len(items), sum(map(len, (blocks or {}).values()))))
            return await super().mirror(items, blocks=blocks, **more)

    spy = Spy("spy", [peer.gate], house.me.public)
    rng = random.Random(3)
    facts = [Fact(b"s%d" % n, rng.randbytes(100_000)) for n in range(5)]
    facts += [Fact(b"big", rng.randbytes(400_000)), Fact(b"small", b"x")]
    async with publishing(house, [spy]) as publisher:
        published = await publisher.publish_many(facts)
    assert [p.reports[0].stored for p in published] == [1] * 7
    assert [count for count, _ in calls] == [2, 2, 1, 1, 1]
    for fact in facts:
        assert await peer.gate.value(await held(peer, house.me.public, fact.salt)) == fact.v


async def test_two_versions_of_one_record_in_one_batch_each_have_their_own_blocks(net):
    house, peer, mirror = net
    first, second = tp(hub(100, 1)), tp(hub(100, 2))
    async with publishing(house, [mirror]) as publisher:
        await publisher.publish_many([first, second])
        assert await peer.gate.value(await held(peer, house.me.public)) == second.v


async def test_l1_a_fleet_read_back_is_the_fleet_exactly(net):
    """Union of the tp lists = what was generated: 0 missing, 0 extra; two services each."""
    house, peer, mirror = net
    rng = random.Random(9)
    fleet = {}
    for size in (916, 552, 149, 16, *range(14)):
        subject = rng.randbytes(32)
        fleet[subject] = [transport(rng, subject.hex()) for _ in range(size)]
    services = {
        subject: [ServiceEntry(f"{subject.hex()}:{port}", kind) for port, kind in
                  ((44, "vpn"), (3, "skysocks"))]
        for subject in fleet
    }  # fmt: skip
    rights = [house.delegation("authority", "me", salt=salt) for salt in (b"tp", b"svc")]
    facts = [tp(entries, subject) for subject, entries in fleet.items()]
    facts += [Fact(b"svc", SVC.encode(rows), subject) for subject, rows in services.items()]
    async with publishing(house, [mirror]) as publisher:
        published = await publisher.publish_many(facts, delegations=rights)
    assert all(one.reports[0].stored == 1 for one in published)
    read, offered = [], []
    for subject in fleet:
        stored = await held(peer, subject)
        read += TP.decode(await peer.gate.value(stored))
        offered += SVC.decode(await peer.gate.value(await held(peer, subject, b"svc")))
        assert stored.item.subject == subject
    assert sorted(e.t_id for e in read) == sorted(e.t_id for rows in fleet.values() for e in rows)
    assert {e.address for e in offered} == {e.address for rows in services.values() for e in rows}
    assert len(offered) == 2 * len(fleet)


async def test_l14_one_schema_and_an_unknown_shape_or_version_is_refused_everywhere(net):
    """Four shapes of `tp` were live at once in the original network."""
    house, peer, mirror = net
    entry = msgspec.to_builtins(hub(1)[0])
    for shape in (
        (2, [entry]), (0, [entry]), [entry], (1, entry), (1, {"tps": [entry]}),
        (1, [{"r": HUB, "t": "stcpr"}]), {"s": HUB, "ts": []}, (1, [list(entry.values())]),
    ):  # fmt: skip
        value = msgspec.msgpack.encode(shape)
        async with publishing(house, [mirror]) as publisher:
            with pytest.raises(NamespaceError):
                await publisher.publish(Fact(b"tp", value))
        assert await peer.put(house.item("me", value, salt=b"tp", life_s=200)) == [402]
    assert mirror.items_sent == 0


async def test_l14_a_manifest_of_another_version_or_form_is_refused_everywhere(net):
    house, peer, _ = net
    tree = TP.plant(tp(hub(100)).v)
    manifest = read_manifest(tree.manifest)
    assert set(reach(manifest.root, tree.blocks.get, 9)[0]) == set(tree.blocks)
    for salt, version in ((b"tp", 2), (b"tp", 0), (b"addr", 1), (b"svc", 1)):
        wrong = msgspec.msgpack.encode(msgspec.structs.replace(manifest, version=version))
        item = house.item("me", wrong, salt=salt, life_s=200, kind=Kind.MANIFEST)
        (code,) = await peer.put(item, blocks=tuple(tree.blocks.values()))
        assert code == 402, (salt, version)
    good = house.item("me", tree.manifest, salt=b"tp", life_s=200, kind=Kind.MANIFEST)
    assert await peer.put(good, blocks=tuple(tree.blocks.values())) == [STORED]

"""The publisher: seqs that are always taken, nothing signed twice, and the truth about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from skycore.contracts.dht import PutReport, Replica
from skycore.contracts.publish import Fact
from skycore.contracts.store import PutOutcome
from skycore.errors import (
    ConfigError,
    DialError,
    NamespaceError,
    NotAuthorisedError,
    SaltTooBigError,
    StoreError,
    ValueTooBigError,
)
from skycore.guards.ownstore import LOCALLY
from skycore.guards.publish import PublisherSettings, open_publisher
from skycore.guards.published import RECORDS_FILE
from skycore.guards.stamp import AHEAD_NS, FILE, SeqSource, beaten_by
from skycore.model.delegation_token import encode_delegation
from skycore.model.items import ItemClass, Kind, mutable_item_target
from skycore.model.limits import SALT_MAX, TOMBSTONE_LIFETIME_S, TREE_BYTES_MAX, VALUE_MAX
from skycore.testing.contracts.mirror import MirrorContract, Mirrored
from skycore.testing.fakes import FakeClock, MemoryFiles
from skycore.testing.mirrors import PeersMirror
from skycore.wiring import Live

STORED, HELD, CAS, TOO_LOW, TOO_FAR = 0, 2, 301, 302, 303
NS, HOUR_S, NOTE_LIFE_S = 10**9, 3_600, 3_600


def note(text, salt=b"note", subject=None):
    from skycore.contracts.namespace import Form, Namespace

    one = Namespace(b"note", 1, str, Form.SINGLE, {ItemClass.OWNER: 1})
    return Fact(salt, None if text is None else one.encode(text), subject)


@asynccontextmanager
async def publishing(house, mirrors=(), files=None, **settings):
    files = files or MemoryFiles()
    async with open_publisher(
        PublisherSettings(**settings), house.me, house.gate, Live(mirrors), house.namespaces,
        house.clock, files,
    ) as publisher:  # fmt: skip
        yield publisher


@pytest.fixture
async def net(open_house):
    """A node and a peer with a clock and a store of its own, and the mirror between them."""
    async with open_house("me") as house, open_house("peer") as peer:
        yield house, peer, PeersMirror("peers", [peer.gate], house.me.public)


async def read(house, name="me", salt=b"note"):
    return list(await house.gate.get(mutable_item_target(house.public(name), salt)))


def codes(published):
    return [[r.code for r in report.replicas] or [report.outcome.code] for report in published]


async def test_c15_without_a_mirror_it_is_stored_here_and_said_so(house):
    async with publishing(house) as publisher:
        published = await publisher.publish(note("hello"))
        assert not published.unchanged
        (report,) = published.reports
        assert (report.outcome.code, report.outcome.text) == (STORED, LOCALLY)
        assert report.stored == 1
        (stored,) = await read(house)
        assert stored.item.seq == published.seq
        assert stored.until == house.clock.wall_s() + NOTE_LIFE_S


async def test_c15_the_reports_are_what_the_mirrors_said(open_house, net):
    house, peer, mirror = net
    async with open_house("full", items_max=0) as full:
        both = PeersMirror("both", [peer.gate, full.gate], house.me.public)
        async with publishing(house, [mirror, both]) as publisher:
            published = await publisher.publish(note("hello"))
            assert codes(published.reports) == [[STORED], [HELD, 403]]
            assert [report.stored for report in published.reports] == [1, 1]
            assert await read(house) == []
            assert len(await read(peer)) == 1


async def test_c15_a_mirror_that_fails_stops_no_other(net, caplog):
    house, peer, mirror = net

    class Broken(PeersMirror):
        async def mirror(self, items, *, cas=None, progress=None, blocks=None):
            raise DialError("nobody answers")

    class Short(PeersMirror):
        async def mirror(self, items, *, cas=None, progress=None, blocks=None):
            return []

    class Buggy(PeersMirror):
        async def mirror(self, items, *, cas=None, progress=None, blocks=None):
            raise RuntimeError("what nobody foresaw")

    rest = [Broken("broken", [], b""), Short("short", [], b""), Buggy("buggy", [], b"")]
    async with publishing(house, [*rest, mirror]) as publisher:
        published = await publisher.publish(note("hello"))
        assert [report.stored for report in published.reports] == [0, 0, 0, 1]
        texts = [report.outcome.text for report in published.reports]
        assert texts[0] == "broken: nobody answers"
        assert texts[1] == "short: answered 0 of 1"
        assert texts[2] == "buggy: internal error (RuntimeError); see the node's log"
        assert "RuntimeError: what nobody foresaw" in caplog.text
        assert len(await read(peer)) == 1


# --- nothing changed ------------------------------------------------------------------------------


async def test_c27_what_has_not_changed_is_not_signed_and_not_sent(net):
    """A heartbeat a minute for a day: one item, and a lease per half lifetime."""
    house, peer, mirror = net
    async with publishing(house, [mirror]) as publisher:
        first = await publisher.publish(note("hello"))
        signed, wrote = house.suite.signed, peer.store.calls.count("put_many")
        for _minute in range(24 * 60):
            house.clock.advance(60)
            peer.clock.advance(60)
            again = await publisher.publish(note("hello"))
            assert again.unchanged
            assert again.seq == first.seq
            assert len(await read(peer)) == 1
        leases = 24 * HOUR_S // (NOTE_LIFE_S // 2)
        assert mirror.items_sent == 1
        assert leases - 2 <= mirror.leases_sent <= leases
        assert house.suite.signed - signed == mirror.leases_sent
        assert peer.store.calls.count("put_many") == wrote


async def test_c27_a_mirror_without_leases_gets_one_item_per_half_lifetime(net):
    house, peer, renewing = net

    class Plain:
        name = "plain"
        mirror = renewing.mirror

    async with publishing(house, [Plain()]) as publisher:
        for _minute in range(120):
            published = await publisher.publish(note("hello"))
            house.clock.advance(60)
            peer.clock.advance(60)
            assert len(await read(peer)) == 1
        assert renewing.items_sent == 4
        assert not published.unchanged or published.reports == ()


async def test_a_change_is_signed_at_once_and_a_return_too(net):
    house, peer, mirror = net
    async with publishing(house, [mirror]) as publisher:
        seqs = []
        for text in ("a", "b", "a", None, "a", None):
            published = await publisher.publish(note(text))
            assert not published.unchanged
            seqs.append(published.seq)
            (stored,) = await read(peer)
            assert stored.item.kind == (Kind.TOMBSTONE if text is None else Kind.VALUE)
        assert seqs == sorted(set(seqs))


async def test_c17_a_mirror_that_lost_the_item_gets_it_again(net):
    house, peer, mirror = net
    async with publishing(house, [mirror]) as publisher:
        await publisher.publish(note("hello"))
        (stored,) = await read(peer)
        await peer.gate.drop([(stored.target, stored.item_class)])
        for clock in (house.clock, peer.clock):
            clock.advance(NOTE_LIFE_S // 2 + 1)
        published = await publisher.publish(note("hello"))
        assert not published.unchanged
        assert len(await read(peer)) == 1


async def test_a_new_mirror_gets_what_has_not_changed(net):
    house, peer, mirror = net
    up = []
    async with publishing(house, up) as publisher:
        await publisher.publish(note("hello"))
        up.append(mirror)
        published = await publisher.publish(note("hello"))
        assert not published.unchanged
        assert len(await read(peer)) == 1
        assert (await publisher.publish(note("hello"))).unchanged


async def test_what_nobody_took_is_tried_again(open_house):
    async with open_house("me") as house, open_house("full", items_max=0) as full:
        mirror = PeersMirror("full", [full.gate], house.me.public)
        async with publishing(house, [mirror]) as publisher:
            for n in range(3):
                published = await publisher.publish(note("hello"))
                assert not published.unchanged
                assert mirror.items_sent == n + 1


async def test_records_are_remembered_within_bounds(house):
    async with publishing(house, records_max=10) as publisher:
        facts = [Fact(b"s%d" % n, b"x") for n in range(15)]
        await publisher.publish_many(facts)
        again = await publisher.publish_many(facts)
        assert [p.unchanged for p in again].count(True) == 10
        assert len(publisher._records) == 10


# --- deleting -------------------------------------------------------------------------------------


async def test_c12_a_delete_is_a_tombstone_for_seven_days(net):
    house, peer, mirror = net
    async with publishing(house, [mirror]) as publisher:
        await publisher.publish(note("hello"))
        published = await publisher.publish(note(None))
        (stored,) = await read(peer)
        assert (stored.item.kind, stored.item.v) == (Kind.TOMBSTONE, b"")
        assert stored.until == published.seq // NS + TOMBSTONE_LIFETIME_S
        house.clock.advance(5 * 86_400)
        assert (await publisher.publish(note(None))).unchanged
        assert mirror.leases_sent == 0


# --- seq ------------------------------------------------------------------------------------------


async def test_seqs_follow_the_clock_and_never_repeat(house):
    async with publishing(house) as publisher:
        seqs = [(await publisher.publish(Fact(b"s%d" % n, b"x"))).seq for n in range(5)]
        now = house.clock.wall_ns()
        assert seqs == [now, now + 1, now + 2, now + 3, now + 4]
        house.clock.advance(1)
        assert (await publisher.publish(Fact(b"t", b"x"))).seq == now + NS


@pytest.mark.parametrize("has_disk", [True, False])
@pytest.mark.parametrize("set_back_s", [0, 1, HOUR_S])
async def test_c13_d30_a_restart_with_the_clock_set_back(net, has_disk, set_back_s):
    """First publish after the restart: taken by a peer whose clock is right, and readable there.

    Without the disk nothing tells us the time but the seq that the peer holds, so there the record
    must outlive the error of the clock.
    """
    house, peer, mirror = net
    salt = b"note" if has_disk else b"two hours"
    files = MemoryFiles()
    async with publishing(house, [mirror], files) as publisher:
        for n in range(3):
            await publisher.publish(note(f"before {n}", salt))
    house.clock.wall_offset_s = -set_back_s
    async with publishing(house, [mirror], files if has_disk else MemoryFiles()) as publisher:
        published = await publisher.publish(note("after", salt))
        assert codes(published.reports) == [[STORED]]
        (stored,) = await read(peer, salt=salt)
        assert stored.item.seq == published.seq
        again = await publisher.publish(note("after that", salt))
        assert codes(again.reports) == [[STORED]]
        assert len(await read(peer, salt=salt)) == 1


@pytest.mark.parametrize("set_back_s", [0, HOUR_S])
async def test_c13_a_restart_with_an_own_store_and_no_mirror(house, set_back_s):
    async with publishing(house) as publisher:
        await publisher.publish(note("before"))
    house.clock.wall_offset_s = -set_back_s
    async with publishing(house) as publisher:  # its files are gone
        published = await publisher.publish(note("after"))
        assert codes(published.reports) == [[STORED]]


async def test_c13_the_mark_and_the_records_are_written_once_a_minute_not_once_an_item(house):
    files = MemoryFiles()
    writes = Counter()

    class Counted(MemoryFiles):
        def write(self, name, data):
            writes[name] += 1
            files.write(name, data)

    async with publishing(house, files=Counted()) as publisher:
        for n in range(120):
            published = await publisher.publish(note(f"v{n}"))
            house.clock.advance(1)
            mark = int.from_bytes(files.held[FILE], "big")
            assert published.seq <= mark <= published.seq + AHEAD_NS
        assert writes == {FILE: 2, RECORDS_FILE: 2}
    assert writes == {FILE: 2, RECORDS_FILE: 3}
    junk = MemoryFiles()
    junk.held[FILE] = b"junk"
    async with publishing(house, files=junk) as publisher:
        assert codes((await publisher.publish(note("x"))).reports) == [[STORED]]


async def test_c3_d30_a_clock_that_ran_ahead_does_not_lock_us_out(net):
    """Ten years ahead, refused by all; the clock is put right; the next publish is taken."""
    house, peer, mirror = net
    files = MemoryFiles()
    house.clock.wall_offset_s = 10 * 365 * 86_400
    async with publishing(house, [mirror], files) as publisher:
        refused = await publisher.publish(note("from the future"))
        assert codes(refused.reports) == [[TOO_FAR]]
        house.clock.wall_offset_s = 0
        published = await publisher.publish(note("now"))
        assert codes(published.reports) == [[STORED]]
        (stored,) = await read(peer)
        assert stored.item.seq == published.seq <= peer.clock.wall_ns() + AHEAD_NS
    async with publishing(house, [mirror], files) as publisher:
        assert codes((await publisher.publish(note("later"))).reports) == [[STORED]]


async def test_c14_two_processes_under_one_key_take_turns(net):
    """Another writer holds a newer record: one retry, with its seq + 1."""
    house, peer, mirror = net
    ahead = peer.item("me", "elsewhere", seq=peer.clock.wall_ns() + 300 * NS)
    await peer.put(ahead)
    async with publishing(house, [mirror]) as publisher:
        published = await publisher.publish(note("mine"))
        assert published.seq == ahead.seq + 1
        assert codes(published.reports) == [[STORED]]
        assert mirror.items_sent == 2


async def test_c14_a_deleted_record_is_beaten_too(net):
    house, peer, mirror = net
    gone = peer.item("me", None, seq=peer.clock.wall_ns() + 300 * NS)
    await peer.put(gone)
    async with publishing(house, [mirror]) as publisher:
        assert codes((await publisher.publish(note("mine"))).reports) == [[STORED]]
        assert len(await read(peer)) == 1


async def test_c5_a_liar_cannot_carry_our_seq_away(net):
    """A peer that claims to hold 2^62 costs one retry at most, and no honest peer is lost."""
    house, peer, mirror = net

    class Liar:
        name = "liar"

        async def mirror(self, items, *, cas=None, progress=None, blocks=None):
            lie = (Replica(b"liar", TOO_LOW, 2**62), Replica(b"liar", TOO_LOW, 2**63 - 1))
            return [PutReport(PutOutcome(405), lie) for _ in items]

    async with publishing(house, [Liar(), mirror]) as publisher:
        for n in range(3):
            published = await publisher.publish(note(f"v{n}"))
            assert len(await read(peer)) == 1
        other = await publisher.publish(Fact(b"other", b"x"))
        assert other.seq <= house.clock.wall_ns() + AHEAD_NS
        assert published.reports[1].stored == 1
        assert await read(peer, salt=b"other")


def test_beaten_by_believes_the_likely():
    def told(*seqs, own=405, own_seq=0):
        replicas = tuple(Replica(b"r", TOO_LOW, seq) for seq in seqs)
        return [PutReport(PutOutcome(own, own_seq), replicas)]

    assert beaten_by(told(), 10, 100) == 0
    assert beaten_by(told(5), 10, 100) == 0
    assert beaten_by(told(12, 30, 2**62), 10, 100) == 30
    assert beaten_by(told(500, 510, 2**62), 10, 100) == 510
    assert beaten_by(told(own=TOO_LOW, own_seq=900), 10, 100) == 900
    assert beaten_by(told(2**63 - 1, 2**63), 10, 100) == 0


# --- rights ---------------------------------------------------------------------------------------


async def test_another_subject_needs_a_delegation(house):
    alice = house.public("alice")
    async with publishing(house) as publisher:
        for subject in (alice, b"anybody"):
            with pytest.raises(NotAuthorisedError, match="no delegation"):
                await publisher.publish(note("x", subject=subject))
        for token in (
            house.delegation("alice", "bob"),
            house.delegation("alice", "me", salt=b"other"),
            house.delegation("alice", "me", life_s=0),
            house.delegation("carol", "me"),
        ):
            with pytest.raises(NotAuthorisedError):
                await publisher.publish_many([note("x", subject=alice)], delegations=[token])
        assert await house.contents() == {}


async def test_delegations_from_settings_and_from_the_call(house):
    alice = house.public("alice")
    settings = {"delegations": (encode_delegation(house.delegation("authority", "me")),)}
    async with publishing(house, **settings) as publisher:
        facts = [note(f"v{n}", subject=b"subject%d" % n) for n in range(10)]
        published = await publisher.publish_many(facts)
        assert all(codes(p.reports) == [[STORED]] for p in published)
        classes = {row[2].subject: key.item_class for key, row in (await house.contents()).items()}
        assert set(classes.values()) == {ItemClass.MIRROR}
        own = house.delegation("alice", "me", life_s=600)
        await publisher.publish_many([note("x", subject=alice)], delegations=[own])
        (stored,) = await read(house, "alice")
        assert stored.item_class == ItemClass.DELEGATE
        assert stored.until == own.until


async def test_a_delegation_bounds_lease_and_item(house):
    alice = house.public("alice")
    token = house.delegation("alice", "me", life_s=NOTE_LIFE_S + 600)
    async with publishing(house) as publisher:
        for _ in range(20):
            await publisher.publish_many([note("x", subject=alice)], delegations=[token])
            assert len(await read(house, "alice")) == 1
            house.clock.advance(200)
        longer = house.delegation("alice", "me", life_s=86_400)
        for _ in range(20):
            await publisher.publish_many([note("x", subject=alice)], delegations=[token, longer])
            assert len(await read(house, "alice")) == 1
            house.clock.advance(200)


@pytest.mark.parametrize("token", ["zz", "", "00", "9" * 5_000])
async def test_a_broken_token_is_a_configuration_error(house, token):
    with pytest.raises(ConfigError, match="no delegation"):
        async with publishing(house, delegations=(token,)):
            pass


async def test_a_token_for_another_key_is_a_configuration_error(house):
    token = encode_delegation(house.delegation("authority", "bob"))
    with pytest.raises(ConfigError, match="a delegation is for"):
        async with publishing(house, delegations=(token,)):
            pass


# --- what does not fit ----------------------------------------------------------------------------


async def test_what_does_not_fit_is_an_error_and_nothing_is_sent(house):
    async with publishing(house) as publisher:
        for fact, error in (
            (Fact(b"x", bytes(TREE_BYTES_MAX + 1)), ValueTooBigError),
            (Fact(b"x" * (SALT_MAX + 1), b""), SaltTooBigError),
            (Fact(b"note", b"\xc1"), NamespaceError),
        ):
            with pytest.raises(error):
                await publisher.publish_many([note("fine"), fact])
        assert await house.contents() == {}
        published = await publisher.publish(Fact(b"x" * SALT_MAX, bytes(VALUE_MAX)))
        assert codes(published.reports) == [[STORED]]


# --- cas, batches, turns --------------------------------------------------------------------------


async def test_c10_cas_goes_through_and_is_not_retried(net):
    house, _, mirror = net
    async with publishing(house, [mirror]) as publisher:
        first = await publisher.publish(note("a"), cas=0)
        assert codes(first.reports) == [[STORED]]
        lost = await publisher.publish(note("b"), cas=0)
        assert codes(lost.reports) == [[CAS]]
        assert lost.reports[0].replicas[0].seq == first.seq
        assert codes((await publisher.publish(note("b"), cas=first.seq)).reports) == [[STORED]]


async def test_a_batch_goes_to_each_mirror_at_once_and_says_how_far_it_is(net):
    house, peer, _ = net
    calls: list[int] = []

    class Spy(PeersMirror):
        async def mirror(self, items: Sequence, **more):
            calls.append(len(items))
            return await super().mirror(items, **more)

    spy = Spy("spy", [peer.gate], house.me.public)
    steps: list[int] = []
    async with publishing(house, [spy]) as publisher:
        facts = [Fact(b"s%d" % n, b"x") for n in range(1_500)]
        published = await publisher.publish_many(facts, progress=steps.append)
        assert [p.reports[0].replicas[0].code for p in published[:1_000]] == [STORED] * 1_000
        assert published[1_000].reports[0].replicas[0].code == 403  # the peer's bound per signer
        assert calls == [1_024, 476]
        assert steps == [1_024, 1_500]
        assert len({p.seq for p in published}) == 1_500
        assert await publisher.publish_many([]) == []


async def test_publishes_of_one_record_take_turns(net):
    """The last one called is the last one there, however long a mirror takes."""
    house, peer, _ = net
    order: list[bytes] = []

    class Slow(PeersMirror):
        async def mirror(self, items, **more):
            for _ in range(20 - 2 * len(order)):
                await anyio.lowlevel.checkpoint()
            order.extend(item.v for item in items)
            return await super().mirror(items, **more)

    slow = Slow("slow", [peer.gate], house.me.public)
    async with publishing(house, [slow]) as publisher, anyio.create_task_group() as tasks:
        for n in range(5):
            tasks.start_soon(publisher.publish, note(f"v{n}"))
            await anyio.lowlevel.checkpoint()
    assert order == [note(f"v{n}").v for n in range(5)]
    assert slow.items_sent == 5


async def test_w_heartbeat_of_many_unchanged_records(net):
    house, peer, mirror = net
    async with publishing(house, [mirror]) as publisher:
        facts = [Fact(b"s%d" % n, b"x") for n in range(800)]
        await publisher.publish_many(facts)
        signed = house.suite.signed
        for _ in range(5):
            assert all(p.unchanged for p in await publisher.publish_many(facts))
        assert (house.suite.signed, mirror.items_sent) == (signed, 800)
        house.clock.advance(3_700)
        peer.clock.advance(3_700)
        renewed = await publisher.publish_many(facts)
        assert all(p.unchanged and p.reports[0].stored == 1 for p in renewed)
        assert (house.suite.signed - signed, mirror.leases_sent) == (800, 800)


class TestPeersMirror(MirrorContract):
    @pytest.fixture
    async def mirrored(self, open_house):
        clock = FakeClock()
        async with open_house("peer", clock=clock) as peer, open_house("me", clock=clock) as house:
            mirror = PeersMirror("peers", [peer.gate], house.me.public)

            async def whole(item):
                held = await peer.gate.get(item.target)
                return await peer.gate.value(held[0]) if held else None

            yield Mirrored(mirror, house.me, clock, read=whole)


async def test_c11_a_deletion_read_from_disk_is_not_believed(house):
    """A value published after the file was written would live on, and nobody be told."""
    files = MemoryFiles()
    async with publishing(house, files=files) as publisher:
        await publisher.publish(note(None))
    before = files.held[RECORDS_FILE]
    async with publishing(house, files=files) as publisher:
        await publisher.publish(note("again"))
    files.held[RECORDS_FILE] = before  # the node died before it wrote again
    async with publishing(house, files=files) as publisher:
        assert not (await publisher.publish(note(None))).unchanged
        assert [stored.item.kind for stored in await read(house)] == [Kind.TOMBSTONE]
        assert (await publisher.publish(note(None))).unchanged


async def test_the_last_fact_of_a_batch_about_one_record_wins(house):
    async with publishing(house) as publisher:
        await publisher.publish(note("old"))
        published = await publisher.publish_many([note("new"), note("old")])
        assert [one.unchanged for one in published] == [False, False]
        (stored,) = await read(house)
        assert stored.item.v == note("old").v


async def test_c13_a_mark_that_was_not_written_is_written_by_the_next(house):
    class Failing(MemoryFiles):
        fails = True

        def write(self, name, data):
            if self.fails:
                raise StoreError("no space")
            super().write(name, data)

    files = Failing()
    seqs = SeqSource(house.clock, files)
    with pytest.raises(StoreError):
        seqs.take()
    files.fails = False
    seq = seqs.take()
    assert SeqSource(FakeClock(seq - HOUR_S * NS), files).take() > seq

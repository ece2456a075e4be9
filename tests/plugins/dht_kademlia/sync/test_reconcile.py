"""Reconciling: afterwards two nodes hold the same, and it costs what differed."""

import functools
from itertools import pairwise

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dht_kademlia.sync.reconcile import DIFFERENCES_MAX
from skycore.errors import DialError, LocalProtocolError
from skycore.model.items import (
    ItemClass,
    Kind,
    MutableItem,
    RankedItem,
    make_delegation,
    make_item,
    make_lease,
    mutable_item_target,
)
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.testing.fakes import START_NS, FakeClock, identity
from skycore.testing.loop import simulate
from skycore.testing.seams import SimClock

AUTHORITY = identity("authority").secret
NETWORK = NetworkConstants(ED25519, "skycore-test", ED25519.public(AUTHORITY))
NOW_S = START_NS // 10**9
WEEK_S = 7 * 86_400
SOON_S = 100
"""What lives so long is over when the clock has moved by twice that."""
LATE_S = 2_000


@functools.cache
def key(name):
    return identity(name, NETWORK)


@functools.cache
def token(issuer, delegate):
    secret = AUTHORITY if issuer == "authority" else key(issuer).secret
    return make_delegation(NETWORK, secret, key(delegate).public, b"note", NOW_S + WEEK_S)


@functools.cache
def item(name="alice", v=b"hello", *, salt=b"note", seq=1, life_s=LATE_S,
         item_class=ItemClass.OWNER):  # fmt: skip
    """Sign an item of somebody, by whatever right; v None is a tombstone."""
    subject, signer, delegation = key(name).public, name, None
    if item_class is ItemClass.DELEGATE:
        signer, delegation = "helper", token(name, "helper")
    elif item_class is ItemClass.MIRROR:
        signer, delegation = "mirror", token("authority", "mirror")
    if v is not None and salt == b"note":
        v = b"\x92\x01" + bytes([0xA0 + len(v)]) + v
    return make_item(
        NETWORK, key(signer).secret, subject=subject, salt=salt, seq=START_NS + seq,
        until=NOW_S + life_s, v=v or b"", kind=Kind.TOMBSTONE if v is None else Kind.VALUE,
        delegation=delegation,
    )  # fmt: skip


async def lease_for(side, of, until_s):
    """Sign a lease for an item as a side holds it."""
    for stored in await side.gate.get(of.target):
        if stored.item == of:
            names = {key(n).public: n for n in (*"abcdef", "alice", "helper", "mirror")}
            secret = key(names[of.signer]).secret
            return make_lease(NETWORK, secret, stored, NOW_S + until_s)
    return None


async def renew(side, of, until_s):
    lease = await lease_for(side, of, until_s)
    if lease:
        return await side.gate.renew([lease], sender=side.public)
    return ()


def best(*contents):
    """What both must hold: of each slot the higher rank, and then the later end."""
    found = {}
    for held in contents:
        for slot, (rank, one, until) in held.items():
            old = found.get(slot)
            if old is None or (rank, until) > (old[0], old[2]):
                found[slot] = (rank, one, until)
    return found


# --- any two stores ------------------------------------------------------------------------------

WRITES = st.lists(
    st.tuples(
        st.sampled_from("abcdef"),
        st.sampled_from([ItemClass.OWNER, ItemClass.OWNER, ItemClass.DELEGATE, ItemClass.MIRROR]),
        st.sampled_from([b"x", b"y", None]),
        st.integers(1, 5),
        st.sampled_from([SOON_S, LATE_S, LATE_S]),
        st.sampled_from([0, 0, SOON_S + 1, LATE_S + 1, LATE_S + 2]),
        st.sampled_from(["here", "there", "both"]),
        st.sampled_from(["here", "there", "both"]),
        st.sampled_from([b"note", b"other"]),
    ),
    max_size=30,
)


async def write(here, there, writes):
    for name, item_class, v, seq, life_s, lease_s, where, lease_where, salt in writes:
        is_owner = item_class is ItemClass.OWNER or salt == b"other"
        right = ItemClass.OWNER if is_owner else item_class
        one = item(name, v, salt=salt, seq=seq, life_s=life_s, item_class=right)
        for side, word in ((here, "here"), (there, "there")):
            if where in ("both", word):
                await side.put(one)
            if lease_s and lease_where in ("both", word):
                await renew(side, one, lease_s)


async def fill(sides, count, start=0):
    """Let both hold the same: written past the gate, because nobody will ever send them."""
    rows = []
    for n in range(start, start + count):
        subject = n.to_bytes(4, "big")
        one = MutableItem(b"k" * 32, subject, b"bulk", 1, 0, NOW_S + WEEK_S, b"v")
        target = mutable_item_target(subject, b"bulk")
        rank = (1).to_bytes(8, "big") + target
        rows.append(RankedItem(target, 3, rank, target, one, b"", START_NS))
    for side in sides:
        await side.store.put_many(rows)


def run(function):
    anyio.run(function)


@settings(max_examples=80, deadline=None)
@given(WRITES, st.booleans(), st.sampled_from([None, b"note"]), st.sampled_from([0, 0, 60, 700]))
def test_c31_c8_c11_any_two_stores_hold_the_same_afterwards(pair, writes, wait, salt, shared):
    async def story():
        async with pair() as (here, there):
            await fill((here, there), shared)
            await write(here, there, writes)
            if wait:
                here.clock.advance(2 * SOON_S)
            before = [await side.contents() for side in (here, there)]
            wanted = best(*before)
            report = await here.reconcile(there, salt)
            assert report.complete, report
            assert not report.refused, report
            after = [await side.contents() for side in (here, there)]
            if salt:
                after, wanted, before = ([only(c, salt) for c in after], only(wanted, salt),
                                         [only(c, salt) for c in before])  # fmt: skip
            assert after == [wanted, wanted]
            slots = set(before[0]) | set(before[1])
            assert report.different == sum(before[0].get(s) != before[1].get(s) for s in slots)
            assert report.different == report.pulled + report.pushed + report.renewed
            assert report.different == len(report.differences)
            again = await there.reconcile(here, salt)
            assert (again.different, again.complete) == (0, True)

    run(story)


def only(contents, salt):
    return {slot: held for slot, held in contents.items() if held[1].salt == salt}


# --- what it costs -------------------------------------------------------------------------------


async def moved(exchange, function):
    before = exchange.bytes_moved
    report = await function
    return report, exchange.bytes_moved - before


@pytest.mark.parametrize("count", [0, 1, 10_000])
def test_c31_equal_stores_cost_less_than_1_kib(pair, count):
    async def story():
        async with pair() as (here, there):
            await fill((here, there), count)
            for salt in (None, b"bulk", b"never heard of"):
                report, size = await moved(here.exchange, here.reconcile(there, salt))
                assert (report.different, report.rounds, report.complete) == (0, 1, True)
                assert report.bytes == size
                assert size < 1_024

    run(story)


SHARED = 10_000
COSTS = (0, 1, 10, 100, 1_000)
BYTES_A_DIFFERENCE = 4_000
"""Four rounds of a question, sixteen parts and a list, and the item: of one difference alone.
Where many differ they share the first rounds."""


def test_c31_d_differences_in_10_000_items_cost_what_d_says(pair):
    """d of one kind a time, half of them here and half there, and the bytes of each run."""

    async def story():
        costs = {}
        async with pair() as (here, there):
            await fill((here, there), SHARED)
            for turn, d in enumerate(COSTS):
                for n in range(d):
                    one = item("alice", b"%d" % n, salt=b"d/%d/%d" % (turn, n))
                    await (here if n % 2 else there).put(one)
                report, costs[d] = await moved(here.exchange, here.reconcile(there))
                assert (report.different, report.complete) == (d, True)
                assert (report.pulled, report.pushed) == ((d + 1) // 2, d // 2)
                assert report.rounds <= 5
            assert await here.contents() == await there.contents()
        assert costs[0] < 1_024
        for d in COSTS[1:]:
            assert costs[d] <= costs[0] + BYTES_A_DIFFERENCE * d, costs
        slopes = [(costs[b] - costs[a]) / (b - a) for a, b in pairwise(COSTS)]
        assert slopes[-1] < 1_000, slopes
        for few, many in pairwise(COSTS[1:]):  # ten times the differences: never more than that
            assert costs[many] <= 10.5 * costs[few], costs

    run(story)


def test_c31_a_lease_travels_as_a_lease(pair):
    async def story():
        async with pair() as (here, there):
            big = [item("a", b"v" * 30_000, salt=b"s%d" % n) for n in range(20)]
            for side in (here, there):
                await side.put(*big)
            for n, one in enumerate(big):
                await renew(here if n % 2 else there, one, LATE_S + 500 + n)
            wanted = best(await here.contents(), await there.contents())
            report, size = await moved(here.exchange, here.reconcile(there))
            assert (report.different, report.renewed) == (20, 20)
            assert (report.pulled, report.pushed, report.refused) == (0, 0, 0)
            assert [await side.contents() for side in (here, there)] == [wanted, wanted]
            assert size < 20 * 500

    run(story)


# --- rows of the research ------------------------------------------------------------------------


def test_o10_what_is_newer_here_is_pushed(pair):
    async def story():
        async with pair() as (here, there):
            await here.put(item("a", b"new", seq=9), item("b", b"old", seq=5))
            await there.put(item("a", b"old", seq=5), item("b", b"new", seq=9))
            report = await here.reconcile(there)
            assert (report.pulled, report.pushed, report.different) == (1, 1, 2)
            for side in (here, there):
                assert [s.item.seq - START_NS for s in await held(side, "ab")] == [9, 9]

    run(story)


async def held(side, names, salt=b"note"):
    found = []
    for name in names:
        found += await side.gate.get(mutable_item_target(key(name).public, salt))
    return found


@pytest.mark.parametrize("sleeper_asks", [True, False])
def test_c11_o12_a_delete_beats_what_slept(pair, sleeper_asks):
    async def story():
        async with pair() as (here, there):
            for side in (here, there):
                await side.put(item("a", seq=1))
            await here.put(item("a", None, seq=2, life_s=86_400))  # there slept
            asker, other = (there, here) if sleeper_asks else (here, there)
            for _ in range(3):
                report = await asker.reconcile(other)
                assert report.complete
                for side in (here, there):
                    assert [s.item.kind for s in await held(side, "a")] == [Kind.TOMBSTONE]
            here.clock.advance(2 * LATE_S)  # the value's life is over, the tombstone's is not
            assert (await asker.reconcile(other)).different == 0
            assert [s.item.kind for s in await held(there, "a")] == [Kind.TOMBSTONE]

    run(story)


def test_o11_nothing_expired_is_brought_back(pair):
    """Upstream two nodes that reconcile every 0.6 T keep an item for ever."""

    async def story():
        async with pair() as (here, there):
            await here.put(item("a", life_s=SOON_S))
            for _ in range(3):
                await there.reconcile(here)
                await here.reconcile(there)
                here.clock.advance(0.6 * SOON_S)
            for side in (here, there):
                assert await held(side, "a") == []
                assert await side.contents() == {}

    run(story)


def test_o11_a_slow_clock_offers_in_vain(pair):
    async def story():
        async with pair(slow=FakeClock()) as (here, there):
            await there.put(item("a", life_s=SOON_S))
            here.clock.advance(2 * SOON_S)
            report = await here.reconcile(there)
            assert (report.pulled, report.different, report.complete) == (0, 0, True)
            report = await there.reconcile(here)
            assert (report.pushed, report.refused) == (0, 1)
            assert "ended" in report.reasons[0]
            assert await held(here, "a") == []

    run(story)


@pytest.mark.parametrize("size", [2_800, 2_900, 10_000, 60_000])
def test_o25_no_batch_is_lost_in_silence(pair, size):
    async def story():
        async with pair() as (here, there):
            count = 3_000_000 // size + 10
            mine = [item("a", b"v" * size, salt=b"%d" % n) for n in range(count)]
            await here.put(*mine)
            report = await here.reconcile(there)
            assert (report.pushed, report.refused) == (count, 0)
            assert await here.contents() == await there.contents()

    run(story)


def test_o25_what_is_refused_there_is_counted_with_its_reason(pair):
    async def story():
        async with pair(gates=({}, {"signer_items_max": 7})) as (here, there):
            await here.put(*(item("a", b"v", salt=b"%d" % n) for n in range(50)))
            report = await here.reconcile(there)
            assert (report.different, report.pushed, report.refused) == (50, 7, 43)
            assert report.complete
            assert "there" in report.reasons[0]
            back = await there.reconcile(here)
            assert (back.pulled, back.refused) == (0, 43)
            assert "here" in back.reasons[0]
            assert len(await there.contents()) == 7

    run(story)


def test_c24_writes_during_a_run_do_no_harm(pair):
    async def story():
        async with pair(latency_s=0.01, clock=SimClock()) as (here, there):
            await fill((here, there), 2_000)
            for n in range(200):
                await (here if n % 2 else there).put(item("a", b"1", salt=b"%d" % n))
            done = anyio.Event()

            async def write():
                """Others write to both, over what is just being compared."""
                for n in range(300):
                    one = item("a", b"2", salt=b"%d" % n, seq=2 + n % 3)
                    await (here if n % 3 else there).put(one)
                    await anyio.sleep(0.001)
                done.set()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write)
                while not done.is_set():
                    report = await here.reconcile(there)
                    assert report.complete, report
                    assert not report.refused, report
            wanted = best(await here.contents(), await there.contents())
            assert len(wanted) == 2_300
            assert (await there.reconcile(here)).complete
            assert await here.contents() == await there.contents() == wanted
            assert sum(one.seq - START_NS >= 2 for _, one, _ in wanted.values()) == 300

    simulate(story)


# --- only comparing ------------------------------------------------------------------------------


def test_a_dry_run_changes_nothing_and_names_what_differs(pair):
    async def story():
        async with pair() as (here, there):
            await here.put(item("a", b"new", seq=9), item("c", b"mine", seq=3))
            await there.put(item("a", b"old", seq=5), item("b", b"theirs", seq=4))
            before = [await side.contents() for side in (here, there)]
            report = await here.reconcile(there, dry_run=True)
            assert (report.different, report.complete) == (3, True)
            assert (report.pulled, report.pushed, report.renewed, report.refused) == (0, 0, 0, 0)
            assert [await side.contents() for side in (here, there)] == before
            found = {d.target: d for d in report.differences}
            mine, theirs, both = (
                found[mutable_item_target(key(name).public, b"note")] for name in "cba"
            )
            assert (mine.seq_here - START_NS, mine.seq_there) == (3, 0)
            assert (mine.salt, mine.subject) == (b"note", key("c").public)
            assert (theirs.seq_here, theirs.seq_there - START_NS) == (0, 4)
            assert theirs.salt == theirs.subject == b""
            assert (both.seq_here - START_NS, both.seq_there - START_NS) == (9, 5)
            one_salt = await here.reconcile(there, b"note", dry_run=True)
            assert {d.salt for d in one_salt.differences} == {b"note"}

    run(story)


@pytest.mark.parametrize("here_holds", [3, 5_000])
def test_thousands_where_the_other_holds_three(pair, here_holds):
    async def story():
        async with pair() as (here, there):
            few, many = (here, there) if here_holds == 3 else (there, here)
            await fill([many], 5_000)
            await fill([few], 3, start=10_000)
            report = await here.reconcile(there, dry_run=True)
            assert (report.different, report.complete) == (5_003, True)
            assert len(report.differences) == DIFFERENCES_MAX

    run(story)


def test_no_answer_is_an_error_and_so_is_nonsense(pair):
    async def story():
        async with pair() as (here, there):
            here.exchange.down.add(there.public)
            with pytest.raises(DialError):
                await here.reconcile(there)
            with pytest.raises(LocalProtocolError):
                await here.reconcile(here)
            with pytest.raises(LocalProtocolError):
                await here.reconcile(there, bytes(201))

    run(story)

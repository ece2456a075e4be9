"""Reconciling with a liar, and over a link that dies: nothing forged, and the rest is kept."""

import contextlib
import functools
from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dht_kademlia.core.codec import MsgpackCodec
from dht_kademlia.core.messages import Held, ItemLease, RangeReply, Ranges, Reconcile
from dht_kademlia.core.ranges import EFFORT_FREE
from dht_kademlia.serve.answers import Answers
from dht_kademlia.serve.ranges import answer_ranges
from skycore.errors import ReplyError, TransportError
from skycore.model.items import Lease, make_item
from skycore.model.keys import ED25519
from skycore.model.limits import RANGE_ITEMS_MAX, RANGES_MAX, WANTED_MAX
from skycore.model.network import NetworkConstants
from skycore.model.numbers import DhtMethod
from skycore.testing.fakes import START_NS, identity

NETWORK = NetworkConstants(ED25519, "skycore-test", ED25519.public(identity("authority").secret))
CODEC = MsgpackCodec()
replace = msgspec.structs.replace


def item(n, v=b"v", seq=1, name="alice"):
    secret = identity(name, NETWORK).secret
    until = START_NS // 10**9 + 1_000
    return make_item(NETWORK, secret, salt=b"%d" % n, seq=START_NS + seq, until=until, v=v)


def run(function):
    anyio.run(function)


class Liar:
    """Answers as an honest node would, and then `lie(request, reply)` has its way."""

    def __init__(self, public, lie):
        self.public = public
        self.lie = lie
        self.asked = []

    async def speak(self, honest, stream, method, request):
        self.asked.append(request)
        reply = self.lie(request, await Answers(honest.node).to(b"asker", request))
        frame = reply if isinstance(reply, bytes) else CODEC.encode(method, reply)
        await stream.send(frame)


@asynccontextmanager
async def lying(pair, lie, mine=0, theirs=0):
    """Open a node with items of its own, and a liar with others."""
    liar = Liar(identity("n9", NETWORK).public, lie)
    async with pair() as (here, there):
        await here.put(*(item(n) for n in range(mine)))
        await there.put(*(item(1_000 + n) for n in range(theirs)))
        async with here.puppet(liar.public, functools.partial(liar.speak, there)):
            yield here, there, liar


def only_ranges(change):
    """Lie about ranges alone."""

    def lie(request, reply):
        if isinstance(request, Reconcile) and request.ranges:
            return replace(reply, ranges=tuple(change(request, reply)))
        return reply

    return lie


def only_wanted(change):
    """Lie about what was wanted alone."""

    def lie(request, reply):
        if isinstance(request, Reconcile) and request.wanted:
            return change(request, reply)
        return reply

    return lie


FAR = b"\xff" * 32
JUNK = (10**9, b"\7" * 32)


# --- named errors --------------------------------------------------------------------------------


def outside(request, reply):
    if request.ranges[0].high == FAR:
        return [RangeReply(0, parts=(JUNK,) * 15 + ((0, bytes(32)),))]
    return [RangeReply(0, held=(Held(FAR, 3, bytes(40), 2**62),))]


def overlapping(request, reply):
    return [RangeReply(0, parts=(JUNK,) * 16), RangeReply(0, parts=(JUNK,) * 16)]


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        (only_ranges(outside), "outside"),
        (only_ranges(overlapping), "again"),
        (only_ranges(lambda q, r: [RangeReply(99, held=())]), "not asked for"),
        (only_ranges(lambda q, r: [RangeReply(0, parts=(JUNK,) * 7)]), "16 parts"),
        (only_ranges(lambda q, r: [RangeReply(0, parts=((0, b"\1" * 32),) * 16)]), "add up"),
        (only_wanted(lambda q, r: replace(r, served=0, items=())), "no progress"),
        (only_wanted(lambda q, r: replace(r, served=2**62)), "no progress"),
        (only_wanted(lambda q, r: replace(r, items=r.items * 4, served=1)), "items of"),
        (lambda q, r: b"\0\0\0\2\x08\xc1", "not a message"),
    ],
)
def test_a_lie_ends_the_run_with_its_name(pair, lie, why):
    async def story():
        async with lying(pair, lie, mine=20, theirs=20) as (here, _, liar):
            before = await here.contents()
            report = await here.reconcile(liar.public)
            assert not report.complete
            assert why in report.reasons[0], report.reasons
            assert len(liar.asked) <= 4
            after = await here.contents()
            assert before.items() <= after.items()

    run(story)


def test_the_honest_part_is_kept(pair):
    """The first two pages are true, the third is not."""
    pages = []

    def change(request, reply):
        pages.append(request)
        return reply if len(pages) < 3 else replace(reply, served=0)

    async def story():
        async with lying(pair, only_wanted(change)) as (here, there, liar):
            await there.put(*(item(n, b"v" * 60_000) for n in range(60)))
            report = await here.reconcile(liar.public)
            assert not report.complete
            assert "no progress" in report.reasons[0]
            assert 0 < report.pulled < 60
            assert len(await here.contents()) == report.pulled
            report = await here.reconcile(there)
            assert report.complete
            assert await here.contents() == await there.contents()

    run(story)


# --- bounded work --------------------------------------------------------------------------------


def endless(request, reply):
    return [RangeReply(i, parts=(JUNK,) * 16) for i in range(len(request.ranges))]


def test_fingerprints_that_never_match_cost_a_bounded_amount(pair):
    async def story():
        async with lying(pair, only_ranges(endless), mine=50, theirs=50) as (here, _, liar):
            report = await here.reconcile(liar.public)
            assert not report.complete
            assert any("no progress" in why for why in report.reasons)
            assert len(liar.asked) <= EFFORT_FREE // RANGES_MAX + 200
            assert len(await here.contents()) == 50

    run(story)


def invented(request, reply):
    """Each range holds 32 slots that nobody ever signed."""
    found = []
    for index, asked in enumerate(request.ranges):
        if request.ranges[0].low == bytes(32) and request.ranges[0].high == FAR:
            found.append(RangeReply(index, parts=(JUNK,) * 16))
            continue
        low = int.from_bytes(asked.low, "big")
        held = tuple(
            Held((low + n).to_bytes(32, "big"), 3, b"\xff" * 40, 2**62)
            for n in range(RANGE_ITEMS_MAX)
        )
        found.append(RangeReply(index, held=held))
    return found


def test_slots_that_do_not_exist_are_asked_for_once_and_nothing_comes_of_it(pair):
    async def story():
        async with lying(pair, only_ranges(invented), mine=5) as (here, _, liar):
            report = await here.reconcile(liar.public)
            assert report.complete
            assert (report.pulled, report.refused) == (0, 0)
            assert "gone when they were asked for" in report.reasons[0]
            assert report.different >= 16 * RANGE_ITEMS_MAX
            assert len(liar.asked) < 10

    run(story)


def deep(request, reply):
    """Split to the last round but one, and then list slots that nobody signed, everywhere."""
    found = []
    for index, asked in enumerate(request.ranges):
        low, high = int.from_bytes(asked.low, "big"), int.from_bytes(asked.high, "big")
        if high - low >= 2**240:
            found.append(RangeReply(index, parts=(JUNK,) * 16))
        else:
            held = tuple(
                Held((low + n).to_bytes(32, "big"), 3, b"\xff" * 40, 2**62) for n in range(32)
            )
            found.append(RangeReply(index, held=held))
    return found


def test_invented_slots_without_end_end(pair):
    async def story():
        async with lying(pair, only_ranges(deep), mine=5) as (here, _, liar):
            report = await here.reconcile(liar.public)
            assert not report.complete
            assert any("no progress" in why for why in report.reasons)
            wanted = sum(len(r.wanted) for r in liar.asked if isinstance(r, Reconcile))
            assert wanted <= EFFORT_FREE
            assert len(await here.contents()) == 5

    run(story)


def test_a_dry_run_with_a_liar_ends_too(pair, monkeypatch):
    monkeypatch.setattr("dht_kademlia.core.ranges.MESSAGES_MAX", 20)

    async def story():
        async with lying(pair, only_ranges(deep)) as (here, _, liar):
            report = await here.reconcile(liar.public, dry_run=True)
            assert not report.complete
            assert "no end" in report.reasons[0]
            assert len(liar.asked) == 20

    run(story)


def test_more_items_in_a_narrow_place_than_rounds_can_tell_apart(pair):
    def narrow(request, reply):
        """All that is held lies in the first 2^-28th."""
        found = []
        for index, asked in enumerate(request.ranges):
            if asked.low == bytes(32):
                found.append(RangeReply(index, parts=(JUNK, *((0, bytes(32)),) * 15)))
        return found

    async def story():
        async with lying(pair, only_ranges(narrow), mine=40) as (here, there, liar):
            report = await here.reconcile(liar.public)
            assert report.rounds == 8
            assert not report.complete
            assert "closer together" in report.reasons[0]
            assert report.pushed == 40  # what is said to be missing elsewhere is pushed as ever
            assert await here.contents() == await there.contents()

    run(story)


# --- forged and unasked --------------------------------------------------------------------------


def forged(request, reply):
    return replace(reply, items=tuple(replace(one, v=b"forged") for one in reply.items))


def other_targets(request, reply):
    """Valid items, but not those that were wanted."""
    return replace(reply, items=tuple(item(5_000 + n) for n in range(len(reply.items))))


def foreign_leases(request, reply):
    lease = Lease(reply.items[0].target, 3, bytes(32), 2**40, bytes(64))
    return replace(reply, item_leases=(ItemLease(0, lease), ItemLease(-1, lease)))


@pytest.mark.parametrize(
    ("change", "refused", "why"),
    [
        (forged, 20, "signature"),
        (other_targets, 20, "not asked for"),
        (foreign_leases, 1, "lease"),
        (lambda q, r: replace(r, items=()), 0, ""),
    ],
)
def test_nothing_unverified_or_unasked_is_stored(pair, change, refused, why):
    async def story():
        async with lying(pair, only_wanted(change), theirs=20) as (here, there, liar):
            report = await here.reconcile(liar.public)
            assert report.refused == refused, report
            assert not why or why in report.reasons[0], report.reasons
            held, honest = await here.contents(), await there.contents()
            assert held.items() <= honest.items()
            assert len(held) == report.pulled == (19 if change is foreign_leases else 0)

    run(story)


def test_items_under_another_salt_are_dropped(pair):
    def change(request, reply):
        return replace(reply, items=tuple(item(5_000) for _ in reply.items))

    async def story():
        async with lying(pair, only_wanted(change), theirs=3) as (here, _, liar):
            report = await here.reconcile(liar.public, b"1001")
            assert (report.pulled, report.refused) == (0, 1)
            assert await here.contents() == {}

    run(story)


def test_leases_that_were_not_asked_for_are_dropped(pair):
    def lie(request, reply):
        if isinstance(request, Reconcile) and request.leases_of:
            return replace(reply, leases=(Lease(FAR, 3, bytes(32), 2**40, bytes(64)),) * 50)
        if isinstance(request, Reconcile) and request.ranges:
            held = tuple(replace(h, until=h.until + 9) for h in mine)
            return Ranges((RangeReply(0, held=held),))
        return reply

    mine = []

    async def story():
        async with lying(pair, lie, mine=5) as (here, _, liar):
            listed = await here.gate.listing(None, bytes(32), FAR, 10)
            mine.extend(Held(s.target, s.item_class, s.rank, s.until) for s in listed)
            before = await here.contents()
            report = await here.reconcile(liar.public)
            assert (report.different, report.renewed, report.refused) == (5, 0, 50)
            assert await here.contents() == before

    run(story)


def test_o25_outcomes_that_are_not_one_each_end_the_run(pair):
    def lie(request, reply):
        return replace(reply, outcomes=reply.outcomes[:-1]) if hasattr(reply, "outcomes") else reply

    async def story():
        async with lying(pair, lie, mine=20) as (here, _, liar):
            report = await here.reconcile(liar.public)
            assert (report.different, report.pushed, report.complete) == (20, 0, False)
            assert "19 outcomes" in report.reasons[0]

    run(story)


def test_a_push_that_finds_something_newer_pulls_it(pair):
    """The list said: not held. In the meantime it came, and newer."""

    async def story():
        late = []

        def lie(request, reply):
            if isinstance(request, Reconcile) and request.ranges and not late:
                late.append(1)
                return replace(reply, ranges=(RangeReply(0, held=()),))
            return reply

        async with lying(pair, lie, mine=3) as (here, there, liar):
            await there.put(item(1, b"newer", seq=5))
            report = await here.reconcile(liar.public)
            assert (report.pushed, report.pulled, report.refused) == (2, 1, 0)
            assert await here.contents() == await there.contents()

    run(story)


# --- askers --------------------------------------------------------------------------------------


def test_an_asker_that_breaks_the_rules_is_told_so(pair):
    async def story():
        async with pair() as (here, there):
            bad = Reconcile(None, (), (b"short",))
            frame = here.node.client.frame(DhtMethod.RECONCILE, bad)
            with pytest.raises(ReplyError, match="32 bytes"):
                await here.node.client.exchange(there.public, DhtMethod.RECONCILE, frame)

    run(story)


async def test_a_request_without_anything_is_answered(pair):
    async with pair() as (here, _):
        assert await answer_ranges(here.gate, Reconcile(None, ())) == Ranges(())
        many = Reconcile(None, (), (FAR,) * WANTED_MAX)
        assert (await answer_ranges(here.gate, many)).served == WANTED_MAX


# --- a link that dies ----------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1), st.booleans())
def test_a_run_may_die_at_any_byte(pair, where, dry_run):
    async def story():
        async with pair() as (here, there):
            for n in range(60):
                await (here if n % 2 else there).put(item(n, b"v" * 5_000))
                await (there if n % 3 else here).put(item(n, b"w" * 5_000, seq=2))
            before = await here.contents() | await there.contents()
            here.streams.left = int(where * 400_000)
            with contextlib.suppress(TransportError):
                report = await here.reconcile(there, dry_run=dry_run)
                assert report.complete or report.reasons
            held = []
            for side in (here, there):
                for s in await side.gate.listing(None, bytes(32), FAR, 1_000):
                    side.gate.judge(s.item, s.lease)  # whole and signed, every one
                    held.append(s.item)
            assert {one.v[:1] for one in held} <= {b"v", b"w"}
            assert {slot for slot, _ in before.items()} >= set(await here.contents())
            here.streams.left = 10**9
            report = await here.reconcile(there)
            assert report.complete
            assert await here.contents() == await there.contents()
            assert all(one.v[:1] == b"w" for _, one, _ in (await here.contents()).values())

    run(story)

"""Comparing by fingerprints: exactly the slots that differ are found, and no liar is believed."""

import hashlib
import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dht_kademlia.core.messages import Held, Range, RangeReply, Ranges, Reconcile
from dht_kademlia.core.ranges import (
    EARNED,
    EFFORT_FREE,
    MESSAGES_MAX,
    WHOLE,
    Effort,
    Plan,
    Span,
    Verdict,
    check_request,
    check_served,
    compare,
    parts_of,
    print_bytes,
    read_reply,
)
from skycore.contracts.store import Fingerprint
from skycore.errors import RemoteProtocolError
from skycore.model.items import Lease, MutableItem, StoredItem
from skycore.model.limits import (
    RANGE_ITEMS_MAX,
    RANGE_PARTS,
    RANGES_MAX,
    RECONCILE_ROUNDS_MAX,
)
from skycore.model.prints import range_print

NOTHING = bytes(32)
TARGETS = st.binary(min_size=32, max_size=32)


def rank(seq):
    return seq.to_bytes(8, "big") + bytes(32)


def answer(rows, request):
    """Answer as a node with these rows (target, class, rank, until) would."""
    check_request(request)
    replies = []
    for index, asked in enumerate(request.ranges):
        own = [r for r in rows if asked.low <= r[0] <= asked.high]
        count, value = range_print(own)
        if (count, value.to_bytes(32, "big")) == (asked.items, asked.fingerprint):
            continue
        if count <= RANGE_ITEMS_MAX:
            replies.append(RangeReply(index, held=tuple(Held(*r) for r in sorted(own))))
            continue
        parts = []
        for low, high in parts_of(asked.low, asked.high):
            items, part = range_print(r for r in own if low <= r[0] <= high)
            parts.append((items, part.to_bytes(32, "big")))
        replies.append(RangeReply(index, parts=tuple(parts)))
    return Ranges(tuple(replies))


def run(here, there):
    """Return what a whole comparison finds: slots here, slots there, the plan, ranges unread."""
    plan = Plan(Fingerprint(*range_print(here)))
    ours, theirs, unread = set(), set(), []
    while spans := plan.next():
        assert len(spans) <= RANGES_MAX
        reply = answer(there, Reconcile(None, tuple(span.asked() for span in spans)))
        parts, listed = read_reply(spans, reply)
        prints = [
            Fingerprint(*range_print(r for r in here if p.low <= r[0] <= p.high)) for p in parts
        ]
        for one in [*listed, *plan.take(parts, prints)]:
            if one.held is None:
                unread.append(one)
                continue
            held = {(h.target, h.item_class, h.rank, h.until) for h in one.held}
            own = {r for r in here if one.low <= r[0] <= one.high}
            ours |= own - held
            theirs |= held - own
    return ours, theirs, plan, unread


# --- parts ---------------------------------------------------------------------------------------


@given(TARGETS, TARGETS)
def test_parts_cover_a_range_and_do_not_overlap(one, other):
    low, high = min(one, other), max(one, other)
    parts = [(a, b) for a, b in parts_of(low, high) if a <= b]
    assert len(parts_of(low, high)) == RANGE_PARTS
    assert parts[0][0] == low
    assert parts[-1][1] == high
    for (_, end), (begin, _) in pairwise(parts):
        assert int.from_bytes(end, "big") + 1 == int.from_bytes(begin, "big")


@pytest.mark.parametrize("first", [0, 5, 2**256 - 20])
@pytest.mark.parametrize("size", range(1, 20))
def test_a_range_of_few_targets_has_empty_parts(first, size):
    low, high = first.to_bytes(32, "big"), (first + size - 1).to_bytes(32, "big")
    parts = parts_of(low, high)
    assert len(parts) == RANGE_PARTS
    targets = [n for a, b in parts for n in range(int.from_bytes(a, "big"),
                                                  int.from_bytes(b, "big") + 1)]  # fmt: skip
    assert targets == list(range(first, first + size))


def test_the_parts_of_everything_are_the_first_digits():
    assert [(a[0], b[0]) for a, b in parts_of(*WHOLE)] == [(16 * n, 16 * n + 15) for n in range(16)]


# --- finding what differs ------------------------------------------------------------------------


def rows_of(dice, count, near=b""):
    return {
        (near + dice.randbytes(32 - len(near)), dice.randint(1, 3), rank(dice.randint(1, 9)), 5)
        for _ in range(count)
    }


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(0, 300),
    st.integers(0, 60),
    st.integers(0, 60),
    st.sampled_from([b"", b"", b"\x07", b"\x07\x00\x00"]),
)
def test_c31_exactly_what_differs_is_found(seed, shared, here, there, near):
    dice = random.Random(seed)
    both = rows_of(dice, shared, near)
    mine, theirs = rows_of(dice, here, near), rows_of(dice, there)
    # some slots are on both sides with another rank, some with another end
    held = {(t, c): (t, c, r, u) for t, c, r, u in both | theirs}
    for at, (t, c, r, u) in enumerate(sorted(both)):
        if at % 7 == 0:
            held[t, c] = (t, c, rank(10), u)
        elif at % 11 == 0:
            held[t, c] = (t, c, r, u + 1)
    a, b = both | mine, set(held.values())
    ours, others, plan, unread = run(a, b)
    assert not unread
    assert ours == a - b
    assert others == b - a
    assert plan.rounds <= RECONCILE_ROUNDS_MAX


@pytest.mark.parametrize(("here", "there"), [(3, 3_000), (3_000, 3), (0, 2_000), (2_000, 0)])
def test_one_side_holds_thousands_where_the_other_holds_three(here, there):
    dice = random.Random(1)
    a, b = rows_of(dice, here), rows_of(dice, there)
    ours, others, plan, _ = run(a, b)
    assert (ours, others) == (a, b)
    # what they do not list is found in few questions: an empty part needs none
    assert plan.messages <= 8


def test_equal_stores_take_one_question():
    rows = rows_of(random.Random(2), 500)
    ours, others, plan, _ = run(rows, set(rows))
    assert (ours, others, plan.rounds, plan.messages) == (set(), set(), 1, 1)


def test_items_too_close_together_are_told_of_and_not_asked_for_ever():
    dice = random.Random(3)
    close = rows_of(dice, RANGE_ITEMS_MAX + 1, bytes(28))
    far = rows_of(dice, 40, b"\x80")
    ours, others, plan, unread = run(set(), close | far)
    assert plan.rounds == RECONCILE_ROUNDS_MAX
    assert others == far
    assert not ours
    assert len(unread) == 1
    assert all(unread[0].low <= t <= unread[0].high for t, *_ in close)


def test_the_deepest_ranges_are_asked_first_and_the_plan_stays_small():
    plan = Plan(Fingerprint(1, 1))
    other = Fingerprint(10**9, 7)
    most = 0
    for _ in range(60):
        spans = plan.next()
        if not spans:
            break
        parts, _ = read_reply(spans, lie_of(spans, other))
        plan.take(parts, [Fingerprint(0, 0)] * len(parts))
        most = max(most, len(plan._open))
    assert most <= RECONCILE_ROUNDS_MAX * RANGE_PARTS * RANGES_MAX
    assert plan.rounds == RECONCILE_ROUNDS_MAX


def lie_of(spans, there):
    parts = ((there.items, print_bytes(there)),) * RANGE_PARTS
    return Ranges(tuple(RangeReply(i, parts=parts) for i in range(len(spans))))


# --- liars: fingerprints that never match --------------------------------------------------------


def test_fingerprints_that_never_match_end_with_an_error():
    plan, effort = Plan(Fingerprint(1, 1)), Effort()
    with pytest.raises(RemoteProtocolError, match="no progress"):
        while spans := plan.next():
            effort.spend(len(spans))
            parts, _ = read_reply(spans, lie_of(spans, Fingerprint(10**9, 7)))
            plan.take(parts, [Fingerprint(0, 0)] * len(parts))
    assert plan.messages <= EFFORT_FREE // RANGES_MAX + RECONCILE_ROUNDS_MAX


def test_a_comparison_has_an_end_even_where_everything_is_paid_for():
    plan = Plan(Fingerprint(1, 1))
    with pytest.raises(RemoteProtocolError, match="no end"):
        for _ in range(MESSAGES_MAX + 1):
            plan._open = [Span(*WHOLE, 1, Fingerprint(1, 1))]
            plan.next()


def test_repairs_pay_for_questions():
    effort = Effort()
    for _ in range(10 * EFFORT_FREE // EARNED):
        effort.spend(EARNED)
        effort.earn(1)
    effort.spend(EFFORT_FREE)
    effort.earn(0, vain=1)
    effort.spend(1)
    with pytest.raises(RemoteProtocolError, match="no progress"):
        effort.spend(1)


# --- liars: replies ------------------------------------------------------------------------------

SPANS = [
    Span(bytes(32), b"\x0f" + b"\xff" * 31, 2, Fingerprint(1, 1)),
    Span(b"\x20" + bytes(31), b"\x2f" + b"\xff" * 31, 2, Fingerprint(0, 0)),
]
INSIDE = b"\x21" + bytes(31)
PART = (1, b"\1" * 32)


def held(*targets, item_class=1, own_rank=None):
    return tuple(Held(t, item_class, rank(1) if own_rank is None else own_rank, 5) for t in targets)


@pytest.mark.parametrize(
    ("replies", "why"),
    [
        ([RangeReply(2, held=())], "not asked for"),
        ([RangeReply(-1, held=())], "not asked for"),
        ([RangeReply(1, held=()), RangeReply(1, held=())], "again"),
        ([RangeReply(1, held=()), RangeReply(0, held=())], "again"),
        ([RangeReply(0, parts=(PART,) * 15)], "16 parts"),
        ([RangeReply(0, parts=(PART,) * 16, held=held(bytes(32)))], "16 parts"),
        ([RangeReply(0, parts=(*(PART,) * 15, (0, b"\1" * 32)))], "do not add up"),
        ([RangeReply(0, parts=(*(PART,) * 15, (-1, b"\1" * 32)))], "do not add up"),
        ([RangeReply(0, parts=(*(PART,) * 15, (2**70, b"\1" * 32)))], "do not add up"),
        ([RangeReply(0, parts=(*(PART,) * 15, (1, b"\1" * 31)))], "32 bytes"),
        ([RangeReply(1, held=held(b"\x30" + bytes(31)))], "outside"),
        ([RangeReply(1, held=held(bytes(32)))], "outside"),
        ([RangeReply(1, held=held(INSIDE[:31]))], "32 bytes"),
        ([RangeReply(1, held=held(INSIDE, INSIDE))], "again"),
        ([RangeReply(1, held=held(INSIDE[:-1] + b"\1", INSIDE))], "not in order"),
        ([RangeReply(1, held=held(INSIDE, item_class=4))], "no class"),
        ([RangeReply(1, held=held(INSIDE, own_rank=b"short"))], "no rank"),
    ],
)
def test_a_reply_that_no_honest_node_gives(replies, why):
    with pytest.raises(RemoteProtocolError, match=why):
        read_reply(SPANS, Ranges(tuple(replies)))


def test_parts_where_no_target_fits_hold_nothing():
    narrow = [Span(bytes(32), bytes(31) + b"\1", 9, Fingerprint(1, 1))]
    with pytest.raises(RemoteProtocolError, match="no target fits"):
        read_reply(narrow, Ranges((RangeReply(0, parts=(PART,) * 16),)))


ITEM = MutableItem(b"k", b"s", b"t", 1, 0, 0, b"v" * 900_000)


@pytest.mark.parametrize(
    ("asked", "reply", "why"),
    [
        (3, Ranges((), served=0), "no progress"),
        (3, Ranges((), served=4), "no progress"),
        (3, Ranges((), served=-1), "no progress"),
        (0, Ranges((), served=1), "no progress"),
        (3, Ranges((), items=(ITEM,) * 4, served=1), "4 items"),
        (3, Ranges((), items=(ITEM,) * 2, served=2), "bytes were asked"),
    ],
)
def test_what_was_wanted_is_served_as_asked_or_not_at_all(asked, reply, why):
    with pytest.raises(RemoteProtocolError, match=why):
        check_served(asked, reply)


def test_one_target_may_be_larger_than_a_page():
    check_served(3, Ranges((), items=(ITEM,) * 2, served=1))
    check_served(0, Ranges(()))


# --- askers that are no honest nodes -------------------------------------------------------------


def asked(low, high, items=1, value=b"\1" * 32):
    return Range(low, high, items, value)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (Reconcile(bytes(201), ()), "salt"),
        (Reconcile(None, (asked(b"", WHOLE[1]),)), "32 bytes"),
        (Reconcile(None, (asked(*WHOLE, value=b""),)), "32 bytes"),
        (Reconcile(None, (asked(*WHOLE, items=0),)), "do not add up"),
        (Reconcile(None, (asked(*reversed(WHOLE)),)), "ends before"),
        (Reconcile(None, (asked(*WHOLE), asked(*WHOLE))), "overlap"),
        (Reconcile(None, (asked(INSIDE, INSIDE), asked(NOTHING, NOTHING))), "order"),
        (Reconcile(None, (), (b"short",)), "32 bytes"),
        (Reconcile(None, (), (), (b"short",)), "32 bytes"),
    ],
)
def test_a_question_that_no_honest_node_asks(request_, why):
    with pytest.raises(RemoteProtocolError, match=why):
        check_request(request_)


# --- slots ---------------------------------------------------------------------------------------


def stored(target, item_class=3, seq=1, until=5, lease_until=0):
    lease = Lease(target, item_class, b"", lease_until) if lease_until else None
    item = MutableItem(b"k", b"s", b"t", seq, 0, until, b"v")
    return StoredItem(target, item_class, rank(seq), b"", item, b"", 0, 1, 1, lease)


@pytest.mark.parametrize(
    ("own", "other", "verdict"),
    [
        (stored(INSIDE, seq=2), Held(INSIDE, 3, rank(1), 9), Verdict.PUSH),
        (stored(INSIDE, seq=1), Held(INSIDE, 3, rank(2), 1), Verdict.PULL),
        (stored(INSIDE, lease_until=9), Held(INSIDE, 3, rank(1), 5), Verdict.PUSH_LEASE),
        (stored(INSIDE), Held(INSIDE, 3, rank(1), 9), Verdict.PULL_LEASE),
        (stored(INSIDE, lease_until=9), Held(INSIDE, 3, rank(1), 9), None),
        (stored(INSIDE), Held(INSIDE, 2, rank(9), 9), Verdict.PUSH),
    ],
)
def test_a_slot_is_settled_by_rank_and_then_by_its_end(own, other, verdict):
    there = {(other.target, other.item_class): other}
    found = [found for _, _, found in compare([own], there)]
    assert found == ([verdict] if verdict else [])
    assert len(there) == (other.item_class != own.item_class)


# --- the vector of docs/protocols/reconcile.md ---------------------------------------------------

ROWS = [
    (bytes(32), 1, rank(1), 1_800_000_000),
    (b"\x80" + bytes(31), 3, rank(2), 1_800_000_300),
    (b"\xff" * 32, 3, b"\xff" * 40, 2**63 - 1),
]


SUMS = [
    "b8f39e74d3f5acb717b873164718fa8a0aa9fcad4088ce0e365389c1a5661d8e",
    "e0e47d409ea15110dcc681e41ce2369e25f293ce406ac21a658a1ca1f4fea80b",
    "e972f8ac0d55079cf1f6c694b28c6a8236755070efb7846b7b6eb415b489be89",
]
ALL_THREE = "834b14617fec0564e675bb8f16879baa6711e0ec70ab1494174c5a794eee8422"


def test_the_fingerprints_of_three_fixed_rows():
    assert [f"{range_print([row])[1]:064x}" for row in ROWS] == SUMS
    assert range_print(ROWS) == (3, int(ALL_THREE, 16))
    plain = [
        int.from_bytes(hashlib.sha256(t + bytes([c]) + r + u.to_bytes(8, "big")).digest(), "big")
        for t, c, r, u in ROWS
    ]
    assert f"{sum(plain) % 2**256:064x}" == ALL_THREE


def test_the_document_has_the_same_vector():
    page = (Path(__file__).parents[4] / "docs/protocols/reconcile.md").read_text()
    for value in (*SUMS, ALL_THREE):
        assert value in page

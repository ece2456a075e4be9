"""Who is known to hold what: told, forgotten, bounded; and whose duty a missing replica is."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht_kademlia.core.contacts import id_of
from dht_kademlia.core.hints import Hints
from dht_kademlia.core.holders import DUTY, RECHECK_S, Holders, version_of
from dht_kademlia.core.routing_table import ID_BITS, SLACK, K, RoutingTable
from skycore.model.addresses import Address
from skycore.model.items import make_item
from skycore.testing.fakes import TEST_NETWORK, identity

HERE = (Address("sim", "here"),)
V = bytes(16)
EVERYWHERE = (0, (1 << ID_BITS) - 1)


def key(i):
    return i.to_bytes(4, "big") * 8


def table_of(own, others, now=0.0):
    table = RoutingTable(own)
    for public in others:
        table.seen(public, HERE, now)
    return table


def known_to(own, others, *, born_s=-1e6, now=0.0):
    table = table_of(own, others, now)
    holders = Holders(born_s)
    holders.sync(table, now)
    return table, holders


def nearest(keys, target):
    return sorted(keys, key=lambda p: id_of(p) ^ target)


def told(contacts):
    return [c.public for c in contacts]


def test_a_version_is_a_piece_of_its_signature():
    me = identity("u1")
    items = [
        make_item(TEST_NETWORK, me.secret, salt=b"t", seq=seq, until=9, v=b"v") for seq in (1, 2)
    ]
    assert len({version_of(i) for i in items}) == 2
    assert all(len(version_of(i)) == 16 for i in items)


def test_what_was_said_is_known_until_it_is_asked_again():
    _, holders = known_to(key(1), [key(2), key(3)])
    holders.took(V, key(2), 10.0)
    assert holders.holds(V, key(2), 10.0)
    assert not holders.holds(V, key(3), 10.0)
    assert not holders.holds(b"other" * 3, key(2), 10.0)
    assert holders.holds(V, key(2), 10.0 + RECHECK_S - 1)
    assert not holders.holds(V, key(2), 10.0 + RECHECK_S)
    assert len(holders) == 0


def test_a_contact_that_left_takes_its_knowledge_along():
    _, holders = known_to(key(1), [key(2), key(3)])
    holders.took(V, key(2), 0.0)
    holders.took(V, key(3), 0.0)
    holders.left(key(2))
    holders.entered(key(2), 1.0)
    assert not holders.holds(V, key(2), 1.0)
    assert holders.holds(V, key(3), 1.0)
    holders.took(V, key(9), 1.0)  # nobody we know
    assert not holders.holds(V, key(9), 1.0)


class Sets:
    """The same knowledge beside it, as plain sets."""

    def __init__(self):
        self.holders, self.there, self.said = Holders(0.0), set(), set()

    def enter(self, who, which, count=1):
        for i in range(count):
            self.holders.entered(key(who + i), 0.0)
            self.there.add(key(who + i))

    def crowd(self, who, which):
        self.enter(1_000 + who, which, 300)

    def leave(self, who, which):
        for gone in sorted(self.there)[:200]:
            self.holders.left(gone)
            self.there.discard(gone)
            self.said = {(v, p) for v, p in self.said if p != gone}

    def take(self, who, which):
        for public in self.there:
            self.holders.took(bytes((which,)) * 16, public, 0.0)
            self.said.add((bytes((which,)) * 16, public))

    def lack(self, who, which):
        self.holders.lacks(bytes((which,)) * 16, key(who))
        self.said.discard((bytes((which,)) * 16, key(who)))

    def refuse(self, who, which):
        self.holders.refused(bytes((which,)) * 16, key(who), 0.0)
        self.said.discard((bytes((which,)) * 16, key(who)))


STEPS = [getattr(Sets, name) for name in ("enter", "crowd", "leave", "take", "lack", "refuse")]


@given(
    st.lists(
        st.tuples(st.sampled_from(STEPS), st.integers(0, 700), st.integers(0, 20)), max_size=80
    )
)
def test_knowledge_is_that_of_a_plain_set(steps):
    """Whatever comes, goes and is said: bits are those of sets, also after they are used again."""
    sets = Sets()
    for step, who, which in steps:
        step(sets, who, which)
    assert sets.holders.contacts == len(sets.there)
    versions = [bytes((which,)) * 16 for which in range(21)]
    found = {(v, p) for p in sets.there for v in versions if sets.holders.holds(v, p, 0.0)}
    assert found == sets.said


def test_bounds_hold_under_many_items_and_contacts():
    """10,000 items, 1,000 contacts that all hold them, and as many that come and go."""
    holders = Holders(0.0, most=4_096)
    tracemalloc.start()
    for i in range(1_000):
        holders.entered(key(i), 0.0)
    for n in range(10_000):
        for i in range(n % 7, 1_000, 97):
            holders.took(n.to_bytes(16, "big"), key(i), 1.0)
    for i in range(5_000):
        holders.left(key(i))
        holders.entered(key(i + 1_000), 2.0)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(holders) == 4_096
    assert holders.contacts == 1_000
    assert size < 4 * 1024 * 1024
    last = (9_999).to_bytes(16, "big")
    assert not holders.holds(last, key(5_500), 2.0)  # has a bit that others had before it


# --- duty ----------------------------------------------------------------------------------------

KEYS = [key(i) for i in range(60)]
TARGET = id_of(b"some target")
ORDER = nearest(KEYS, TARGET)


@pytest.mark.parametrize("rank", range(30))
def test_only_the_two_closest_have_a_duty(rank):
    own = ORDER[rank]
    table, holders = known_to(own, [p for p in KEYS if p != own])
    to_tell = holders.to_tell(table, TARGET, V, 100.0, 200.0)
    if rank < DUTY:
        assert told(to_tell) == [p for p in ORDER[:K] if p != own]
    else:
        assert to_tell == ()


def test_who_is_known_to_hold_it_is_not_told():
    own = ORDER[0]
    table, holders = known_to(own, KEYS[:])
    for public in ORDER[1:19]:
        holders.took(V, public, 0.0)
    assert told(holders.to_tell(table, TARGET, V, 0.0, 0.0)) == [ORDER[19]]
    holders.refused(V, ORDER[19], 0.0)
    assert told(holders.to_tell(table, TARGET, V, 0.0, 500.0)) == []
    assert told(holders.to_tell(table, TARGET, V, 0.0, 601.0)) == [ORDER[19]]
    holders.lacks(V, ORDER[4])
    assert told(holders.to_tell(table, TARGET, V, 0.0, 0.0)) == [ORDER[4], ORDER[19]]


def test_newcomers_that_are_nearer_do_not_relieve_those_who_hold_it():
    """Two newcomers are the two closest now; they have nothing to hand on yet."""
    own = ORDER[2]
    table, holders = known_to(own, [p for p in KEYS if p not in (own, *ORDER[:2])])
    now = 1_000.0
    for public in ORDER[:2]:
        table.seen(public, HERE, now)
        holders.entered(public, now)
    assert told(holders.to_tell(table, TARGET, V, 500.0, now + 1)) == [
        p for p in ORDER[:K] if p != own
    ]
    for public in ORDER[:2]:
        holders.took(V, public, now + 2)
    assert holders.to_tell(table, TARGET, V, 500.0, now + 3) == ()
    # and in time they are settled, whether we heard what they hold or not
    assert holders.to_tell(table, TARGET, b"w" * 16, 500.0, now + 3) != ()
    assert holders.to_tell(table, TARGET, b"w" * 16, 500.0, now + 240) == ()
    # what came when they were there already went to them too
    assert holders.to_tell(table, TARGET, b"w" * 16, now + 1, now + 3) == ()


def test_a_node_that_starts_again_takes_those_it_meets_for_older_than_itself():
    own = ORDER[10]
    table, holders = known_to(own, [p for p in KEYS if p != own], born_s=1_000.0, now=1_010.0)
    assert holders.to_tell(table, TARGET, V, 400.0, 1_011.0) == ()
    assert holders.to_tell(table, TARGET, V, 1_005.0, 1_011.0) != ()  # it came when we were alone


def test_one_that_refuses_it_does_not_see_to_it():
    own = ORDER[2]
    table, holders = known_to(own, [p for p in KEYS if p != own])
    assert holders.to_tell(table, TARGET, V, 0.0, 0.0) == ()
    holders.refused(V, ORDER[0], 0.0)
    assert told(holders.to_tell(table, TARGET, V, 0.0, 0.0))[0] == ORDER[1]


def test_a_far_node_has_it_held_by_one_of_the_nearest():
    far = ORDER[-1]
    table, holders = known_to(far, [p for p in KEYS if p != far])
    assert holders.is_far(table, TARGET)
    known = nearest([e.contact.public for e in table], TARGET)
    assert told(holders.to_leave_it_to(table, TARGET, V, 0.0)) == [known[0]]
    holders.refused(V, known[0], 0.0)
    assert told(holders.to_leave_it_to(table, TARGET, V, 0.0)) == [known[1]]
    holders.took(V, known[2], 0.0)
    assert holders.to_leave_it_to(table, TARGET, V, 0.0) == ()
    near, _ = known_to(ORDER[K + SLACK - 1], [p for p in KEYS if p != ORDER[K + SLACK - 1]])
    assert not holders.is_far(near, TARGET)


@given(st.integers(0, 2**32 - 1), st.integers(2, 200))
def test_outside_the_range_of_duties_there_is_none(seed, count):
    own = key(seed)
    table, holders = known_to(own, [key((seed + i) % 2**32) for i in range(1, count)])
    now = 1_000.0
    low, high = holders.duties(table, now)
    assert low <= table.own_id <= high
    for i in range(64):
        target = id_of(key(i) + bytes(4))
        if not low <= target <= high:
            assert holders.to_tell(table, target, V, 0.0, now) == ()


def test_with_nobody_settled_every_target_may_be_a_duty():
    table, holders = known_to(key(1), KEYS)
    assert holders.duties(table, 1.0) == EVERYWHERE
    low, high = holders.duties(table, 1_000.0)
    assert high - low <= EVERYWHERE[1] // 8


# --- hints ---------------------------------------------------------------------------------------


def test_a_hint_is_due_once_and_only_for_an_hour():
    hints = Hints()
    hints.owe(b"a", b"t1", 0.0)
    hints.owe(b"a", b"t2", 10.0)
    hints.owe(b"a", b"t1", 20.0)
    assert len(hints) == 2
    assert not hints.is_due(b"a", 21.0)  # it failed a second ago
    assert not hints.is_due(b"b", 100.0)
    assert hints.is_due(b"a", 25.0)
    assert hints.due(b"a", 30.0) == [(b"t2", 3_610.0), (b"t1", 3_620.0)]
    assert hints.due(b"a", 30.0) == ()
    hints.owe(b"a", b"t1", 30.0, 3_620.0)
    assert hints.due(b"a", 3_620.0) == []
    assert len(hints) == 0


def test_a_hint_ends_when_the_node_took_it_after_all():
    hints = Hints()
    hints.owe(b"a", b"t1", 0.0)
    hints.settled(b"a", b"t1")
    hints.settled(b"b", b"t1")
    assert len(hints) == 0
    assert not hints.is_due(b"a", 100.0)


def test_hints_expire():
    hints = Hints()
    for n in range(10):
        hints.owe(b"a", b"%d" % n, float(n))
        hints.owe(b"b", b"%d" % n, float(n + 100))
    hints.expire(3_605.0)
    assert len(hints) == 4 + 10
    hints.expire(9_999.0)
    assert len(hints) == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 9)), max_size=200))
def test_hints_are_counted_and_bounded(steps):
    hints = Hints(most=20, peer_max=5)
    for now, (what, peer, target) in enumerate(steps):
        public, place = bytes((peer,)), bytes((target,))
        if what == 0:
            hints.owe(public, place, float(now))
        elif what == 1:
            hints.settled(public, place)
        else:
            hints.due(public, now + 60.0)
        assert 0 <= len(hints) <= 20
    left = sum(len(hints.due(bytes((peer,)), 1e3)) for peer in range(10))
    assert left <= 20
    assert len(hints) == 0


def test_hints_of_ten_thousand_items_and_a_thousand_contacts():
    hints = Hints()
    for n in range(10_000):
        hints.owe(key(n % 1_000), key(n), float(n))
    assert len(hints) == 10_000
    for n in range(10_000, 30_000):
        hints.owe(key(n % 1_000), key(n), float(n))
    assert len(hints) == 16_384
    assert hints.dropped == 30_000 - 16_384

"""The lookup machine: finds the closest, believes the best, and always ends."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from dht_kademlia.core.contacts import id_of
from dht_kademlia.core.lookup import (
    CALLS_MAX,
    DEADLINE_S,
    PATIENCE_S,
    READ_QUORUM,
    Lookup,
    Outcome,
)
from skycore.model.addresses import Address, Contact


def contact(key):
    return Contact(key, (Address("stcpr", "192.0.2.1:7777"),))


def people(seed, count):
    dice = random.Random(seed)
    return [dice.randbytes(32) for _ in range(count)]


OWN = bytes(32)


def run(lookup, knows, *, dead=(), ranks=None, junk=(), now=0.0, dice=None):
    """Drive to the end; answers come in any order. Returns how many questions were asked."""
    ranks, dice = ranks or {}, dice or random.Random(0)
    waiting = []
    while True:
        waiting += lookup.next(now)
        if not waiting:
            assert lookup.done(now)
            return lookup.calls
        one = waiting.pop(dice.randrange(len(waiting)))
        key = one.contact.public
        if key in dead:
            lookup.failed(key)
            continue
        rank = ranks.get(key, b"")
        lookup.answered(key, [contact(k) for k in knows(key)], now=now, rank=rank, junk=key in junk)


def world(seed, count):
    """Return keys, and who knows whom: its 20 nearest and 20 others."""
    everybody = people(seed, count)
    dice = random.Random(seed)

    def knows(key):
        near = sorted(everybody, key=lambda k: id_of(k) ^ id_of(key))[1:21]
        return [*near[:10], *dice.sample(everybody, min(10, count))]

    return everybody, knows


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**16),
    st.integers(1, 150),
    st.integers(0, 2**256 - 1),
    st.sets(st.integers(0, 149)),
)
def test_o18_finds_the_closest_live_nodes_past_any_dead_ones(seed, count, target, dead):
    everybody, knows = world(seed, count)
    dead = {everybody[i] for i in dead if i < count}
    start = [contact(k) for k in everybody[:25]]
    lookup = Lookup(target, start, own=OWN, now=0.0)
    run(lookup, lambda key: everybody[:20] if count < 21 else knows(key), dead=dead)
    found = [c.public for c in lookup.closest()]
    assert not dead & set(found)
    assert found == sorted(found, key=lambda k: id_of(k) ^ target)
    assert lookup.calls <= CALLS_MAX


def test_o18_one_live_peer_behind_thirty_dead_ones_is_reached():
    live, *dead = people(5, 31)
    for target in range(40):
        lookup = Lookup(target << 250, [contact(k) for k in dead], own=OWN, now=0.0)
        lookup._add(contact(live), 0)
        run(lookup, lambda key: dead[:20], dead=set(dead))
        assert [c.public for c in lookup.closest()] == [live]


def test_d23_endless_closer_nodes_end_in_exhaustion():
    closer = iter(sorted(people(1, 4_000), key=id_of, reverse=True))
    start = [contact(next(closer)) for _ in range(3)]
    lookup = Lookup(0, start, own=OWN, now=0.0, wants_value=True)

    def liar(key):
        return [next(closer) for _ in range(20)]

    calls = run(lookup, liar)
    assert calls <= CALLS_MAX
    assert lookup.outcome is Outcome.EXHAUSTED


def test_d23_ten_seconds_are_the_end():
    lookup = Lookup(0, [contact(k) for k in people(1, 20)], own=OWN, now=0.0)
    lookup.next(0.0)
    assert not lookup.done(DEADLINE_S - 0.01)
    assert lookup.done(DEADLINE_S)
    assert lookup.next(DEADLINE_S) == []


def test_a_slow_node_gives_up_its_slot_and_then_its_hope():
    lookup = Lookup(0, [contact(k) for k in people(1, 5)], own=OWN, now=0.0)
    assert len(lookup.next(0.0)) == 3
    assert lookup.next(0.1) == []
    assert lookup.wake_s() == 0.5
    lookup.tick(0.5)
    assert len(lookup.next(0.5)) == 2
    lookup.tick(PATIENCE_S + 1)
    assert lookup.done(PATIENCE_S + 1)
    assert lookup.outcome is Outcome.ALONE


def test_a_quorum_of_equal_answers_ends_a_get():
    everybody = people(2, 40)
    lookup = Lookup(0, [contact(k) for k in everybody], own=OWN, now=0.0, wants_value=True)
    calls = run(lookup, lambda key: [], ranks=dict.fromkeys(everybody, b"rank"))
    assert calls == READ_QUORUM
    assert lookup.outcome is Outcome.FOUND


@given(st.integers(0, 19), st.integers(0, 2**16))
def test_d10_d11_c5_nineteen_liars_do_not_hide_the_newest(honest, seed):
    """19 of 20 give an older value or junk; the lookup asks on until it has the best."""
    everybody = sorted(people(seed, 20), key=id_of)
    ranks = dict.fromkeys(everybody[:12], b"\x03old")
    ranks[everybody[honest]] = b"\x03young"
    lookup = Lookup(0, [contact(k) for k in everybody], own=OWN, now=0.0, wants_value=True)
    junk = set(everybody[12:]) | ({everybody[0]} - {everybody[honest]})
    run(lookup, lambda key: [], ranks=ranks, junk=junk, dice=random.Random(seed))
    assert lookup.best == b"\x03young"


def test_a_miss_asks_all_of_the_closest():
    everybody = people(2, 40)
    lookup = Lookup(0, [contact(k) for k in everybody], own=OWN, now=0.0, wants_value=True)
    assert run(lookup, lambda key: []) == 20
    assert lookup.outcome is Outcome.MISS


def test_what_is_known_already_only_has_to_be_confirmed():
    everybody = people(2, 40)
    start = [contact(k) for k in everybody]
    lookup = Lookup(0, start, own=OWN, now=0.0, wants_value=True, best=b"\x03mine")
    assert run(lookup, lambda key: [], ranks=dict.fromkeys(everybody, b"\x03mine")) == READ_QUORUM
    lookup = Lookup(0, start, own=OWN, now=0.0, wants_value=True, best=b"\x03mine")
    assert run(lookup, lambda key: []) == 20
    assert lookup.best == b"\x03mine"


def test_settling_ends_a_search_for_places_early():
    everybody, knows = world(4, 60)
    start = [contact(k) for k in everybody]
    lookup = Lookup(0, start, own=OWN, now=0.0, settle=3)
    assert run(lookup, knows) <= 6
    nearest = sorted(everybody, key=id_of)[:20]
    assert [c.public for c in lookup.closest()] == nearest

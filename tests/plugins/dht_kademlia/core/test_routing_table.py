"""k-buckets: newcomers enter, the dead leave, and the closest are the closest."""

import random

from hypothesis import given
from hypothesis import strategies as st

from dht_kademlia.core.contacts import clean_contact, id_of
from dht_kademlia.core.routing_table import ID_BITS, SLACK, K, RoutingTable
from skycore.model.addresses import Address, Contact

HERE = (Address("stcpr", "192.0.2.1:7777"),)


def keys(seed, count):
    dice = random.Random(seed)
    return [dice.randbytes(32) for _ in range(count)]


def in_bucket(own, bucket, count):
    """Return keys whose ids fall into one bucket of `own`."""
    dice, found = random.Random(1), []
    while len(found) < count:
        key = dice.randbytes(32)
        if (id_of(key) ^ id_of(own)).bit_length() - 1 == bucket:
            found.append(key)
    return found


@given(st.integers(0, 2**32), st.integers(0, 400), st.integers(0, 2**256 - 1), st.integers(1, 40))
def test_closest_are_the_closest_of_all_that_are_held(seed, count, target, wanted):
    own, *others = keys(seed, count + 1)
    table = RoutingTable(own)
    for key in others:
        table.seen(key, HERE, 0.0)
    held = sorted((e.contact.public for e in table), key=lambda k: id_of(k) ^ target)
    assert [e.contact.public for e in table.closest(target, wanted)] == held[:wanted]
    nearer = sum(id_of(k) ^ target < id_of(own) ^ target for k in held)
    assert table.closer_than_self(target) == nearer
    assert table.is_near(target) == (nearer < K + SLACK)


@given(st.lists(st.tuples(st.integers(0, 120), st.sampled_from("sfr")), max_size=300))
def test_bounded_and_counted_whatever_happens(steps):
    own, *others = keys(7, 122)
    table = RoutingTable(own)
    for now, (which, what) in enumerate(steps):
        key = others[which]
        if what == "s":
            table.seen(key, HERE, float(now))
        elif what == "f":
            table.failed(key)
        else:
            table.remove(key)
    entries = list(table)
    assert len(table) == len(entries) == len({e.contact.public for e in entries})
    buckets = [table.bucket_of(e.contact.public) for e in entries]
    assert all(buckets.count(b) <= K for b in set(buckets))


def test_c39_o08_twenty_dead_peers_make_room_for_five_live_ones():
    own = keys(0, 1)[0]
    dead, live = in_bucket(own, 255, 20), in_bucket(own, 255, 25)[20:]
    table = RoutingTable(own)
    for key in dead:
        table.seen(key, HERE, 0.0)
    pinged = []
    for key in live:
        to_ping = table.seen(key, HERE, 60.0)
        if to_ping:  # the ping of a dead peer fails
            pinged.append(to_ping.contact.public)
            assert table.failed(to_ping.contact.public)
    assert pinged == dead[:5]
    assert all(key in table for key in live)


def test_a_live_contact_is_not_evicted_for_a_newcomer():
    own = keys(0, 1)[0]
    settled, newcomer = in_bucket(own, 255, 20), in_bucket(own, 255, 21)[20]
    table = RoutingTable(own)
    for key in settled:
        table.seen(key, HERE, 0.0)
    assert table.seen(newcomer, HERE, 1.0) is None  # all of them spoke just now
    to_ping = table.seen(newcomer, HERE, 60.0)
    assert to_ping is not None and to_ping.contact.public == settled[0]
    table.seen(settled[0], HERE, 61.0)  # it answers
    assert newcomer not in table
    assert table.unseen(1.0, 99)[0].contact.public == settled[1]
    # and when one leaves, whoever waited moves in
    table.remove(settled[3])
    assert newcomer in table


def test_c39_the_dead_leave_in_two_checks():
    own, peer = keys(3, 2)
    table = RoutingTable(own)
    table.seen(peer, HERE, 0.0)
    assert not table.failed(peer)
    assert table.closest(0, live=True) == []  # told to nobody from the first failure on
    assert table.failed(peer)
    assert len(table) == 0


def test_c4_a_stranger_without_an_address_does_not_enter():
    own, peer = keys(3, 2)
    table = RoutingTable(own)
    table.seen(peer, (), 0.0)
    table.seen(own, HERE, 0.0)
    assert len(table) == 0


@given(st.integers(0, ID_BITS - 1), st.integers(0, 2**256 - 1))
def test_a_refresh_target_falls_into_its_bucket(bucket, noise):
    table = RoutingTable(keys(1, 1)[0])
    assert (table.target_in(bucket, noise) ^ table.own_id).bit_length() - 1 == bucket


def test_stale_buckets_are_those_without_a_lookup():
    own, peer = keys(3, 2)
    table = RoutingTable(own)
    table.seen(peer, HERE, 0.0)
    every = list(range(table.bucket_of(peer), ID_BITS))
    assert table.stale(10.0) == every  # empty ones too: they may be empty by mistake
    table.refreshed(id_of(peer), 11.0)
    assert table.stale(11.0) == every[1:]
    assert table.stale(12.0) == [*every[1:], every[0]]


def test_an_empty_bucket_is_looked_into_again_after_ever_longer_pauses():
    own = keys(3, 1)[0]
    table = RoutingTable(own)
    (peer,) = in_bucket(own, ID_BITS - 3, 1)
    table.seen(peer, HERE, 0.0)
    looks = []
    for now in range(30, 2_000, 30):
        for bucket in table.overdue(0.0, now):
            table.refreshed(table.target_in(bucket, 0), now)
            looks.append((now, bucket))
    assert {bucket for _, bucket in looks} == {ID_BITS - 2, ID_BITS - 1}
    assert [now for now, bucket in looks if bucket == ID_BITS - 1] == [
        *(30, 60, 120, 240, 480, 960, 1_920)
    ]
    (other,) = in_bucket(own, ID_BITS - 1, 1)
    table.seen(other, HERE, 0.0)
    assert table.overdue(0.0, 1e9) == [ID_BITS - 2]


def test_those_beyond_a_bucket_come_nearest_bucket_first():
    own = keys(3, 1)[0]
    table = RoutingTable(own)
    for bucket in (255, 253, 252, 250):
        for key in in_bucket(own, bucket, 2):
            table.seen(key, HERE, 0.0)
    found = [table.bucket_of(e.contact.public) for e in table.beyond(252)]
    assert found == [253, 253, 255, 255]
    assert table.is_empty(251) and not table.is_empty(252)


def test_d24_contacts_that_nobody_should_dial():
    def cleaned(*endpoints, from_global=False, key=bytes(32)):
        contact = Contact(key, tuple(Address("stcpr", e) for e in endpoints))
        left = clean_contact(contact, 32, teller_is_global=from_global)
        return [a.endpoint for a in left.addresses] if left else None

    assert cleaned("8.8.8.8:0", "224.0.0.1:7777", "0.0.0.0:1", "nothing:x", ":77") is None
    assert cleaned("127.0.0.1:7777", "10.0.0.1:7777") == ["127.0.0.1:7777", "10.0.0.1:7777"]
    assert cleaned("127.0.0.1:7777", "8.8.8.8:7777", from_global=True) == ["8.8.8.8:7777"]
    assert cleaned("[2606:4700::1]:80", "node.example:80") is not None
    assert cleaned(*["8.8.8.8:80"] * 9) is None
    assert cleaned("8.8.8.8:80", key=bytes(33)) is None
    assert cleaned("x" * 261 + ":80") is None


def test_c41_full_nodes_are_those_that_said_so_and_answer():
    table = RoutingTable(bytes(32))
    keys = [bytes([n + 1]) * 32 for n in range(6)]
    for n, key in enumerate(keys):
        table.seen(key, HERE, float(n), "full" if n % 2 else "regular")
    table.seen(keys[0], HERE, 9.0, "full")
    table.seen(keys[1], HERE, 9.0, "regular")
    table.seen(keys[3], HERE, 9.0)
    table.failed(keys[5])
    assert {e.contact.public for e in table.full_nodes()} == {keys[0], keys[3]}
    for _ in range(3):
        table.failed(keys[0])
    table.remove(keys[3])
    table.seen(keys[5], HERE, 10.0)
    assert {e.contact.public for e in table.full_nodes()} == {keys[5]}


@given(st.lists(st.tuples(st.integers(0, 60), st.sampled_from(["seen", "failed", "remove"]))))
def test_counts_of_the_living_are_those_of_the_entries(steps):
    table, everybody = RoutingTable(bytes(32), k=3), keys(60, 61)
    for n, (which, what) in enumerate(steps):
        key = everybody[which]
        if what == "seen":
            table.seen(key, HERE, float(n))
        else:
            getattr(table, what)(key)
        target = id_of(everybody[n % 61])
        nearer = [e for e in table if not e.failures and e.id ^ target < table.own_id ^ target]
        assert table.closer_than_self(target) == len(nearer)

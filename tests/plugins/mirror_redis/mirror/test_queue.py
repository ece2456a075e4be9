"""The queue and the ledger: coalescing, bounds, and nothing lost but bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mirror_redis.mirror_ledger import Ledger
from mirror_redis.mirror_queue import Job, Queue, Ticket
from skycore.contracts.store import ItemKey, PutOutcome
from skycore.model.items import Lease, MutableItem, RankedItem

BYTES_MAX = 4_000


def key(number: int) -> ItemKey:
    return ItemKey(number.to_bytes(32, "big"), 1)


def ranked(number: int, version: int, size: int = 100) -> RankedItem:
    item = MutableItem(b"s", b"s", b"", version, 0, 9, bytes(size))
    rank = version.to_bytes(40, "big")
    return RankedItem(key(number).target, 1, rank, b"%d" % version, item, b"s", 0)


def job(number: int, version: int, since: float = 0.0, size: int = 100, ticket=None) -> Job:
    tickets = (ticket,) if ticket else ()
    if ticket:
        ticket.expect(key(number))
    return Job(key(number), since, ranked(number, version, size), tickets=tickets)


def lease(number: int, version: int) -> Lease:
    return Lease(key(number).target, 1, b"%d" % version, 99)


def test_l22_the_newest_version_waits_in_the_place_of_the_oldest():
    queue, ticket = Queue(BYTES_MAX, 10), Ticket()
    queue.put(job(1, 1, since=5.0, ticket=ticket))
    queue.put(job(2, 1, since=6.0))
    queue.put(job(1, 2, since=7.0))
    assert (len(queue), queue.coalesced, queue.waiting_since) == (2, 1, 5.0)
    assert ticket.done.is_set() and not ticket.outcomes  # it was told that nobody knows
    first, second = queue.take(10, 10**6)
    assert (first.key, first.ranked.item.seq, first.since) == (key(1), 2, 5.0)
    assert second.key == key(2)
    assert queue.bytes == 0 and not queue.news.is_set() and queue.waiting_since is None


def test_l22_what_does_not_fit_is_remembered_by_name():
    queue = Queue(BYTES_MAX, 100)
    for number in range(50):
        queue.put(job(number, 1))
    assert len(queue) == 50 and queue.bytes <= BYTES_MAX
    taken = queue.take(100, 10**6)
    assert [one.key for one in taken] == [key(n) for n in range(50)]
    assert sum(one.ranked is not None for one in taken) == BYTES_MAX // 400
    assert taken[-1].ranked is None and taken[-1].lease is None  # read from our own store


def test_jobs_that_fall_out_are_counted_and_told():
    queue, ticket = Queue(10**6, 3), Ticket()
    queue.put(job(0, 1, ticket=ticket))
    for number in range(1, 5):
        queue.put(job(number, 1))
    assert (len(queue), queue.dropped, ticket.done.is_set()) == (3, 2, True)


def test_a_batch_is_bounded_and_never_empty():
    queue = Queue(10**6, 100)
    for number in range(10):
        queue.put(job(number, 1, size=1_000))
    assert len(queue.take(3, 10**6)) == 3
    assert len(queue.take(10, 3_000)) == 2
    assert len(queue.take(10, 1)) == 1


def test_a_lease_joins_the_item_that_waits():
    queue, ticket = Queue(10**6, 10), Ticket()
    queue.put(job(1, 7))
    ticket.expect(key(1))
    queue.put(Job(key(1), 1.0, lease=lease(1, 7), tickets=(ticket,)))
    [one] = queue.take(10, 10**6)
    assert one.ranked is not None and one.lease == lease(1, 7)
    one.settle(PutOutcome(0))
    assert ticket.outcomes == {key(1): PutOutcome(0)} and one.is_done


def test_a_lease_for_another_version_changes_nothing():
    queue = Queue(10**6, 10)
    queue.put(job(1, 7))
    queue.put(Job(key(1), 1.0, lease=lease(1, 6)))
    [one] = queue.take(10, 10**6)
    assert one.ranked is not None and one.lease is None


def test_what_is_put_back_stands_in_front_and_yields_to_newer():
    queue = Queue(10**6, 10)
    for number in range(3):
        queue.put(job(number, 1, since=float(number)))
    taken = queue.take(2, 10**6)
    queue.put(job(0, 2, since=9.0))
    queue.put_back(taken)
    again = queue.take(10, 10**6)
    assert [one.key for one in again] == [key(0), key(1), key(2)]
    assert [one.ranked.item.seq for one in again] == [2, 1, 1]
    assert again[0].since == 0.0  # Redis is behind since then


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("pptb"), st.integers(1, 900))))
def test_whatever_happens_the_newest_version_of_each_slot_waits_within_bounds(steps):
    queue, version = Queue(BYTES_MAX, 100), 0
    newest: dict[ItemKey, int] = {}
    away: list[Job] = []
    for number, what, size in steps:
        if what == "p":
            version += 1
            queue.put(job(number, version, size=size))
            newest[key(number)] = version
        elif what == "t":
            away += queue.take(2, 2_000)
        else:
            queue.put_back(away)
            away = []
        assert queue.bytes <= BYTES_MAX
    queue.put_back(away)
    waiting = queue.take(100, 10**9)
    assert {one.key for one in waiting} == set(newest)
    for one in waiting:
        assert one.ranked is None or one.ranked.item.seq == newest[one.key]
    assert queue.bytes == 0


def test_the_ledger_wants_the_best_for_the_longest():
    ledger = Ledger(10)
    ledger.note(key(1), b"5", 100)
    ledger.note(key(1), b"4", 900)  # older: what is wanted stays
    ledger.note(key(1), b"5", 50)
    ledger.prolong(key(1), 200)
    ledger.prolong(key(1), 150)
    ledger.prolong(key(2), 150)
    assert list(ledger.parts(10)) == [[(key(1), (b"5", 200))]]
    ledger.note(key(1), b"6", 10)
    assert next(ledger.parts(10))[0][1] == (b"6", 10)
    ledger.end(10)
    assert len(ledger) == 0


def test_the_ledger_is_bounded():
    ledger = Ledger(10)
    for number in range(25):
        ledger.note(key(number), b"1", 100)
    assert (len(ledger), ledger.fallen) == (10, 15)
    assert [len(part) for part in ledger.parts(4)] == [4, 4, 2]
    ledger.forget(key(24))
    ledger.forget(key(0))
    assert len(ledger) == 9

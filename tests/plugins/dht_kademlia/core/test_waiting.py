from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dht_kademlia.core.waiting import Held, Waiting
from skycore.contracts.store import ItemKey

A, B = ItemKey(b"a" * 32, 3), ItemKey(b"b" * 32, 3)


def test_the_newest_of_each_waits_and_a_lease_changes_nothing():
    waiting = Waiting()
    waiting.keep(A, Held(5)).tries = 2
    assert waiting.keep(A, Held(4)).seq == 5
    assert waiting.keep(A, Held(0)).seq == 5
    assert waiting.keep(A, Held(5)).tries == 2
    assert waiting.keep(A, Held(6)).tries == 0
    assert waiting.keep(ItemKey(A.target, 2), Held(1)).seq == 1
    assert len(waiting) == 2


def test_only_what_waits_or_a_newer_one_that_arrived_ends_the_wait():
    waiting = Waiting()
    waiting.keep(A, Held(5))
    waiting.reached(A, 4)
    assert waiting.find(A)
    waiting.reached(A, 5)
    assert not waiting.find(A)
    waiting.keep(B, Held(0))
    waiting.reached(B, 0)
    assert not len(waiting)


def test_what_is_due_comes_oldest_first_and_company_makes_all_of_it_due():
    waiting = Waiting()
    waiting.keep(A, Held(1, None, 3, due_s=20.0))
    waiting.keep(B, Held(1, None, 1, due_s=10.0))
    assert [key for key, _ in waiting.due(15.0, 9)] == [B]
    assert [key for key, _ in waiting.due(20.0, 9)] == [A, B]
    waiting.all_due()
    assert [key for key, _ in waiting.due(0.0, 1)] == [A]
    assert waiting.find(A).tries == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5))))
def test_its_bound_holds_whatever_is_put(puts):
    waiting = Waiting(4)
    for number, seq in puts:
        waiting.keep(ItemKey(bytes((number,)), 3), Held(seq))
        assert len(waiting.due(0.0, 99)) == len(waiting) <= 4

"""Placing an item: quorum, stand-ins, and the truth."""

from dht_kademlia.core.budget import PEERS_MAX, Budget
from dht_kademlia.core.messages import ErrorCode
from dht_kademlia.core.placement import GRACE_S, Placement
from skycore.contracts.dht import Replica
from skycore.model.addresses import Contact


def contacts(count):
    return [Contact(bytes([n])) for n in range(count)]


def test_c44_five_silent_of_twenty_cost_the_grace_and_no_more():
    placement = Placement(contacts(20), now=0.0, limit_s=10.0)
    asked = placement.next()
    assert len(asked) == 20
    for contact in asked[:15]:
        placement.answered(Replica(contact.public, 0), 0.1)
    assert not placement.done(0.1)
    assert placement.wake_s() == 0.1 + GRACE_S
    assert placement.done(0.1 + GRACE_S)
    replicas = placement.replicas()
    assert sum(r.code == 0 for r in replicas) == 15
    assert sum(r.code == ErrorCode.NO_ANSWER for r in replicas) == 5


def test_without_a_majority_it_waits_for_the_answers():
    placement = Placement(contacts(20), now=0.0, limit_s=10.0)
    for contact in placement.next()[:10]:
        placement.answered(Replica(contact.public, 0), 0.1)
    assert not placement.done(9.9)
    assert placement.done(10.0)


def test_the_next_closest_stands_in_for_one_that_fails():
    placement = Placement(contacts(22), now=0.0, limit_s=10.0)
    first = placement.next()
    placement.failed(first[0].public, "gone")
    assert [c.public for c in placement.next()] == [bytes([20])]
    for contact in (*first[1:], contacts(22)[20]):
        placement.answered(Replica(contact.public, 0), 0.2)
    assert placement.done(0.2)
    codes = {r.peer: r.code for r in placement.replicas()}
    assert codes[bytes([0])] == ErrorCode.NO_ANSWER
    assert codes[bytes([20])] == 0


def test_c15_a_refusal_is_an_answer_and_no_replica():
    placement = Placement(contacts(1), now=0.0, limit_s=10.0)
    (only,) = placement.next()
    placement.answered(Replica(only.public, 302, 7, "newer here"), 0.1)
    assert placement.done(0.1)
    assert placement.replicas() == (Replica(only.public, 302, 7, "newer here"),)


def test_nobody_to_ask_is_over_at_once():
    placement = Placement([], now=0.0, limit_s=10.0)
    assert placement.next() == []
    assert placement.done(0.0)
    assert placement.replicas() == ()


def test_g1_a_byte_budget_fills_up_again():
    budget = Budget(1_000, burst_s=2.0)
    assert budget.wait_s(b"a", 0.0) == 0.0
    budget.spend(b"a", 5_000, 0.0)
    assert budget.wait_s(b"a", 0.0) == 3.0
    assert budget.wait_s(b"b", 0.0) == 0.0
    assert budget.wait_s(b"a", 3.0) == 0.0


def test_budgets_are_bounded():
    budget = Budget(1_000)
    for n in range(PEERS_MAX + 50):
        budget.spend(n.to_bytes(4, "big"), 1, 0.0)
    assert len(budget._left) == PEERS_MAX

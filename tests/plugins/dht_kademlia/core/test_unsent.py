"""Answers that nobody reads: bounded, and the greediest loses."""

from __future__ import annotations

import random

from dht_kademlia.core.unsent import Unsent


def test_f11_the_peer_that_holds_most_loses_its_oldest_answer():
    held = Unsent(100)
    assert held.add("a1", b"a", 30) == held.add("a2", b"a", 30) == held.add("b1", b"b", 30) == []
    assert held.add("b2", b"b", 5) == []
    assert held.add("c1", b"c", 20) == ["a1"]
    assert held.bytes == 85


def test_one_answer_is_always_possible():
    held = Unsent(100)
    assert held.add("a1", b"a", 500) == []
    assert held.add("b1", b"b", 500) == ["a1"]
    held.remove("b1")
    held.remove("b1")
    assert held.bytes == 0


def test_bounded_and_empty_in_the_end_whatever_happens():
    for seed in range(50):
        dice = random.Random(seed)
        held, live = Unsent(1_000), set()
        for sender in range(200):
            size = dice.randint(1, 300)
            live.add(sender)
            live -= set(held.add(sender, bytes([dice.randint(0, 5)]), size))
            assert held.bytes <= 1_000, f"seed {seed}"
            for done in dice.sample(sorted(live), dice.randint(0, min(2, len(live)))):
                held.remove(done)
                live.discard(done)
        for sender in live:
            held.remove(sender)
        assert held.bytes == 0, f"seed {seed}"

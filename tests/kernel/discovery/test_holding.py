"""Who is held back, and until when."""

from __future__ import annotations

from skycore.discovery.holding import HELD_S, Holding
from skycore.testing.fakes import FakeClock

GONE = {bytes([n]) for n in range(60)}
FEW = set(sorted(GONE)[:3])


def test_what_is_held_is_held_until_nobody_is_gone() -> None:
    holding = Holding(FakeClock(), "sd")
    assert not holding.held(FEW, 0)  # a few may well leave together
    assert not holding.held(GONE, 60)  # not most of them
    assert holding.held(GONE, 59) == GONE
    assert holding.held(FEW, 1_000) == FEW
    assert not holding.held(set(), 1_000)
    assert not holding.held(FEW, 1_000)


def test_or_until_a_time() -> None:
    clock = FakeClock()
    holding = Holding(clock, "sd")
    assert holding.held(GONE, 0) == GONE
    clock.advance(HELD_S - 1)
    assert holding.held(GONE, 0) == GONE
    clock.advance(1)
    assert not holding.held(GONE, 0)
    assert not holding.held(FEW, 0)

from __future__ import annotations

from streams_vstream.core.budget import Allowance


def test_a_burst_then_a_rate_then_a_burst_again():
    allowance = Allowance(10, 2.0)
    assert [allowance.spend(100.0) for _ in range(12)].count(True) == 10
    assert [allowance.spend(101.0) for _ in range(4)] == [True, True, False, False]
    assert [allowance.spend(1_000.0) for _ in range(12)].count(True) == 10


def test_a_clock_that_steps_back_gives_nothing():
    allowance = Allowance(1, 1.0)
    assert allowance.spend(50.0)
    assert not allowance.spend(50.0)
    assert not allowance.spend(10.0)

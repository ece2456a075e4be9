"""The seams of a simulated node, and traces."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.testing.fakes import START_NS
from skycore.testing.loop import simulate
from skycore.testing.seams import SimClock, SimFiles, derived_entropy
from skycore.testing.trace import Dice, Trace, first_difference


def test_a_clock_may_jump_and_drift_while_intervals_stay_true():
    async def main():
        clock = SimClock()
        assert (clock.now(), clock.wall_ns()) == (0.0, START_NS)
        await anyio.sleep(100)
        assert clock.now() == pytest.approx(100)
        assert clock.wall_ns() == pytest.approx(START_NS + 100e9, abs=10)
        clock.drift_ppm = 1_000
        await anyio.sleep(1_000)
        assert clock.wall_ns() - START_NS == pytest.approx(1_101e9, abs=10)
        clock.drift_ppm = 0
        await anyio.sleep(1_000)
        assert clock.wall_ns() - START_NS == pytest.approx(2_101e9, abs=10)
        clock.offset_s = -3_600
        assert clock.wall_s() == START_NS // 10**9 + 2_101 - 3_600
        assert clock.now() == pytest.approx(2_100)

    simulate(main)


def test_a_dead_process_writes_nothing_and_the_disk_outlives_it():
    disk = {}
    first = SimFiles(disk)
    first.write("table", b"kept")
    first.is_dead = True
    first.write("table", b"lost")
    first.write("other", b"lost")
    second = SimFiles(disk)
    assert second.read("table") == b"kept"
    assert second.read("other") is None
    assert second.path("table") is None


def test_entropy_follows_its_name():
    assert derived_entropy(1, "node", 2).bytes(8) == derived_entropy(1, "node", 2).bytes(8)
    drawn = {derived_entropy(*name).bytes(8) for name in [(1, 2), (1, 3), (2, 2), (12,)]}
    assert len(drawn) == 4


@given(st.lists(st.text(max_size=5)))
def test_dice_are_even_enough_and_repeat(names):
    dice, same = Dice(*names), Dice(*names)
    drawn = [dice.random() for _ in range(200)]
    assert drawn == [same.random() for _ in range(200)]
    assert all(0 <= x < 1 for x in drawn)
    assert 0.3 < sum(drawn) / 200 < 0.7


def test_traces_tell_runs_apart_and_where_they_part():
    one, other = Trace(keep_max=3), Trace(keep_max=3)
    for line in ("a", "b", "c", "d"):
        one.note(line)
        other.note(line)
    assert one.digest == other.digest
    assert list(one.kept) == ["b", "c", "d"]
    assert first_difference(one.kept, other.kept) == ""
    one.note("e")
    other.note("f")
    assert one.digest != other.digest
    assert first_difference(one.kept, other.kept) == "line 2:\n  e\n  f"
    assert "ends" in first_difference(["a"], ["a", "b"])
    assert (one.count, Trace().kept.maxlen) == (5, 0)

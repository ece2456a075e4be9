"""Each subject once, the oldest first, nothing lost, nothing done for ever in vain."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from skycore.discovery.backlog import Backlog
from skycore.testing import sim_backend
from skycore.testing.fakes import FakeClock
from skycore.testing.seams import SimClock


@pytest.fixture
def anyio_backend():
    return sim_backend()


async def test_what_rests_comes_back_by_itself():
    backlog = Backlog(SimClock())
    backlog.add([b"a", b"b"])
    backlog.take(b"a")
    backlog.take(b"b")
    backlog.done(b"a")
    backlog.rest(30)
    assert not backlog.waiting() and len(backlog) == 1 and b"b" in backlog
    began = anyio.current_time()
    await backlog.some()
    assert anyio.current_time() - began == pytest.approx(30)
    assert tuple(backlog.waiting()) == (b"b",) and backlog.lag_s == pytest.approx(30)


async def test_a_change_ends_the_rest():
    backlog = Backlog(SimClock())
    backlog.add([b"a"])
    backlog.take(b"a")
    backlog.rest(1_000)
    backlog.add([b"a"])
    with anyio.fail_after(1):
        await backlog.some()


class Machine(RuleBasedStateMachine):
    """Compared with sets."""

    def __init__(self):
        super().__init__()
        self.clock = FakeClock()
        self.backlog = Backlog(self.clock)
        self.open, self.taken = set(), set()

    @rule(subjects=st.sets(st.sampled_from([b"a", b"b", b"c", b"d"])))
    def add(self, subjects):
        self.backlog.add(subjects)
        self.open |= subjects

    @rule()
    def take(self):
        for subject in tuple(self.backlog.waiting())[:2]:
            self.backlog.take(subject)
            self.taken.add(subject)
            self.open.discard(subject)

    @rule(data=st.data())
    def done(self, data):
        if self.taken:
            subject = data.draw(st.sampled_from(sorted(self.taken)))
            self.backlog.done(subject)
            self.taken.discard(subject)

    @rule()
    def put_back(self):
        self.backlog.put_back()
        self.open |= self.taken
        self.taken = set()

    @rule()
    def rest(self):
        self.backlog.rest(10)
        self.open |= self.taken
        self.taken = set()

    @invariant()
    def nothing_is_lost(self):
        assert len(self.backlog) == len(self.open | self.taken)
        assert all(subject in self.backlog for subject in self.open | self.taken)
        assert set(self.backlog.waiting()) <= self.open
        assert self.backlog.taken == len(self.taken)


TestMachine = Machine.TestCase

"""The hand-over as a function of evidence and time: never without full proof, never too late."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from discovery_transport.client.core.handover import Evidence, Limits, judge

LIMITS = Limits()
WHOLE = Evidence(
    version=3,
    count=2,
    published_version=3,
    seq=7,
    read_seq=7,
    read_at=100.0,
    holders=2,
    ends_at=400.0,
    checked_version=3,
    checked_at=90.0,
)
times = st.just(-math.inf) | st.floats(-10_000, 10_000)
few = st.integers(-1, 4)
evidence = st.builds(
    Evidence,
    version=few,
    count=st.integers(0, 3),
    published_version=few,
    seq=st.integers(0, 3),
    read_seq=st.integers(0, 3),
    read_at=times,
    holders=st.integers(0, 3),
    ends_at=times,
    checked_version=few,
    checked_at=times,
)


def test_nothing_seen_is_nothing_proven():
    assert not judge(Evidence(), LIMITS, 0.0).is_handed_over


def test_full_proof_hands_over():
    assert judge(WHOLE, LIMITS, 110.0) == (True, "", False)


@pytest.mark.parametrize(
    ("lacking", "why"),
    [
        ({"count": 0}, "nothing to hand over"),
        ({"seq": 0}, "not published"),
        ({"published_version": 2}, "not published"),
        ({"version": 4}, "not published"),
        ({"read_seq": 6}, "not been read back"),
        ({"read_at": 19.0}, "too long ago"),
        ({"holders": 1}, "1 of 2 full nodes"),
        ({"ends_at": 169.0}, "ends soon"),
        ({"checked_version": 2}, "not been seen to list"),
        ({"checked_at": -500.0}, "too long ago"),
    ],
)
def test_each_piece_of_proof_is_needed(lacking, why):
    verdict = judge(msgspec.structs.replace(WHOLE, **lacking), LIMITS, 110.0)
    assert not verdict.is_handed_over and why in verdict.why


def test_the_service_is_asked_only_once_the_dht_side_is_proven():
    asks = msgspec.structs.replace(WHOLE, checked_version=-1)
    assert judge(asks, LIMITS, 110.0).check_due
    assert not judge(msgspec.structs.replace(asks, holders=1), LIMITS, 110.0).check_due


def test_the_service_is_asked_again_in_time():
    later = msgspec.structs.replace(WHOLE, read_at=570.0, ends_at=900.0)
    assert judge(later, LIMITS, 569.9) == (True, "", False)
    assert judge(later, LIMITS, 570.0) == (True, "", True)
    assert judge(later, LIMITS, 660.0).is_handed_over
    much_later = msgspec.structs.replace(WHOLE, read_at=660.0, ends_at=900.0)
    assert not judge(much_later, LIMITS, 660.1).is_handed_over


@given(evidence, times.filter(math.isfinite))
def test_never_handed_over_without_full_proof(seen, now):
    verdict = judge(seen, LIMITS, now)
    if not verdict.is_handed_over:
        assert verdict.why
        return
    assert seen.count > 0 and seen.seq > 0
    assert seen.published_version == seen.checked_version == seen.version
    assert seen.read_seq == seen.seq and seen.holders >= 2
    assert now - seen.read_at <= LIMITS.read_age_max_s
    assert seen.ends_at - now >= LIMITS.rest_min_s
    assert now - seen.checked_at <= LIMITS.check_s + LIMITS.check_late_s


@given(evidence, times.filter(math.isfinite), st.floats(0, 5_000))
def test_time_alone_never_proves_anything(seen, now, more):
    if judge(seen, LIMITS, now + more).is_handed_over:
        early = now < max(seen.read_at, seen.checked_at)
        assert early or judge(seen, LIMITS, now).is_handed_over


@given(evidence, times.filter(math.isfinite))
def test_it_is_taken_back_a_minute_before_the_record_can_end(seen, now):
    """Whatever is seen no more: proof runs out while the record still lives."""
    if judge(seen, LIMITS, now).is_handed_over:
        assert not judge(seen, LIMITS, seen.ends_at - LIMITS.rest_min_s + 0.001).is_handed_over
        assert not judge(seen, LIMITS, seen.read_at + LIMITS.read_age_max_s + 0.001).is_handed_over


class Machine(RuleBasedStateMachine):
    """A network that loses things at any time, and a service beside it.

    What must hold: while the DHT carries, the service lists everything, or would go on listing it
    for as long as it takes to find out and register.
    """

    LIFE_S = 300.0
    BROKEN_S = 600.0
    """For so long a service keeps what it took and cannot read anew."""

    def __init__(self):
        super().__init__()
        self.now, self.version, self.seq = 0.0, 1, 0
        self.seen = Evidence(version=1, count=2)
        self.ends_at = -math.inf
        self.holders = 0
        self.is_taking = True
        self.taken_until, self.taken_version = -math.inf, 0
        self.told_until, self.told_version = -math.inf, 0

    def note(self, **seen):
        self.seen = msgspec.structs.replace(self.seen, **seen)

    @property
    def carried_by_dht(self):
        return judge(self.seen, LIMITS, self.now).is_handed_over

    def lists_all(self, at):
        by_http = self.told_version == self.version and self.told_until >= at
        by_dht = self.taken_version == self.version and self.taken_until >= at
        return by_http or by_dht

    @rule(seconds=st.sampled_from([5.0, 30.0, 60.0]))
    def pass_time(self, seconds):
        for _ in range(int(seconds / 5)):
            self.now += 5.0
            if not self.carried_by_dht:
                self.tell()
            if self.is_taking and self.holders:
                self.taken_until, self.taken_version = self.ends_at, self.record_version
            assert not self.carried_by_dht or self.lists_all(self.now), "vanished"

    def tell(self):
        self.told_until, self.told_version = self.now + self.LIFE_S, self.version

    @rule()
    def change_list(self):
        self.version += 1
        self.note(version=self.version)

    @rule(holders=st.integers(0, 3))
    def publish_and_read_back(self, holders):
        self.seq += 1
        self.record_version, self.holders = self.version, holders
        self.ends_at = self.now + self.LIFE_S
        self.note(published_version=self.version, seq=self.seq)
        self.note(read_seq=self.seq, read_at=self.now, holders=holders, ends_at=self.ends_at)

    @rule()
    def publish_fails(self):
        self.note(seq=0)

    @precondition(lambda self: judge(self.seen, LIMITS, self.now).check_due)
    @rule()
    def check(self):
        if self.is_taking and self.holders:
            self.taken_until, self.taken_version = self.ends_at, self.record_version
        ok = self.is_taking and self.taken_version == self.version and self.lists_all(self.now)
        if ok:
            self.note(checked_version=self.version, checked_at=self.now)
        else:
            self.note(checked_version=-1)

    @rule()
    def the_service_loses_the_dht(self):
        if self.is_taking:
            self.is_taking = False
            if self.taken_until >= self.now:
                self.taken_until = max(self.taken_until, self.now + self.BROKEN_S)

    @rule()
    def the_service_finds_the_dht(self):
        self.is_taking = True

    @invariant()
    def nothing_vanishes(self):
        assert not self.carried_by_dht or self.lists_all(self.now)


TestMachine = Machine.TestCase

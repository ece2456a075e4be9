"""The corrected clock and the votes that correct it."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.guards.clock import (
    OFF_MAX_S,
    VOTE_AGE_S,
    VOTES_MAX,
    CorrectedClock,
    Votes,
    is_plausible,
)
from skycore.testing.fakes import START_NS, FakeClock

NS = 10**9
DAY_S = 86_400
YEARS_54_S = 54 * 365 * DAY_S
HONEST_S = 30
"""How far off the peers are that we call honest."""


class Node:
    """A clock, its votes, and the true time to compare with."""

    def __init__(self, off_s: float = 0.0) -> None:
        self.own = FakeClock()
        self.own.wall_offset_s = off_s
        self.clock = CorrectedClock(self.own)
        self.votes = Votes()

    @property
    def truth_ns(self) -> int:
        return START_NS + round(self.own.now() * NS)

    @property
    def error_s(self) -> float:
        return (self.clock.wall_ns() - self.truth_ns) / NS

    def hear(self, key: object, off_s: float = 0.0, *, dialled: bool = True) -> None:
        said_ns = self.truth_ns + round(off_s * NS)
        self.votes.add(str(key).encode(), said_ns, self.own.now(), dialled=dialled)
        self.clock.verdict = self.votes.verdict()

    def forget(self, linked: str = "") -> None:
        self.votes.look_after(self.own.now(), lambda key: key.decode() in linked.split())
        self.clock.verdict = self.votes.verdict()


def test_alone_it_is_the_machines_clock():
    node = Node(off_s=YEARS_54_S)
    assert node.error_s == YEARS_54_S
    assert node.clock.now() == node.own.now()
    assert node.clock.wall_s() == node.own.wall_s()


def test_c13_two_peers_are_not_enough_three_are():
    node = Node(off_s=-YEARS_54_S)
    node.hear("a")
    node.hear("a")
    node.hear("b")
    assert node.error_s == -YEARS_54_S
    node.hear("c")
    assert node.error_s == 0
    assert node.clock.gap_ns == node.clock.correction_ns == YEARS_54_S * NS


@pytest.mark.parametrize("way", [-1, 1])
def test_up_to_five_minutes_off_we_are_believed(way):
    node = Node(off_s=way * OFF_MAX_S)
    for key in "abc":
        node.hear(key)
    assert node.error_s == way * OFF_MAX_S
    assert node.clock.correction_ns == 0
    assert node.clock.gap_ns == -way * OFF_MAX_S * NS
    node.own.wall_offset_s += way
    assert node.error_s == 0


def test_where_peers_are_evenly_divided_our_own_clock_decides():
    for off_s in (0, DAY_S, -DAY_S, DAY_S / 2):
        node = Node(off_s=off_s)
        for key, said_s in enumerate((0, 0, DAY_S, DAY_S)):
            node.hear(key, said_s)
        assert node.error_s == max(0, off_s)


def test_the_newest_word_of_a_key_counts_whatever_the_order():
    node = Node(off_s=DAY_S)
    for key in "abc":
        node.hear(key, DAY_S)
    node.own.advance(60)
    for key in "ab":
        node.hear(key, 0)
    assert node.error_s == 0
    node.votes.add(b"a", START_NS + DAY_S * NS, 10.0, dialled=True)  # an old link, told late
    node.clock.verdict = node.votes.verdict()
    assert node.error_s == 0


def test_strangers_who_dial_us_move_nothing_once_three_are_ours():
    node = Node()
    for key in "abc":
        node.hear(key)
    for key in range(1_000):
        node.hear(key, DAY_S, dialled=False)
    assert node.error_s == 0


def test_strangers_count_while_fewer_than_three_are_ours():
    node = Node(off_s=-YEARS_54_S)
    node.hear("a")
    node.hear("b", dialled=False)
    node.hear("c", dialled=False)
    assert node.error_s == 0


def test_a_key_that_we_once_dialled_stays_ours_when_it_dials_us():
    node = Node(off_s=DAY_S)
    for key in "abc":
        node.hear(key)
    for key in "abc":
        node.hear(key, dialled=False)
    for key in range(100):
        node.hear(key, DAY_S, dialled=False)
    assert node.error_s == 0


def test_memory_is_bounded_and_the_oldest_word_goes_first():
    node = Node()
    for key in range(500):
        node.own.advance(1)
        node.hear(("ours", key), dialled=True)
        node.hear(("theirs", key), dialled=False)
    assert len(node.votes) == 2 * VOTES_MAX
    assert node.clock.verdict.peers == VOTES_MAX
    for key in range(500, 500 + VOTES_MAX):  # the last 32 alone decide
        node.own.advance(1)
        node.hear(("ours", key), DAY_S)
    assert node.error_s == DAY_S


def test_after_some_hours_a_peer_is_forgotten_unless_it_is_still_linked():
    node = Node(off_s=DAY_S)
    for key in "abcd":
        node.hear(key)
    node.forget(linked="a b c")
    node.own.advance(VOTE_AGE_S + 1)
    node.forget(linked="a b c")
    assert node.error_s == 0
    assert len(node.votes) == 3
    node.own.advance(VOTE_AGE_S - 1)  # all three links were lost just now
    node.forget()
    assert node.error_s == 0
    node.own.advance(2)
    node.forget()
    assert node.error_s == DAY_S
    assert len(node.votes) == 0


@pytest.mark.parametrize("year_s", [0, 1_700_000_000, 7_300_000_000])
def test_what_cannot_be_the_time_is_no_vote(year_s):
    """Three devices that booted together in 1970 must not agree on it, nor drag others there."""
    assert not is_plausible(year_s * NS)
    node = Node(off_s=-YEARS_54_S)
    for key in "abc":
        node.votes.add(key.encode(), year_s * NS, 0.0, dialled=True)
    assert len(node.votes) == 0
    assert node.votes.verdict() is None


def test_c13_a_jump_of_our_clock_is_seen_through_at_once():
    node = Node()
    for key in "abc":
        node.hear(key)
    for jump_s in (DAY_S, -2 * DAY_S, YEARS_54_S, -YEARS_54_S, 299):
        node.own.wall_offset_s = jump_s
        node.own.advance(60)
        assert node.error_s == (jump_s if abs(jump_s) < OFF_MAX_S else 0)


def test_after_a_pause_of_the_machine_three_new_words_are_enough():
    """A virtual machine that was paused: wall time went on, the monotonic clock stood still."""
    node = Node()
    for key in range(VOTES_MAX):
        node.hear(key)
    paused_at = node.own.now()
    node.own._start_ns += DAY_S * NS
    truth_ns = node.own.wall_ns()
    node.own.advance(5)
    node.votes.jumped(paused_at)
    for key in "abc":
        said_ns = node.own.wall_ns()
        node.votes.add(key.encode(), said_ns, node.own.now(), dialled=True)
        node.clock.verdict = node.votes.verdict()
    assert node.clock.wall_ns() == truth_ns + 5 * NS


# --- for any peers, any liars, any jumps ----------------------------------------------------------

offsets = st.floats(-YEARS_54_S / 3, YEARS_54_S)
plausible = st.floats(-90_000_000, YEARS_54_S)
honest = st.lists(st.floats(-HONEST_S, HONEST_S), min_size=3, max_size=16)


@given(data=st.data(), truthful=honest, own_s=offsets)
def test_a_majority_of_honest_peers_keeps_us_right_whatever_others_say(data, truthful, own_s):
    lies = data.draw(st.lists(offsets, max_size=len(truthful) - 1))
    said = data.draw(st.permutations([("h", s) for s in truthful] + [("l", s) for s in lies]))
    node = Node(off_s=own_s)
    for key, (kind, off_s) in enumerate(said):
        node.hear((kind, key), off_s)
    for _ in range(data.draw(st.integers(0, 5))):
        node.own.wall_offset_s = data.draw(offsets)
        node.own.advance(data.draw(st.floats(0, DAY_S)))
        assert abs(node.error_s) <= OFF_MAX_S + HONEST_S + 1e-3
        if node.clock.correction_ns:
            assert abs(node.error_s) <= HONEST_S + 1e-3


@given(
    truthful=honest,
    strangers=st.lists(offsets, max_size=80),
    own_s=offsets,
    order=st.randoms(use_true_random=False),
)
def test_inbound_peers_have_no_say_once_three_are_ours(truthful, strangers, own_s, order):
    said = [(("o", k), s, True) for k, s in enumerate(truthful)]
    said += [(("i", k), s, False) for k, s in enumerate(strangers)]
    order.shuffle(said)
    with_all, with_ours = Node(own_s), Node(own_s)
    for key, off_s, dialled in said:
        with_all.hear(key, off_s, dialled=dialled)
        if dialled:
            with_ours.hear(key, off_s)
    assert with_all.clock.wall_ns() == with_ours.clock.wall_ns()


@given(said=st.lists(plausible, min_size=3, max_size=VOTES_MAX), own_s=offsets)
def test_the_correction_leads_to_a_middle_vote_or_is_none(said, own_s):
    node = Node(off_s=own_s)
    for key, off_s in enumerate(said):
        node.hear(key, off_s)
    low, high = statistics.median_low(said), statistics.median_high(said)
    wanted = min(max(own_s, low), high)
    wanted = wanted if abs(wanted - own_s) > OFF_MAX_S else own_s
    assert node.error_s == pytest.approx(wanted, abs=1e-5)

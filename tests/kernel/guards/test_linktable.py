"""The rule of one live link, as arithmetic: both sides, every order of arrival."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.errors import TransportError
from skycore.guards.linktable import DRAINING_MAX, LinkTable
from skycore.testing.fakes import FakeClock

SMALL, LARGE = b"a" * 32, b"b" * 32


class Hello:
    def __init__(self, instance_id):
        self.instance_id = instance_id


class Stub:
    """What the table sees of a link, seen from one side."""

    type, host = "plain", ""

    def __init__(self, number, own, remote, dialler, instance_id=b"one", table=None):
        self.number = number
        self.id = "id of the pair" if {own, remote} == {SMALL, LARGE} else remote
        self.remote = remote
        self.dialled = dialler == own
        self.remote_hello = Hello(instance_id)
        self.label = "ephemeral"
        self.peer_keeps = False
        self.drains_since = None
        self.is_silent = self.is_watched = False
        self.opened_at = 0.0
        self.heard_at = self.used_at = 0.0
        self.closed = ""
        self.probed = 0
        self.table = table

    def close(self, reason, *, tell=True):
        if not self.closed:
            self.closed = reason
            self.table.closed(self)

    def strengthen(self, label):
        self.label = max(self.label, label, key=("ephemeral", "automatic", "user").index)

    def probe(self):
        self.probed += 1

    def tick(self, now):
        pass


class Side:
    def __init__(self, own, remote=None, **more):
        self.own, self.remote = own, remote
        self.clock = FakeClock()
        self.ups = []
        settings = {"live_max": 100, "ephemeral_idle_s": 60.0, **more}
        self.table = LinkTable(own, ["plain"], self.clock, on_up=self.ups.append, **settings)

    def admit(self, number, dialler, instance_id=b"one", remote=None):
        link = Stub(number, self.own, remote or self.remote, dialler, instance_id, self.table)
        self.table.admit(link)
        return link

    def live(self):
        (link,) = self.table.live()
        return link


@given(st.permutations(range(2)), st.permutations(range(2)), st.booleans())
def test_t4925_two_crossing_links_have_the_same_winner_in_every_order(one, other, restarted):
    diallers = (SMALL, LARGE)
    for own, remote, order in ((SMALL, LARGE, one), (LARGE, SMALL, other)):
        side = Side(own, remote)
        for number in order:
            side.admit(number, diallers[number])
        assert side.live().number == 0, "the link that the smaller key dialled"
        assert side.live().drains_since is None
        assert side.table.find(remote) is side.live()


@given(st.lists(st.sampled_from((SMALL, LARGE)), min_size=1, max_size=30))
def test_one_live_link_and_few_drain_whatever_comes(diallers):
    side = Side(SMALL, LARGE)
    for number, dialler in enumerate(diallers):
        side.admit(number, dialler)
        still_open = [link for link in side.table.open() if not link.closed]
        assert len(side.table.live()) == 1
        assert len(still_open) <= 1 + DRAINING_MAX
        assert sum(link.drains_since is None for link in still_open) == 1
    own_dials = [n for n, dialler in enumerate(diallers) if dialler == SMALL]
    assert side.live().number == (own_dials or range(len(diallers)))[-1]


def test_of_one_diallers_links_the_newest_wins():
    side = Side(LARGE, SMALL)
    old, new = side.admit(1, SMALL), side.admit(2, SMALL)
    assert side.live() is new and not old.closed and old.drains_since is not None


def test_t3035_from_a_new_instance_the_newest_wins_and_nothing_of_the_old_one_stays():
    for dialler, own in itertools.product((SMALL, LARGE), (SMALL, LARGE)):
        side = Side(own, LARGE if own == SMALL else SMALL)
        side.admit(1, SMALL)
        side.admit(2, LARGE)
        new = side.admit(3, dialler, b"two")
        assert side.live() is new
        assert [link for link in side.table.open() if not link.closed] == [new]
        assert not side.table._draining


def test_the_end_of_an_old_link_does_not_remove_the_new_one():
    side = Side(LARGE, SMALL)
    old = side.admit(1, LARGE)
    new = side.admit(2, SMALL)
    old.close("over")
    side.table.ended(old)
    assert side.live() is new and side.table.find(SMALL) is new


def test_a_winner_is_asked_whether_it_lives_and_a_loser_takes_its_place_if_not():
    side = Side(SMALL, LARGE)
    winner = side.admit(1, SMALL)
    side.clock.advance(1)
    loser = side.admit(2, LARGE)
    assert winner.probed == 1 and side.live() is winner
    side.clock.advance(5)
    side.table.look_after()
    assert not loser.closed, "kept until the winner has been heard"
    winner.close("no answer")
    assert side.live() is loser and loser.drains_since is None
    assert side.ups == [winner, loser]


def test_a_drained_link_ends_once_it_is_idle_and_the_winner_is_proven():
    side = Side(SMALL, LARGE)
    winner, loser = side.admit(1, SMALL), side.admit(2, LARGE)
    side.clock.advance(3)
    winner.heard_at = loser.used_at = side.clock.now()
    side.table.look_after()
    assert not loser.closed
    side.clock.advance(3)
    side.table.look_after()
    assert loser.closed == "another connection took its place"


def test_the_winner_inherits_the_label():
    side = Side(LARGE, SMALL)
    side.admit(1, LARGE).strengthen("user")
    assert side.admit(2, SMALL).label == "user"


def test_bounded_and_the_weakest_makes_room():
    side = Side(SMALL, live_max=3)
    links = [side.admit(n, SMALL, remote=bytes((n,)) * 32) for n in range(3)]
    links[0].strengthen("user")
    links[1].used_at, links[2].used_at = 5.0, 1.0
    side.admit(3, SMALL, remote=b"3" * 32)
    assert links[2].closed == "this node has too many transports"
    for link in side.table.live():
        link.strengthen("automatic")
    with pytest.raises(TransportError, match="3 transports are open"):
        side.admit(4, SMALL, remote=b"4" * 32)
    assert len(side.table.live()) == 3


def test_an_ephemeral_link_is_closed_when_idle_unless_somebody_wants_it():
    side = Side(SMALL)
    idle, wanted, used = (side.admit(n, SMALL, remote=bytes((n,)) * 32) for n in range(3))
    wanted.peer_keeps = True
    side.clock.advance(70)
    used.used_at = 30.0
    side.table.look_after()
    assert idle.closed == "idle for 70 s" and not wanted.closed and not used.closed


def test_u7_nobody_is_given_a_silent_link_and_one_that_drains_stands_in():
    side = Side(LARGE, SMALL)
    kept = side.admit(1, SMALL)
    kept.is_silent = True
    assert side.table.find(SMALL) is None and side.table.live() == [kept]
    beside = side.admit(2, LARGE)  # dialled by the larger key: it drains, by the rule
    assert kept.probed and side.table.live() == [kept]
    assert side.table.find(SMALL) is beside
    kept.is_silent = False
    assert side.table.find(SMALL) is kept and not kept.closed


@pytest.mark.parametrize("own", [LARGE, SMALL])
@pytest.mark.parametrize("dialler", [LARGE, SMALL])
def test_u7_a_watched_link_that_stood_for_long_keeps_its_place_on_both_sides(own, dialler):
    side = Side(own, SMALL if own == LARGE else LARGE)
    kept = side.admit(1, LARGE)
    kept.is_watched, kept.is_silent = True, True
    newcomer = Stub(2, own, side.remote, dialler, table=side.table)
    newcomer.opened_at = 25.0
    side.table.admit(newcomer)
    assert side.table.live() == [kept] and not newcomer.closed
    side.admit(3, dialler, instance_id=b"restarted")
    assert kept.closed == newcomer.closed == "the peer was restarted"

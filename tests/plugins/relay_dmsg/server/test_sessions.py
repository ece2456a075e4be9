"""The table of sessions."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from relay_dmsg.core.messages import Code
from relay_dmsg.server.sessions import Session, Sessions
from skycore.testing.fakes import identity

KEYS = [identity(name).public for name in ("alice", "bob", "carol")]


def session(key, group="10.0.0.1"):
    return Session(key, group, None, 0.0)


def test_3035_the_old_sessions_end_does_not_remove_the_new_one():
    table = Sessions(9, 9)
    old, new = session(KEYS[0]), session(KEYS[0])
    assert table.add(old) is None and table.add(new) is old
    assert not table.remove(old)
    assert table.find(KEYS[0]) is new and len(table) == 1
    assert table.remove(new) and not table.remove(new) and len(table) == 0


def test_limits_and_that_ones_own_old_session_makes_room():
    table = Sessions(2, 1)
    table.add(session(KEYS[0], "10.0.0.1"))
    assert table.why_not(KEYS[1], "10.0.0.1")[0] is Code.LIMIT
    assert table.why_not(KEYS[0], "10.0.0.1") is None
    assert table.why_not(KEYS[1], "") is None
    table.add(session(KEYS[1], "10.0.0.2"))
    assert table.why_not(KEYS[2], "10.0.0.3")[0] is Code.BUSY
    assert table.why_not(KEYS[1], "10.0.0.3") is None


@given(st.lists(st.tuples(st.sampled_from("ad"), st.integers(0, 2), st.integers(0, 5))))
def test_3035_any_order_of_comings_and_goings(steps):
    """A key has a session exactly while its newest one has not ended."""
    table, made, newest = Sessions(99, 99), [], {}
    for what, who, which in steps:
        if what == "a":
            one = session(KEYS[who], f"10.0.0.{which}")
            table.add(one)
            made.append(one)
            newest[KEYS[who]] = one
        elif made:
            gone = made[which % len(made)]
            assert table.remove(gone) is (newest.get(gone.key) is gone)
            if newest.get(gone.key) is gone:
                del newest[gone.key]
        assert {k: table.find(k) for k in KEYS if table.find(k)} == newest
        assert len(table) == len(newest) == sum(table._of_group.values())

"""Sources asked together: none hides another, and what is believed first is always the same."""

from __future__ import annotations

import hashlib
from itertools import permutations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.contracts.discovery import Record
from skycore.discovery.sources import find_all, list_all, merge_sets, rank_records
from skycore.testing import sim_backend
from skycore.testing.seams import SimClock
from skycore.testing.sources import DictSource

NOW_S = 1_800_000_000
SALT = b"tp"


@pytest.fixture
def anyio_backend():
    return sim_backend()


def key(name):
    return hashlib.sha256(name.encode()).digest()


def record(body=("a",), *, as_of=0, source="dht", signer="alice", until_s=NOW_S + 300, of="alice"):
    return Record(
        SALT, key(of), body, as_of, until_s, source, key(signer) if signer is not None else None
    )


def test_signed_by_the_subject_comes_first_then_by_another_then_unsigned():
    own = record(as_of=1)
    mirrored = record(as_of=5, signer="server")
    told = record(as_of=9, signer=None, source="http")
    for mixed in permutations([own, mirrored, told]):
        assert rank_records(mixed, NOW_S) == (own, mirrored, told)


def test_of_one_signature_the_later_word_counts_also_if_it_is_a_deletion():
    behind, grave = record(as_of=1, source="redis"), record(None, as_of=2)
    ranked = rank_records([behind, grave], NOW_S)
    assert [r.body for r in ranked] == [None, None] and ranked[0].as_of_ns == 2
    told = record(as_of=0, signer=None, source="http")
    assert rank_records([behind, grave, told], NOW_S)[0] == told


def test_what_has_ended_is_no_answer():
    (ended,) = rank_records([record(until_s=NOW_S)], NOW_S)
    assert ended.body is None


records = st.lists(
    st.builds(
        record,
        st.sampled_from([None, ("a",), ("b", "c")]),
        as_of=st.integers(0, 4),
        source=st.sampled_from(["dht", "redis", "http"]),
        signer=st.sampled_from(["alice", "server", None]),
        until_s=st.integers(NOW_S - 1, NOW_S + 1),
    ),
    max_size=6,
)


@given(records, st.randoms(use_true_random=False))
def test_the_order_of_the_answers_changes_nothing(held, dice):
    def named(ranked):
        return [(r.body is not None, r.as_of_ns, r.signer) for r in ranked]

    mixed = held[:]
    dice.shuffle(mixed)
    ranked = rank_records(held, NOW_S)
    assert named(ranked) == named(rank_records(mixed, NOW_S))
    assert len(ranked) == len(held)
    alive = [r.body is not None for r in ranked]
    assert alive == sorted(alive, reverse=True)


async def test_c21_slow_lying_broken_and_buggy_sources_hide_nobody():
    clock = SimClock()
    good, slow, liar, down, bug = map(DictSource, ("good", "slow", "liar", "down", "bug"))
    alive = record(as_of=3, until_s=clock.wall_s() + 300)
    good.tell(alive)
    slow.tell(alive)
    slow.delay_s = 3_600
    down.fail("connection refused")

    async def lie(salt, subject):
        return record(as_of=9, of="bob", until_s=clock.wall_s() + 300)

    async def crash(*_):
        raise ZeroDivisionError

    liar.find, bug.find, bug.records = lie, crash, crash
    everybody = [slow, liar, down, bug, good]
    began = anyio.current_time()
    found = await find_all(everybody, SALT, key("alice"), clock, wait_s=2)
    assert anyio.current_time() - began <= 2.1
    assert found.best == alive and found.records == (alive,)
    assert found.failed == {
        "slow": "no answer within 2 s", "down": "connection refused",
        "bug": "internal error (ZeroDivisionError); see the log",
    }  # fmt: skip
    listed = await list_all(everybody, SALT, wait_s=2)
    assert set(listed.by_source) == {"good", "liar"} and len(listed.failed) == 3
    assert listed.is_partial and listed.by_source["good"].records == (alive,)


async def test_only_those_who_know_the_salt_are_asked():
    clock = SimClock()
    one, other = DictSource("one", salts=frozenset({b"svc"})), DictSource("other")
    found = await find_all([one, other], SALT, key("alice"), clock)
    assert (one.asked, other.asked) == (0, 1)
    assert found.best is None and found.records == () and found.failed == {}


async def test_a_deletion_is_known_and_is_no_answer():
    clock, source = SimClock(), DictSource("dht")
    source.tell(record(None, until_s=clock.wall_s() + 300))
    found = await find_all([source], SALT, key("alice"), clock)
    assert found.best is None and len(found.records) == 1


def test_a_union_says_who_lists_what():
    entries = merge_sets(
        [
            record(("ab", "ac"), as_of=1),
            record(("ab",), of="bob", signer="bob", as_of=2, source="redis"),
            record(("ab", "ad"), as_of=7, signer=None, source="http"),
            record(("gone",), of="eve", signer="eve", until_s=NOW_S),
            record(("stale",), as_of=0),  # overtaken by alice's own later word
        ],
        str.encode,
        NOW_S,
    )
    assert [e.key for e in entries] == [b"ab", b"ac", b"ad"]
    both, ac, ad = entries
    assert both.subjects == tuple(sorted([key("alice"), key("bob")]))
    assert both.sources == ("dht", "http", "redis") and both.as_of_ns == 7
    assert both.signers == tuple(sorted([key("alice"), key("bob")]))
    assert ac.sources == ("dht",) and ad.sources == ("http",) and ad.signers == ()

"""Which blocks go: those that lack, once, and to nobody for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht_kademlia.core.crates import SENT_BLOCKS_MAX, Crate, Sent, below, fill
from skycore.errors import RemoteProtocolError
from skycore.model.trie import plant_value, read_manifest

VALUE = b"".join(n.to_bytes(4, "big") for n in range(200_000))
PLANTED = plant_value(VALUE)
TREE, ROOT = PLANTED.blocks, read_manifest(PLANTED.manifest).root
ALL = sum(map(len, TREE.values()))


def ids(tree, blocks):
    by_block = {block: name for name, block in tree.items()}
    return [by_block[block] for block in blocks]


def test_first_go_the_unknown_ones_parents_first_as_far_as_they_fit():
    assert fill(TREE, (), 2 * ALL) == tuple(TREE)
    some = fill(TREE, (), ALL // 2)
    assert some == tuple(TREE)[: len(some)]
    assert sum(len(TREE[name]) for name in some) <= ALL // 2
    known = frozenset(list(TREE)[:-3])
    assert fill(TREE, known, 2 * ALL) == tuple(TREE)[-3:]
    assert fill(TREE, TREE.keys(), ALL) == ()


def test_then_what_is_named_with_all_below_it_that_did_not_go_yet():
    crate = Crate(TREE, tuple(TREE)[1:5])
    sent = ids(TREE, crate.next([ROOT], 2 * ALL))
    assert sent[0] == ROOT
    assert set(sent) == set(TREE) - set(tuple(TREE)[1:5])
    again = ids(TREE, crate.next([tuple(TREE)[2]], 2 * ALL))
    assert again[0] == tuple(TREE)[2]


def test_lean_sends_what_is_named_and_nothing_else():
    assert ids(TREE, Crate(TREE, lean=True).next([ROOT], 2 * ALL)) == [ROOT]


@pytest.mark.parametrize(
    ("missing", "said"),
    [((), "may be older"), ((bytes(32),), "not of this value")],
)
def test_nonsense_is_named(missing, said):
    with pytest.raises(RemoteProtocolError, match=said):
        Crate(TREE).next(missing, ALL)


def test_nobody_draws_a_block_for_ever():
    crate = Crate(TREE)
    drawn = 0
    with pytest.raises(RemoteProtocolError, match="again and again"):
        while True:
            drawn += sum(map(len, crate.next([ROOT], 64 * 1024)))
    assert drawn <= 3 * ALL


@given(st.integers(5_000, 200_000), st.integers(0, 40))
def test_an_honest_receiver_has_all_in_the_end(room, had):
    """Whatever fits a message, and whatever it had before."""
    held = dict(list(TREE.items())[:had])
    crate = Crate(TREE)
    for _ in range(200):
        missing = _missing(held)
        if not missing:
            break
        blocks = crate.next(missing[:100], room)
        assert sum(map(len, blocks)) <= room
        held |= dict(zip(ids(TREE, blocks), blocks, strict=True))
    assert held.keys() == TREE.keys()


def _missing(held):
    missing, row = [], [ROOT]
    while row:
        missing += [name for name in row if name not in held]
        row = [name for one in row if one in held for name in below(held[one])]
    return missing


def test_what_was_sent_is_remembered_by_slot():
    sent, slot = Sent(), (b"t", b"s")
    assert sent.known(slot, b"one") is None
    sent.note(slot, b"one", frozenset(), frozenset({b"a", b"b"}))
    assert sent.known(slot, b"one") == frozenset()  # the same again: others lack all of it
    assert sent.known(slot, b"two") == {b"a", b"b"}
    sent.note(slot, b"two", frozenset({b"a", b"b"}), frozenset({b"b", b"c"}))
    assert sent.known(slot, b"two") == {b"a", b"b"}
    assert sent.known(slot, b"three") == {b"b", b"c"}


def test_what_was_sent_is_bounded_by_blocks():
    sent = Sent(100)
    for n in range(50):
        sent.note((bytes([n]), b"s"), b"x", frozenset(), frozenset(bytes([n, m]) for m in range(9)))
        assert len(sent) <= 100
    assert sent.known((bytes([49]), b"s"), b"y")
    assert sent.known((bytes([0]), b"s"), b"y") is None
    sent.note((b"big", b"s"), b"x", frozenset(), frozenset(bytes([n]) for n in range(101)))
    assert sent.known((b"big", b"s"), b"y") is None
    assert SENT_BLOCKS_MAX >= 2 * 4_200, "two versions of the largest value"


def test_what_is_no_block_leads_nowhere():
    assert below(b"\xff" * 40) == ()
    assert below(b"") == ()

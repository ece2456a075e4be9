"""A watch's pages, judged: whoever moves forward may go on for ever, whoever does not is left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht_kademlia.core.messages import WATCH_BEAT_S, ItemLease, Page
from dht_kademlia.core.watching import EMPTY_MAX, SILENCE_S, WatchJudge
from skycore.errors import RemoteProtocolError
from skycore.model.items import Cursor, Lease, MutableItem

STORE = b"s" * 16
LEASE = Lease(bytes(32), 3, bytes(32), 9, b"sig")


def at(position, store=STORE):
    return Cursor(store, position).encode()


def item(salt=b"t", v=b""):
    return MutableItem(b"k" * 32, b"k" * 32, salt, 1, 0, 99, v)


def page(position, *items, leases=(), store=STORE, item_leases=()):
    return Page(tuple(items), tuple(leases), False, at(position, store), tuple(item_leases))


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=60))
def test_whoever_moves_forward_is_never_left(steps):
    judge, position, now = WatchJudge(None, b"", 0.0), 5, 0.0
    judge.admit(page(position), now)
    for step, has_content in steps:
        if has_content:
            position, now = position + step, now + 0.01
            assert len(judge.admit(page(position, item()), now)) == 1
        else:
            now += WATCH_BEAT_S
            assert judge.admit(page(position), now) == []


@pytest.mark.parametrize(
    ("cursor", "pages", "word"),
    [
        (at(7), [page(6, item())], "forward"),
        (at(7), [page(7, item())], "forward"),
        (at(7), [page(6)], "forward"),
        (at(7), [page(8, leases=[LEASE]), page(8, leases=[LEASE])], "forward"),
        (b"", [page(9, item()), page(3, item())], "forward"),
        (at(7), [page(8, store=b"x" * 16)], "another store"),
        (b"", [page(1), page(2, store=b"x" * 16)], "another store"),
        (b"", [Page((), (), False, b"")], "no cursor"),
        (b"", [Page((), (), False, b"short")], "no cursor"),
        (b"", [page(1, *[item(v=bytes(60_000))] * 20)], "20 items"),
    ],
)
def test_lies_end_the_stream(cursor, pages, word):
    judge = WatchJudge(None, cursor, 0.0)
    for good in pages[:-1]:
        judge.admit(good, 0.0)
    with pytest.raises(RemoteProtocolError, match=word):
        judge.admit(pages[-1], 0.0)


def test_g4_empty_pages_without_end_are_no_news():
    judge = WatchJudge(None, b"", 0.0)
    for n in range(EMPTY_MAX):
        judge.admit(page(n), 0.0)
    with pytest.raises(RemoteProtocolError, match="without content"):
        judge.admit(page(99), 0.0)


def test_beats_are_welcome_for_ever_and_silence_is_longer_than_two():
    judge = WatchJudge(None, b"", 0.0)
    for n in range(1_000):
        judge.admit(page(1), n * WATCH_BEAT_S)
    assert 2 * WATCH_BEAT_S < SILENCE_S < 3 * WATCH_BEAT_S


def test_g5_another_salt_is_dropped_and_its_lease_with_it():
    judge = WatchJudge(b"t", b"", 0.0)
    lease = ItemLease(0, LEASE)
    kept = judge.admit(page(1, item(b"x"), item(), item_leases=[lease]), 0.0)
    assert [(i.salt, lease) for i, lease in kept] == [(b"t", None)]
    assert judge.dropped == 1
    (both,) = judge.admit(page(2, item(), item_leases=[lease]), 0.0)
    assert both[1] == LEASE


def test_one_item_may_be_as_large_as_items_are():
    assert WatchJudge(None, b"", 0.0).admit(page(1, item(v=bytes(2 * 1024 * 1024))), 0.0)

"""Pages of a lying server are caught; those of an honest one never are."""

import pytest

from dht_kademlia.core.messages import Page
from dht_kademlia.core.pages import EMPTY_PAGES_MAX, PageJudge
from skycore.errors import RemoteProtocolError
from skycore.model.items import Cursor, MutableItem


def item(n, salt=b"t", v=b"v"):
    return MutableItem(bytes(32), b"s", salt, n, 0, 0, v, n.to_bytes(64, "big"))


def cursor(position, store=1):
    return Cursor(bytes([store]) * 16, position).encode()


def page(numbers, more=True, at=None, **options):
    at = cursor(max(numbers, default=0)) if at is None else at
    return Page(tuple(item(n, **options) for n in numbers), (), more, at)


def test_an_honest_server_passes():
    judge = PageJudge(b"t", 10, 10_000)
    judge.start(b"")
    for n in range(1, 100):
        assert len(judge.admit(page([2 * n, 2 * n + 1]))) == 2
    assert judge.admit(page([500], more=False))
    assert judge.pages == 100
    assert judge.dropped == 0


def test_g4_the_same_page_again():
    judge = PageJudge(None, 10, 10_000)
    judge.admit(page([1, 2]))
    with pytest.raises(RemoteProtocolError, match="same page"):
        judge.admit(page([1, 2], at=cursor(9)))


@pytest.mark.parametrize("at", [cursor(1), cursor(2), cursor(5, store=2), b"", b"short"])
def test_g4_a_cursor_that_does_not_move_forward(at):
    judge = PageJudge(None, 10, 10_000)
    judge.admit(page([1, 2]))
    with pytest.raises(RemoteProtocolError, match="cursor"):
        judge.admit(page([3], at=at))


def test_g4_has_more_for_ever_with_nothing_in_it():
    judge = PageJudge(None, 10, 10_000)
    with pytest.raises(RemoteProtocolError, match="no progress"):
        for n in range(EMPTY_PAGES_MAX + 10):
            judge.admit(page([], at=cursor(n)))
    assert judge.pages <= EMPTY_PAGES_MAX + 1


def test_g11_a_page_larger_than_asked():
    with pytest.raises(RemoteProtocolError, match="asked"):
        PageJudge(None, 2, 10_000).admit(page([1, 2, 3]))
    with pytest.raises(RemoteProtocolError, match="asked"):
        PageJudge(None, 10, 1_000).admit(page([1, 2], v=bytes(600)))
    # one item always fits: there is no other way to send it
    assert PageJudge(None, 10, 1_000).admit(page([1], v=bytes(60_000)))


def test_g5_items_under_another_salt_are_dropped_and_counted():
    judge = PageJudge(b"t", 10, 10_000)
    mixed = Page((item(1), item(2, salt=b"x"), item(3)), (), False, cursor(3))
    assert [i.seq for i, _ in judge.admit(mixed)] == [1, 3]
    assert judge.dropped == 1

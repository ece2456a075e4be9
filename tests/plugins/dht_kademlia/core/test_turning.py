"""Pages of a listing."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from dht_kademlia.core.turning import BYTES_MAX, EXPANSION, LOOKED_AT_MAX, PageMaker, after
from skycore.model.items import MutableItem, StoredItem
from skycore.model.limits import RPC_FRAME_MAX, VALUE_MAX


def stored(target, item_class=3, size=0):
    item = MutableItem(b"s", b"u", b"t", 1, 0, 1, bytes(size))
    return StoredItem(target.to_bytes(32, "big"), item_class, b"", b"", item, b"", 1, 1, 1)


def walk(held, limit, *, chunk=8, wanted=lambda s: True, brief=False):
    """Read everything as the listing does; return the pages."""
    pages, last = [], b""
    while True:
        maker = PageMaker(limit, wanted, brief=brief)
        low = after(last) if last else bytes(32)
        while True:
            found = [s for s in held if s.target >= low][:chunk]
            is_last = len(found) < chunk
            if maker.take(found, is_last=is_last):
                break
            if is_last:
                pages.append(maker.page)
                return pages
            low = found[-1].target
        pages.append(maker.page)
        last = maker.last


@given(
    st.dictionaries(st.integers(0, 2**256 - 1), st.sets(st.integers(1, 3), min_size=1)),
    st.integers(1, 9),
    st.integers(4, 12),
)
def test_l17_all_of_it_once_in_order_and_no_target_torn(slots, limit, chunk):
    held = [stored(t, c) for t in sorted(slots) for c in sorted(slots[t])]
    pages = walk(held, limit, chunk=chunk)
    assert [s for page in pages for s in page] == held
    for one, other in itertools.pairwise(pages):
        assert one[-1].target < other[0].target
        assert limit <= len(one) <= limit + 2


def test_c23_a_page_of_large_values_fits_a_frame():
    held = [stored(n // 3, n % 3 + 1, VALUE_MAX) for n in range(60)]
    pages = walk(held, 1_000)
    assert sum(map(len, pages)) == 60
    for page in pages:
        assert sum(1_024 + EXPANSION * len(s.item.v) for s in page) < RPC_FRAME_MAX - 65_536
    assert BYTES_MAX < RPC_FRAME_MAX
    assert len(walk(held, 1_000, brief=True)) == 1


def test_a_filter_does_not_walk_through_a_whole_store_in_one_call():
    held = [stored(n) for n in range(LOOKED_AT_MAX + 10)]
    pages = walk(held, 10, chunk=512, wanted=lambda s: s.target == held[-1].target)
    assert [len(page) for page in pages] == [0, 1]


def test_the_last_target_has_none_after_it():
    assert after(bytes(32)) == bytes(31) + b"\1"
    assert after(b"\xff" * 32) is None

"""Fingerprints of ranges."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from skycore.model.prints import Prints, item_print, range_print

_targets = st.binary(min_size=2, max_size=2).map(lambda top: top + bytes(30))
_rows = st.tuples(
    _targets, st.integers(1, 3), st.binary(min_size=40, max_size=40), st.integers(0, 2**64 - 1)
)


def test_a_print_is_the_hash_of_what_the_wire_document_names():
    target, rank = bytes(range(32)), bytes(40)
    said = target + b"\x02" + rank + (1_800_000_000).to_bytes(8, "big")
    digest = hashlib.sha256(said).digest()
    assert item_print(target, 2, rank, 1_800_000_000) == int.from_bytes(digest, "big")


@given(
    st.lists(_rows, unique_by=lambda row: row[:2], max_size=20),
    st.lists(_rows, unique_by=lambda row: row[:2], max_size=20),
    st.lists(st.tuples(st.binary(max_size=33), st.binary(max_size=33)), max_size=5),
)
def test_sums_kept_are_sums_computed(first, second, ranges):
    held = list(first)
    ranges = [*ranges, (bytes(32), b"\xff" * 32), (b"", b"\xff" * 33)]

    def read(low, high):
        return [row for row in held if low <= row[0] <= high]

    prints = Prints()
    for low, high in ranges:
        assert prints.over(None, low, high, read) == range_print(read(low, high))
    for row in second:
        held.append(row)
        if prints.watches(b"tp"):
            prints.add(b"tp", row, 1)
    for row in first:
        held.remove(row)
        if prints.watches(b"tp"):
            prints.add(b"tp", row, -1)
    for low, high in ranges:
        assert prints.over(None, low, high, read) == range_print(read(low, high))


def test_nothing_is_kept_for_a_salt_without_items():
    prints = Prints()
    for i in range(100):
        assert prints.over(b"%d" % i, bytes(32), b"\xff" * 32, lambda low, high: []) == (0, 0)
        assert not prints.watches(b"%d" % i)
    assert not prints._known

"""Rows on their way: what was put is what is read, in any lengths; pages end where they must."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror_redis.rows import item_bytes, member_of, record, rows_of, stored_item
from skycore.contracts.store import ChangeFilter
from skycore.model.items import Kind, MutableItem, account_of
from skycore.model.limits import ENTRY_BYTES
from skycore.testing.contracts.store_model import ranked

short = st.binary(max_size=64)
items = st.builds(
    MutableItem,
    salt=short,
    subject=short,
    signer=st.binary(min_size=31, max_size=33),
    seq=st.integers(0, 2**63),
    kind=st.sampled_from([int(kind) for kind in Kind]),
    until=st.integers(0, 2**40),
    v=st.binary(max_size=300),
)


def row_of(item, *, sender, stored, writer, item_class=3, digest=bytes(32), **wrong):
    parts = {
        "salt": item.salt, "account": account_of(item.signer, item_class), "subject": item.subject,
        "kind": b"%d" % item.kind, "digest": digest, "sender": sender, "stored": b"%d" % stored,
        "writer": writer, "size": b"%d" % len(item.v), **wrong,
    }  # fmt: skip
    facts = record(*parts.values())
    member = member_of(bytes(32), item_class)
    return (b"0" * 80, b"%016x" % item.until, b"7", b"5", facts, item_bytes(item), b"", member)


@given(items, short, st.integers(0, 2**63), st.binary(max_size=20), st.sampled_from([1, 3]))
def test_a_row_of_any_lengths_is_read_as_it_was_written(item, sender, stored, writer, item_class):
    for who, when in ((sender, stored), (item.signer, 1_760_000_000_123_456_789)):
        for program in (writer, b"0123456789abcdef"):
            row = row_of(item, sender=who, stored=when, writer=program, item_class=item_class)
            lengths = struct.pack(">8I", *map(len, row))
            [read] = rows_of(lengths, [b"".join(row)])
            assert read == row
            found = stored_item(read)
            assert (found.item, found.sender, found.stored_ns) == (item, who, when)
            assert (found.position, found.item_position, found.digest) == (7, 5, bytes(32))


@given(items, st.sampled_from(["salt", "account", "subject", "kind", "size"]), short)
def test_m10_facts_that_are_not_the_items_are_no_row(item, name, other):
    wrong = {name: other}
    row = row_of(item, sender=item.signer, stored=10**18, writer=b"0123456789abcdef", **wrong)
    right = row_of(item, sender=item.signer, stored=10**18, writer=b"0123456789abcdef")
    if row[4] != right[4] and not (name in ("kind", "size") and other.strip().isdigit()):
        assert stored_item(row) is None
    assert stored_item(right) is not None


def test_what_is_damaged_is_its_member_alone():
    [row] = rows_of(struct.pack(">8I", 0, 0, 0, 0, 0, 0, 0, 3), [b"abc"])
    assert row == (b"abc",)
    assert stored_item(row) is None


@pytest.mark.parametrize("size", [0, 1, 9, 10, 99, 100, 999, 1_000, 9_999, 10_000, 65_536])
async def test_a_page_ends_with_the_last_entry_that_fits(redis, opened, size):
    """Whatever number of digits the size of a value has."""
    async with opened(redis) as (store, _):
        await store.put_many([ranked(b"s%d" % i, v=bytes(size)) for i in range(6)])
        for fitting in (1, 3, 5):
            bound = fitting * (size + ENTRY_BYTES)
            for bytes_max, count in ((bound, fitting), (bound - 1, max(1, fitting - 1))):
                page = await store.changes(None, ChangeFilter(), 100, bytes_max)
                assert (len(page.entries), page.has_more) == (count, True)
        page = await store.changes(None, ChangeFilter(), 100, 6 * (size + ENTRY_BYTES))
        assert (len(page.entries), page.has_more) == (6, False)

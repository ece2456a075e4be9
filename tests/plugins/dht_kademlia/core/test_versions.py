"""Which version was valid when."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dht_kademlia.core.versions import valid_at
from skycore.model.items import Kind, Lease, MutableItem, StoredItem

S = 10**9


def version(seq, until_s, item_class=3, kind=Kind.VALUE, rank=b""):
    item = MutableItem(b"s", b"u", b"t", seq, int(kind), until_s, b"%d" % seq)
    rank = seq.to_bytes(8, "big") + rank
    return StoredItem(b"t" * 32, item_class, rank, b"d", item, b"", seq, 1, 1)


def seq_at(versions, at_ns):
    found = valid_at(versions, at_ns)
    return found and found.item.seq


def test_c47_the_version_of_a_moment():
    versions = [version(n * S, n + 60) for n in (30, 20, 10)]
    assert seq_at(versions, 9 * S) is None
    assert [seq_at(versions, t * S) for t in (10, 19, 20, 25, 30, 89)] == [
        10 * S, 10 * S, 20 * S, 20 * S, 30 * S, 30 * S,
    ]  # fmt: skip
    assert seq_at(versions, 90 * S) is None  # nobody renewed it
    assert seq_at(versions, 20 * S) == 20 * S  # a seq asks for itself


def test_c47_a_replaced_version_does_not_come_back():
    versions = [version(10 * S, 1_000), version(20 * S, 30)]
    assert seq_at(versions, 29 * S) == 20 * S
    assert seq_at(versions, 40 * S) is None


def test_c47_a_lease_counts_and_a_tombstone_is_an_answer():
    leased = msgspec.structs.replace(version(10 * S, 20), lease=Lease(b"", 3, b"", 50))
    assert seq_at([leased], 40 * S) == 10 * S
    gone = version(20 * S, 1_000, kind=Kind.TOMBSTONE)
    assert valid_at([leased, gone], 30 * S).item.kind == Kind.TOMBSTONE


def test_c47_the_owner_counts_more_while_he_is_there():
    mirror, owner = version(30 * S, 1_000, item_class=1), version(20 * S, 40)
    assert seq_at([mirror, owner], 30 * S) == 20 * S
    assert seq_at([mirror, owner], 50 * S) == 30 * S


@given(st.permutations([version(n * S, 100, item_class=n % 3 + 1) for n in range(1, 9)]))
def test_the_order_does_not_matter(versions):
    assert seq_at(versions, 5 * S) == 5 * S
    assert seq_at(versions, 99 * S) == 8 * S

"""The item model: signed bytes as docs/protocols/items.md draws them, ranks, leases, tokens."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.errors import ConfigError, ItemError
from skycore.guards.quota import GateSettings
from skycore.model import limits
from skycore.model.delegation_token import decode_delegation, encode_delegation
from skycore.model.items import (
    Cursor,
    Delegation,
    Kind,
    Lease,
    MutableItem,
    StoredItem,
    delegation_bytes,
    item_digest,
    item_rank,
    item_signed_bytes,
    lease_bytes,
    make_delegation,
    make_item,
    make_lease,
    mutable_item_target,
)
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants

NETWORK = NetworkConstants(ED25519, "vectors")
SECRET = ED25519.secret(bytes(range(32)))
PUBLIC = ED25519.public(SECRET)
ROOT = Path(__file__).parents[3]
VECTORS = json.loads((ROOT / "tests/vectors/skycore_items.json").read_text())
DOCUMENT = (ROOT / "docs/protocols/items.md").read_text()
LIMITS = {n: int(v) for n, v in re.findall(r"^\| ([A-Z_]+) \| (\d+) \|$", DOCUMENT, re.MULTILINE)}
PACK = msgspec.msgpack.encode


def item(**change):
    base = {"salt": b"test", "seq": 7, "until": 1_800_000_600, "v": b"hello world"}
    return make_item(NETWORK, SECRET, **(base | change))


def test_signed_bytes_are_as_drawn():
    """Written out by hand, so that the document and the code cannot drift apart."""
    one = item(subject=b"somebody else")
    expected = (
        b"skycore/item/1\0"
        + hashlib.sha256(b"ed25519\0vectors\0").digest()
        + b"\x20" + PUBLIC
        + b"\x0d" + b"somebody else"
        + b"\x04" + b"test"
        + (7).to_bytes(8, "big")
        + b"\0"
        + (1_800_000_600).to_bytes(8, "big")
        + (11).to_bytes(4, "big")
        + b"hello world"
    )  # fmt: skip
    assert item_signed_bytes(NETWORK, one) == expected
    assert ED25519.verify(PUBLIC, expected, one.sig)


def test_the_published_vectors():
    """What another implementation would check itself against."""
    network = NetworkConstants(ED25519, VECTORS["network"])
    assert network.id.hex() == VECTORS["network_id"]
    assert PUBLIC.hex() == VECTORS["public"]
    one, want = item(), VECTORS["item"]
    signed = item_signed_bytes(network, one)
    assert (one.seq, one.until, one.kind) == (want["seq"], want["until"], want["kind"])
    assert signed.hex() == want["signed"]
    assert one.sig.hex() == want["sig"]
    assert one.target.hex() == want["target"]
    assert item_digest(signed).hex() == want["digest"]
    assert item_rank(one.seq, signed, one.sig).hex() == want["rank"]
    assert PACK(one).hex() == want["wire"]
    want = VECTORS["delegation"]
    token = decode_delegation(want["token"])
    assert (token.delegate.hex(), token.until) == (want["delegate"], want["until"])
    assert make_delegation(network, SECRET, token.delegate, token.salt, token.until) == token
    assert delegation_bytes(network, token).hex() == want["signed"]
    want = VECTORS["lease"]
    message = lease_bytes(network, item_digest(signed), want["until"])
    assert (message.hex(), ED25519.sign(SECRET, message).hex()) == (want["signed"], want["sig"])


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_in_the_document_is_the_one_in_the_code(name):
    assert getattr(limits, name) == LIMITS[name]


def test_the_document_has_a_table_of_limits():
    assert len(LIMITS) == 9


def test_the_documented_settings_are_the_defaults():
    rows = re.findall(r"^\| (\w+) \| (\d+) \| ", DOCUMENT, re.MULTILINE)
    gate = GateSettings()
    documented = {name: int(value) for name, value in rows if hasattr(gate, name)}
    assert documented == gate.model_dump(exclude={"sweep_interval_s"})


def test_the_documented_outcomes_are_the_codes():
    rows = dict(re.findall(r"^\| (\d+) \| (\w+Error) \| ", DOCUMENT, re.MULTILINE))
    codes = {str(e.code): e.__name__ for e in (ItemError, *ItemError.__subclasses__())}
    assert rows == codes


def test_delegation_and_lease_bytes_are_as_drawn():
    token = make_delegation(NETWORK, SECRET, b"D" * 32, b"tp", 99)
    expected = (
        b"skycore/delegation/1\0" + NETWORK.id
        + b"\x20" + PUBLIC + b"\x20" + b"D" * 32 + b"\x02tp" + (99).to_bytes(8, "big")
    )  # fmt: skip
    assert delegation_bytes(NETWORK, token) == expected
    assert ED25519.verify(PUBLIC, expected, token.sig)
    digest = bytes(range(32))
    assert lease_bytes(NETWORK, digest, 5) == (
        b"skycore/lease/1\0" + NETWORK.id + digest + (5).to_bytes(8, "big")
    )


def test_nothing_signed_means_anything_else():
    """Three tags, each ended by a zero byte: none begins another's bytes."""
    digest, token = bytes(32), Delegation(PUBLIC, PUBLIC, b"", 0)
    heads = [
        item_signed_bytes(NETWORK, item())[:20],
        delegation_bytes(NETWORK, token)[:20],
        lease_bytes(NETWORK, digest, 0)[:20],
    ]
    assert len(set(heads)) == 3
    other = NetworkConstants(ED25519, "other")
    assert item_signed_bytes(NETWORK, item()) != item_signed_bytes(other, item())


def test_a_target_is_subject_and_salt():
    """Public API: SHA256(subject ‖ salt)."""
    assert mutable_item_target(b"subject", b"tp") == hashlib.sha256(b"subjecttp").digest()
    assert mutable_item_target(b"subject") == hashlib.sha256(b"subject").digest()
    assert item().target == mutable_item_target(PUBLIC, b"test")


def test_d4_an_empty_salt_is_one_salt():
    assert mutable_item_target(b"s", b"") == mutable_item_target(b"s")


@given(st.integers(1, 2**63 - 1), st.integers(1, 2**63 - 1), st.binary(), st.binary())
def test_ranks_are_ordered_by_seq_first(one, other, signed, sig):
    ranks = item_rank(one, signed, sig), item_rank(other, signed, sig)
    assert len(ranks[0]) == len(ranks[1]) == 40
    assert (ranks[0] < ranks[1]) == (one < other)


@given(st.binary(), st.binary())
def test_of_equal_seqs_the_smaller_hash_wins(one, other):
    ranks = item_rank(5, one, b""), item_rank(5, other, b"")
    hashes = hashlib.sha256(one).digest(), hashlib.sha256(other).digest()
    assert (ranks[0] < ranks[1]) == (hashes[0] > hashes[1])


@given(
    st.binary(max_size=255), st.binary(max_size=255), st.binary(max_size=255),
    st.integers(0, 2**64 - 1), st.integers(0, 255), st.integers(0, 2**64 - 1), st.binary(),
)  # fmt: skip
def test_d3_signed_bytes_can_be_read_back(signer, subject, salt, seq, kind, until, v):
    """What can be parsed back is injective."""
    data = item_signed_bytes(NETWORK, MutableItem(signer, subject, salt, seq, kind, until, v))
    at = len(b"skycore/item/1\0") + 32
    parts = []
    for _ in range(3):
        size = data[at]
        parts.append(data[at + 1 : at + 1 + size])
        at += 1 + size
    tail = struct.unpack_from(">QBQI", data, at)
    assert (*parts, *tail[:3], data[at + 21 :]) == (signer, subject, salt, seq, kind, until, v)
    assert tail[3] == len(v)


@pytest.mark.parametrize("seq", [True, 1.0, "5", None, b"5", 2**64, -(2**63) - 1])
def test_d8_on_the_wire_a_seq_is_a_whole_number(seq):
    if isinstance(seq, int) and not isinstance(seq, bool) and seq < 0:
        with pytest.raises(OverflowError):
            PACK(seq)
        return
    try:
        row = PACK([b"k", b"s", b"", seq, 0, 1, b"", b""])
    except OverflowError:
        return  # cannot even be written
    with pytest.raises(msgspec.DecodeError):
        msgspec.msgpack.decode(row, type=MutableItem)


def test_items_cross_the_wire_unchanged():
    token = make_delegation(NETWORK, SECRET, PUBLIC, b"test", 99)
    for one in (item(), item(subject=b"x", delegation=token), item(kind=Kind.TOMBSTONE, v=b"")):
        assert msgspec.msgpack.decode(PACK(one), type=MutableItem) == one
    lease = Lease(bytes(32), 3, bytes(32), 5, bytes(64))
    assert msgspec.msgpack.decode(PACK(lease), type=Lease) == lease
    assert len(PACK(lease)) <= 150


def test_structs_grow_at_the_end_only():
    """A field that a later version adds is skipped by this one."""
    row = msgspec.msgpack.decode(PACK(item()))
    assert msgspec.msgpack.decode(PACK([*row, "later"]), type=MutableItem) == item()


def test_a_lease_raises_the_end_of_a_stored_item():
    one = item()
    digest = item_digest(item_signed_bytes(NETWORK, one))
    stored = StoredItem(one.target, 3, bytes(40), digest, one, b"", 1, 1, 1)
    assert stored.until == one.until
    lease = make_lease(NETWORK, SECRET, stored, one.until + 9)
    assert ED25519.verify(PUBLIC, lease_bytes(NETWORK, digest, one.until + 9), lease.sig)
    assert msgspec.structs.replace(stored, lease=lease).until == one.until + 9
    lower = msgspec.structs.replace(lease, until=one.until - 9)
    assert msgspec.structs.replace(stored, lease=lower).until == one.until


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**64 - 1))
def test_cursors_go_there_and_back(store_id, position):
    cursor = Cursor(store_id, position)
    assert len(cursor.encode()) == 24
    assert Cursor.decode(cursor.encode()) == cursor


@pytest.mark.parametrize("data", [b"", b"x" * 23, b"x" * 25])
def test_what_is_no_cursor_is_none(data):
    assert Cursor.decode(data) is None


def test_tokens_go_there_and_back():
    token = make_delegation(NETWORK, SECRET, b"D" * 32, b"tp", 1_800_000_000)
    text = encode_delegation(token)
    assert text == text.lower()
    assert decode_delegation(text) == token
    assert decode_delegation(f"  {text}\n") == token


@given(st.text(max_size=50) | st.binary(max_size=50).map(bytes.hex))
def test_broken_tokens_are_configuration_errors(text):
    with pytest.raises(ConfigError):
        decode_delegation(text)

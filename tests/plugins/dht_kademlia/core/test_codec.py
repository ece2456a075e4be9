"""Frames: what is sent is what is read; anything else is a named error."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht_kademlia.core.codec import MsgpackCodec, UnsupportedMethodError
from dht_kademlia.core.messages import (
    Batch,
    Blocks,
    ErrorReply,
    FindNode,
    GetBlocks,
    GetItems,
    GetValue,
    Held,
    ItemLease,
    Nodes,
    Outcomes,
    Page,
    Ping,
    Pong,
    PutValue,
    Range,
    RangeReply,
    Ranges,
    Reconcile,
    Stored,
    Value,
    Watch,
    lease_of,
)
from skycore.errors import LocalProtocolError, RemoteProtocolError, ReplyError
from skycore.model.addresses import Address, Contact
from skycore.model.items import Lease, MutableItem

CODEC = MsgpackCodec()
ITEM = MutableItem(bytes(32), b"subject", b"salt", 2**63 - 1, 0, 2**40, b"v", bytes(64))
LEASE = Lease(bytes(32), 3, bytes(32), 2**40, bytes(64))
WHO = Contact(bytes(32), (Address("stcpr", "192.0.2.1:1"),))

WHERE = b"\1" * 32
SAID = (
    RangeReply(0, parts=((5, bytes(32)),) * 16),
    RangeReply(1, held=(Held(WHERE, 3, bytes(40), 2**40),)),
)

REQUESTS = [
    (1, Ping()),
    (2, FindNode(bytes(32))),
    (3, GetValue(bytes(32), b"known")),
    (4, PutValue(ITEM, 7, (b"block",), LEASE)),
    (5, GetItems(None, b"who", 3, b"", 10, 1000)),
    (6, Batch((PutValue(ITEM), PutValue(None, lease=LEASE)))),
    (7, GetBlocks((bytes(32),), True)),
    (8, Reconcile(b"t", (Range(bytes(32), b"\xff" * 32, 3, bytes(32)),), (bytes(32),), (WHERE,))),
    (9, Watch(None, bytes(24))),
]
REPLIES = [
    (1, Pong(1, ("values",), "full", 3)),
    (2, Nodes((WHO,))),
    (3, Value((ITEM,), (WHO,), True, (ItemLease(0, LEASE),))),
    (4, Stored(301, 5, "no", (bytes(32),))),
    (5, Page((ITEM,), (LEASE,), True, bytes(24), (ItemLease(0, LEASE),))),
    (6, Outcomes((Stored(0), Stored(302, 9)))),
    (7, Blocks((b"block",))),
    (8, Ranges(SAID, (ITEM,), (ItemLease(0, LEASE),), 1, (LEASE,))),
    (9, Page((ITEM,), (LEASE,), False, bytes(24))),
]


@pytest.mark.parametrize(("method", "message"), REQUESTS)
def test_requests_come_back(method, message):
    frame = CODEC.encode(method, message)
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert CODEC.decode_request(frame[4:]) == (method, message)


@pytest.mark.parametrize(("method", "message"), REPLIES)
def test_replies_come_back(method, message):
    assert CODEC.decode_reply(method, CODEC.encode(method, message)[4:]) == message


def test_c51_an_unknown_method_is_said_clearly():
    with pytest.raises(UnsupportedMethodError, match=r"unsupported method 10.*1, 2, .*8, 9"):
        CODEC.decode_request(b"\x0a\x90")


def test_c51_fields_of_a_newer_version_are_skipped_and_missing_ones_defaulted():
    newer = msgspec.msgpack.encode([2, ["values"], "full", 3, "something new"])
    assert CODEC.decode_reply(1, b"\x01" + newer) == Pong(2, ("values",), "full", 3)
    older = msgspec.msgpack.encode([bytes(32)])
    assert CODEC.decode_request(b"\x03" + older) == (3, GetValue(bytes(32), b""))


def test_an_error_reply_is_an_error():
    frame = CODEC.encode(0, ErrorReply(204, "unsupported method 9"))
    with pytest.raises(ReplyError, match="unsupported method 9") as caught:
        CODEC.decode_reply(3, frame[4:])
    assert caught.value.code == 204
    with pytest.raises(RemoteProtocolError):
        CODEC.decode_reply(3, b"\x02\x91\x90")


def test_d24_more_contacts_than_allowed_are_refused():
    frame = CODEC.encode(2, Nodes((WHO,) * 21))
    with pytest.raises(RemoteProtocolError):
        CODEC.decode_reply(2, frame[4:])


def test_a_frame_that_is_too_large_is_our_mistake():
    with pytest.raises(LocalProtocolError):
        CODEC.encode(4, PutValue(None, None, (bytes(4 * 1024 * 1024),)))


@given(st.integers(0, 255), st.binary(max_size=300))
def test_c9_anything_at_all_is_a_message_or_a_named_error(method, body):
    with contextlib.suppress(RemoteProtocolError):
        CODEC.decode_request(bytes([method]) + body)
    for asked in (1, 2, 3, 4, 5, 6, 9):
        with contextlib.suppress(RemoteProtocolError):
            CODEC.decode_reply(asked, bytes([method]) + body)


def test_c9_nesting_does_not_exhaust_the_stack():
    with pytest.raises(RemoteProtocolError):
        CODEC.decode_request(b"\x04" + b"\x91" * 200_000)


def test_leases_find_their_items():
    assert lease_of((ItemLease(1, LEASE), ItemLease(7, LEASE), ItemLease(-1, LEASE)), 2) == [
        None,
        LEASE,
    ]

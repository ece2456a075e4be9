"""Messages: round trips, bounds, and bytes that nobody meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_dmsg.core.messages import (
    HEAD_BYTES,
    Answer,
    Attach,
    Attached,
    Dial,
    Pulse,
    Refused,
    Request,
    check_size,
    decode,
    decode_request,
    encode,
    encode_request,
)
from skycore.errors import DecodeError, LocalProtocolError
from skycore.model.limits import DMSG_MESSAGE_MAX

words = st.text(max_size=60)
small = st.integers(0, 65_535)
MESSAGES = st.one_of(
    st.builds(Attach, st.integers(1, 65_535), words),
    st.builds(Attached, st.integers(1, 65_535), small, small),
    st.builds(Refused, small, words),
    st.just(Pulse()),
    st.builds(Dial, st.binary(max_size=1_024), st.binary(max_size=128)),
    st.builds(Answer, small, words, st.binary(max_size=128)),
)


@given(MESSAGES)
def test_what_goes_in_comes_out(message):
    data = encode(message)
    assert check_size(data[:HEAD_BYTES]) == len(data) - HEAD_BYTES <= DMSG_MESSAGE_MAX
    assert decode(data[HEAD_BYTES:]) == message


@given(st.binary(max_size=400))
def test_any_bytes_are_a_message_or_a_decode_error(data):
    for read in (decode, decode_request):
        try:
            read(data)
        except DecodeError as bad:
            assert str(bad)


@given(MESSAGES, st.data())
def test_a_damaged_message_is_a_message_or_a_decode_error(message, data):
    raw = bytearray(encode(message)[HEAD_BYTES:])
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    for body in (bytes(raw), bytes(raw[:at]), bytes(raw) + b"\0"):
        try:
            decode(body)
        except DecodeError as bad:
            assert str(bad)


@pytest.mark.parametrize("size", [0, DMSG_MESSAGE_MAX + 1, 65_535])
def test_sizes_are_bounded_before_anything_is_read(size):
    with pytest.raises(DecodeError) as caught:
        check_size(size.to_bytes(2, "big"))
    assert caught.value.reason == "size"


def test_a_later_version_may_add_fields_at_the_end():
    longer = bytes([1]) + b"\x93\x01\xa4test\x2a"
    assert decode(longer) == Attach(1, "test")


@pytest.mark.parametrize("type_number", [0, 7, 255])
def test_an_unknown_type_is_named(type_number):
    with pytest.raises(DecodeError, match=str(type_number)):
        decode(bytes([type_number]) + b"\x90")


def test_too_long_is_our_own_mistake():
    with pytest.raises(LocalProtocolError):
        encode(Answer(1, "x" * 3_000))


@pytest.mark.parametrize(
    "changes", [{"port": 0}, {"port": 65_536}, {"id": b"short"}, {"purpose": "x" * 65},
                {"src": b""}, {"dst": bytes(65)}, {"time_ns": -1}],
)  # fmt: skip
def test_a_request_out_of_bounds_is_none(changes):
    fields = {"src": bytes(32), "dst": bytes(32), "port": 45, "time_ns": 1, "id": bytes(16)}
    with pytest.raises(DecodeError):
        decode_request(encode_request(Request(**{**fields, **changes})))

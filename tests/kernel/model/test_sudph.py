from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.errors import DecodeError
from skycore.model import sudph
from skycore.model.sudph import Ask, Bind, Cookie, Where, decode, encode, make_cookie, where

PLACES = st.builds(
    Where,
    st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)),
    st.integers(1, 65_535),
)
B8, B16 = st.binary(min_size=8, max_size=8), st.binary(min_size=16, max_size=16)
KEY = st.binary(min_size=32, max_size=64)
U32, WORD = st.integers(0, 2**32 - 1), st.integers(0, 255)
LOCAL = st.lists(PLACES, max_size=4).map(tuple)
MESSAGES = st.one_of(
    st.builds(Ask, B8, st.booleans()),
    st.builds(Cookie, B8, B16, PLACES, st.integers(0, 65_535)),
    st.builds(Bind, KEY, B16, B8, WORD, LOCAL, st.binary(min_size=64, max_size=72)),
    st.builds(sudph.Bound, B8, B16, PLACES, st.integers(1, 3_600)),
    st.builds(sudph.Beat, B16, U32),
    st.builds(sudph.Alive, U32, st.booleans(), PLACES),
    st.builds(sudph.Resolve, B16, B8, KEY),
    st.builds(sudph.Found, B8, WORD, st.none() | PLACES, WORD, LOCAL),
    st.builds(sudph.DialBack, B16, B8, KEY, PLACES, WORD, LOCAL),
    st.builds(sudph.Leave, B16),
    st.builds(sudph.Punch, B8),
)
ANSWER = {Ask: Cookie, Bind: sudph.Bound, sudph.Beat: sudph.Alive, sudph.Resolve: sudph.Found}
FULL = (Where(bytes(range(16)), 65_535),) * 4


@given(MESSAGES)
def test_what_is_written_is_read(message):
    datagram = encode(message)
    assert decode(datagram) == message
    assert datagram[0] < 0x40  # never QUIC: its fixed bit is 0x40
    assert len(datagram) <= sudph.CONTROL_MAX


def test_u1_no_answer_is_larger_than_its_question():
    n, s, w = bytes(8), bytes(16), FULL[0]
    largest = {
        Ask: Cookie(n, s, w, 65_535),
        Bind: sudph.Bound(n, s, w, 3_600),
        sudph.Beat: sudph.Alive(2**32 - 1, True, w),
        sudph.Resolve: sudph.Found(n, 255, w, 255, FULL),
    }
    smallest = {
        Ask: Ask(n),
        Bind: Bind(bytes(32), s, n, 0, (), bytes(64)),
        sudph.Beat: sudph.Beat(s, 0),
        sudph.Resolve: sudph.Resolve(s, n, bytes(32)),
    }
    for question, answer in largest.items():
        assert len(encode(answer)) <= len(encode(smallest[question]))
    assert len(encode(sudph.Punch(n))) <= 64


@given(st.binary(max_size=600))
def test_any_bytes_decode_or_say_so(data):
    for datagram in (data, b"\x01SK1" + data):
        with contextlib.suppress(DecodeError):
            decode(datagram)


@given(MESSAGES, st.data())
def test_a_cut_or_broken_message_says_so_or_is_another(message, data):
    datagram = bytearray(encode(message))
    del datagram[data.draw(st.integers(0, len(datagram) - 1)) :]
    with contextlib.suppress(DecodeError):
        assert decode(bytes(datagram)) == message  # padding may be missing where none is needed


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "envelope"),
        (b"\x01SK2" + bytes(80), "envelope"),
        (b"\x3fSK1" + bytes(80), "type"),
        (b"\x00SK1" + bytes(80), "type"),
        (encode(Ask(bytes(8))).rstrip(b"\0"), "unpadded"),
        (encode(Ask(bytes(8)))[:-1] + b"x", "malformed"),
        (encode(Ask(bytes(8))) + bytes(500), "envelope"),
        (encode(sudph.Leave(bytes(16)))[:-1], "malformed"),
    ],
)
def test_refusals_have_a_reason(datagram, reason):
    with pytest.raises(DecodeError) as caught:
        decode(datagram)
    assert caught.value.reason == reason


def test_an_address_of_five_bytes_is_none():
    broken = encode(sudph.Found(bytes(8), 0, Where(bytes(5), 1)))
    with pytest.raises(DecodeError):
        decode(broken)


def test_n19_a_cookie_is_one_addresss_and_one_minutes():
    secret = bytes(32)
    cookies = {
        make_cookie(secret, ("192.0.2.1", 5), 7),
        make_cookie(secret, ("192.0.2.1", 6), 7),
        make_cookie(secret, ("192.0.2.2", 5), 7),
        make_cookie(secret, ("192.0.2.1", 5), 8),
        make_cookie(b"x" * 32, ("192.0.2.1", 5), 7),
    }
    assert len(cookies) == 5 and {len(c) for c in cookies} == {16}


def test_a_bind_is_signed_as_a_whole_and_for_one_network():
    base = Bind(bytes(32), bytes(16), bytes(8), 0, (), bytes(64))
    texts = {
        sudph.bind_message(b"net", base),
        sudph.bind_message(b"other", base),
        sudph.bind_message(b"net", Bind(b"\1" * 32, bytes(16), bytes(8), 0, (), bytes(64))),
        sudph.bind_message(b"net", Bind(bytes(32), b"\1" * 16, bytes(8), 0, (), bytes(64))),
        sudph.bind_message(b"net", Bind(bytes(32), bytes(16), b"\1" * 8, 0, (), bytes(64))),
        sudph.bind_message(b"net", Bind(bytes(32), bytes(16), bytes(8), 1, (), bytes(64))),
        sudph.bind_message(b"net", Bind(bytes(32), bytes(16), bytes(8), 0, FULL, bytes(64))),
    }
    assert len(texts) == 7


def test_endpoints_are_packed_and_read_back():
    for endpoint in (("192.0.2.1", 5), ("2001:db8::1", 65_535)):
        assert where(endpoint).endpoint == endpoint
    with pytest.raises(ValueError, match="does not appear"):
        where(("example.org", 5))

"""Strict JSON: the attack cases J1 to J10, and every vector of JSONTestSuite."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.errors import DecodeError, RpcError
from skycore.jsonrpc import decode_strict
from skycore.jsonrpc.messages import decode_incoming, decode_request
from skycore.model.limits import JSON_DEPTH_MAX

SUITE = Path(__file__).parents[2] / "vectors" / "json_test_suite.json"
# Valid JSON that we refuse on purpose: two readers may see two different values (J2).
TWICE = {"y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"}


def _vectors():
    for vector in json.loads(SUITE.read_text())["vectors"]:
        if "base64" in vector:
            body = base64.b64decode(vector["base64"])
        else:
            rule = vector["generate"]
            body = (rule["repeat"] * rule["times"] + rule.get("then", "")).encode()
        yield pytest.param(vector["name"], vector["expect"], body, id=vector["name"])


@pytest.mark.parametrize(("name", "expect", "body"), list(_vectors()))
def test_j10_json_test_suite(name, expect, body):
    try:
        decode_strict(body)
    except DecodeError as refused:
        assert expect != "accept" or (name in TWICE and refused.reason == "duplicate key"), refused
    else:
        assert expect != "reject" and name not in TWICE


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_j1_nesting_is_bounded(opening):
    closing = b"]" if opening == b"[" else b"}"

    def nested(depth):
        return opening * (depth - 1) + b"[]" + closing * (depth - 1)

    decode_strict(nested(JSON_DEPTH_MAX))
    for depth in (JSON_DEPTH_MAX + 1, 1_000, 50_000, 100_000):
        with pytest.raises(DecodeError) as refused:
            decode_strict(nested(depth))
        assert refused.value.reason == "too deep"


def test_j1_unclosed_nesting_is_no_recursion():
    with pytest.raises(DecodeError):
        decode_strict(b"[" * 100_000)


def test_j1_brackets_in_text_do_not_nest():
    assert decode_strict(b'["' + b'[{\\"' * 1_000 + b'"]') == ['[{"' * 1_000]
    wide = b"[" + b"[],{}," * 1_000 + b"0]"
    assert len(decode_strict(wide)) == 2_001


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":2}',
        b'{"a":1,"\\u0061":2}',
        b'{"x":{"a":1,"a":1}}',
        b'[{"":1,"":2}]',
        '{"é":1,"\\u00e9":2}'.encode(),
    ],
)
def test_j2_no_key_twice(body):
    with pytest.raises(DecodeError) as refused:
        decode_strict(body)
    assert refused.value.reason == "duplicate key"


@pytest.mark.parametrize(
    "body", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"[" + b"9" * 5_000 + b"]"]
)
def test_j3_numbers_are_numbers(body):
    with pytest.raises(DecodeError) as refused:
        decode_strict(body)
    assert refused.value.reason == "bad number"


@pytest.mark.parametrize(
    "body",
    [
        b'"\\ud800"',
        b'"\\ud800\\u0061"',
        b'"\\udc00"',
        b'"\xff"',
        b'"\xc0\x80"',
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf1",
        b'"\x00"',
        b'"\n"',
    ],
)
def test_j4_text_is_unicode(body):
    with pytest.raises(DecodeError):
        decode_strict(body)


@pytest.mark.parametrize("body", [b"[1]x", b"[1][2]", b"{}{}", b"1 2", b"", b" ", b"[1]\0"])
def test_j9_one_document_and_nothing_else(body):
    with pytest.raises(DecodeError):
        decode_strict(body)


def test_j8_a_wide_array_is_read_at_the_size_of_a_frame():
    assert len(decode_strict(b"[" + b"0," * 65_536 + b"0]")) == 65_537


def test_an_escape_every_other_byte_is_no_trap_for_the_depth_check():
    body = b"[" * 80 + b'"' + b"\\n" * 500_000 + b'"' + b"]" * 80
    with pytest.raises(DecodeError) as refused:
        decode_strict(body)
    assert refused.value.reason == "too deep"


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_whatever_is_json_is_read(value):
    assert decode_strict(msgspec.json.encode(value)) == value


@given(st.binary(max_size=200))
def test_j12_any_bytes_give_a_value_or_a_decode_error(body):
    for decode in (decode_strict, decode_incoming):
        try:
            decode(body)
        except DecodeError as refused:
            assert refused.reason


@given(st.lists(st.sampled_from(list('{}[]",:\\u0123eE+-.nulltruefalse \n')), max_size=40))
def test_j12_anything_like_json_gives_a_value_or_a_decode_error(parts):
    try:
        decode_strict("".join(parts).encode())
    except DecodeError as refused:
        assert refused.reason


CALL = b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":[1,2]}}'


@given(st.integers(0, len(CALL) - 1), st.integers(0, 255))
def test_f4_a_mutated_call_is_a_call_or_a_named_error(at, byte):
    body = CALL[:at] + bytes((byte,)) + CALL[at + 1 :]
    try:
        decode_request(body)
    except (DecodeError, RpcError) as refused:
        assert str(refused)

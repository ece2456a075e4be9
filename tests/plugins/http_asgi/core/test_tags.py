"""ETags and codings as RFC 9110 has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from http_asgi.core.tags import is_known, tag_of, takes_gzip, weak


@given(st.binary(), st.binary())
def test_a_tag_is_of_its_body(one, other):
    assert (tag_of(one) == tag_of(other)) == (one == other)
    assert is_known(tag_of(one), tag_of(one))
    assert weak(tag_of(one)) == tag_of(one)


@pytest.mark.parametrize(
    ("told", "tag", "known"),
    [
        (b'"a"', b'"a"', True),
        (b'W/"a"', b'"a"', True),
        (b'"b", W/"a" , "c"', b'W/"a"', True),
        (b"*", b'"a"', True),
        (b'"b"', b'"a"', False),
        (b"a", b'"a"', False),
        (b"", b'"a"', False),
    ],
)
def test_what_a_client_holds(told, tag, known):
    assert is_known(told, tag) is known


@pytest.mark.parametrize(
    ("told", "takes"),
    [
        (b"gzip", True),
        (b"br, gzip;q=0.5", True),
        (b"GZIP", True),
        (b"*", True),
        (b"gzip;q=0", False),
        (b"gzip; q=0.000", False),
        (b"*, gzip;q=0", False),
        (b"br, deflate", False),
        (b"identity", False),
        (b"", False),
        (b"gzip;nonsense", False),
    ],
)
def test_who_takes_gzip(told, takes):
    assert takes_gzip(told) is takes


@given(st.binary(max_size=2_000))
def test_nothing_that_a_client_says_breaks_it(text):
    takes_gzip(text)
    is_known(text, b'"a"')

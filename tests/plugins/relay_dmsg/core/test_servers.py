"""The list of known servers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_dmsg.core.servers import SERVERS_MAX, Servers, parse_server, server_address
from skycore.errors import ConfigError, SkycoreError
from skycore.model.keys import ED25519
from skycore.testing.fakes import identity


def key(name):
    return identity(str(name)).public


def servers():
    return Servers(ED25519, random.Random(1))


def test_what_worked_is_tried_before_what_was_only_heard_of():
    known = servers()
    for name in "abc":
        known.learn(key(name), "10.0.0.1:1")
    known.worked(known.find(key("c")))
    known.worked(known.find(key("b")))
    known.failed(known.find(key("a")), "no", now=0.0, wait_s=5.0)
    assert [s.key for s in known.choose(9, 0.0, ())] == [key("b"), key("c")]
    assert [s.key for s in known.choose(9, 5.0, ())] == [key("b"), key("c"), key("a")]
    assert [s.key for s in known.choose(1, 5.0, {key("b")})] == [key("c")]
    assert known.next_at({key("b"), key("c")}) == 5.0


def test_a_new_address_is_tried_at_once_and_the_configured_one_stays():
    known = servers()
    assert known.learn(key("a"), "10.0.0.1:1")
    known.failed(known.find(key("a")), "no", 0.0, 60.0)
    assert not known.learn(key("a"), "10.0.0.1:1") and known.find(key("a")).next_at == 60.0
    assert known.learn(key("a"), "10.0.0.2:1") and known.find(key("a")).next_at == 0.0
    assert known.learn(key("a"), "10.0.0.3:1", configured=True)
    assert not known.learn(key("a"), "10.0.0.4:1")
    assert known.find(key("a")).endpoint == "10.0.0.3:1"


def test_an_address_that_works_is_not_given_up_for_one_that_somebody_says():
    known = servers()
    known.learn(key("a"), "10.0.0.1:1")
    known.worked(known.find(key("a")))
    assert not known.learn(key("a"), "6.6.6.6:6")
    known.failed(known.find(key("a")), "gone", 0.0, 9.0)
    assert known.learn(key("a"), "10.0.0.2:1")


def test_bounded_and_the_configured_are_never_forgotten():
    known = servers()
    known.learn(key("mine"), "10.0.0.1:1", configured=True)
    for n in range(SERVERS_MAX + 50):
        known.learn(key(n), "10.0.0.1:1")
    assert len(known) == SERVERS_MAX and known.find(key("mine"))


def test_remembered_in_order():
    known = servers()
    for name in "abcd":
        known.learn(key(name), f"10.0.0.1:{ord(name)}")
    for name in "cab":
        known.worked(known.find(key(name)))
    fresh = servers()
    assert fresh.load(known.dump()) == 3
    assert [s.key for s in fresh.choose(9, 0.0, ())] == [key(n) for n in "bac"]


@given(st.binary(max_size=200))
def test_what_is_no_list_is_named(data):
    try:
        servers().load(data)
    except ConfigError as bad:
        assert str(bad)


@pytest.mark.parametrize(
    "endpoint", ["", "x", "h:0", "h:99999", " h:1", "a b:1", "x@h:1", ":7777", "h" * 300 + ":1"]
)
def test_an_endpoint_that_cannot_be_dialled_is_not_learnt(endpoint):
    known = servers()
    assert not known.learn(key("a"), endpoint) and not len(known)
    with pytest.raises(SkycoreError):
        parse_server(ED25519, f"{key('a').hex()}@{endpoint}")


@pytest.mark.parametrize("endpoint", ["10.0.0.1:7777", "[2001:db8::1]:7777", "relay.example:80"])
def test_written_and_read_back(endpoint):
    assert parse_server(ED25519, server_address(key("a"), endpoint)) == (key("a"), endpoint)

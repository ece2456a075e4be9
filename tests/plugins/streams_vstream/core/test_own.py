"""Our own side: closing, resetting, ending."""

from __future__ import annotations

import pytest

from skycore.errors import LocalProtocolError, StreamError
from streams_vstream.core.channel import Channel, What
from streams_vstream.core.own import Limits
from streams_vstream.core.yamux import Session


def linked():
    """A stream that both ends know: (alice, near, bob, far)."""
    alice = Session(dialled=True, limits=Limits())
    bob = Session(dialled=False, limits=Limits())
    near = alice.open()
    alice.send(near, b"!")
    ((_, far), *_) = pump(alice, bob)
    bob.accept(far)
    bob.read(far, 10)
    return alice, near, bob, far


def pump(one, other):
    return [e for payload in one.outgoing() for e in other.receive(payload, 0.0)]


def test_closing_an_unsent_stream_tells_nobody():
    alice = Session(dialled=True, limits=Limits())
    near = alice.open()
    alice.close(near)
    alice.close(near)
    assert alice.outgoing() == [] and alice.opening == 0 and alice.idle


def test_both_sides_closed_leaves_nothing():
    alice, near, bob, far = linked()
    alice.close(near)
    assert alice.idle and alice.channels, "remembered until the peer has ended too"
    pump(alice, bob)
    assert far.ended_there
    bob.close(far)
    pump(bob, alice)
    assert alice.channels == bob.channels == {}


def test_data_for_a_closed_stream_is_answered_by_one_reset():
    alice, near, bob, far = linked()
    alice.close(near)
    bob.send(far, b"one")
    bob.send(far, b"two")
    pump(bob, alice)
    assert alice.channels == {} and alice.unread_bytes == 0
    events = pump(alice, bob)
    assert events[-1] == (What.FAILED, far)
    with pytest.raises(StreamError, match="reset"):
        bob.send(far, b"three")
    assert alice.counters == {"unknown_stream": 1}


def test_a_blocked_peer_is_reset_at_once_but_keeps_what_it_was_told():
    alice, near, bob, far = linked()
    for _ in range(15):
        alice.send(near, bytes(16_384))
    pump(alice, bob)
    bob.send(far, b"enough")
    bob.close(far)
    assert bob.channels == {} and bob.unread_bytes == 0
    pump(bob, alice)
    assert near.ended_there and alice.read(near, 100) == b"enough"
    with pytest.raises(StreamError, match="reset"):
        alice.send(near, b"x")


def test_a_reset_throws_away_what_was_not_ended():
    alice, near, bob, far = linked()
    alice.send(near, b"part of something")
    alice.reset(near, "given up")
    pump(alice, bob)
    assert not far.unread and bob.unread_bytes == 0 and "reset" in far.problem
    assert bob.counters == {"resets": 1}


def test_ending_twice_sends_one_fin():
    alice, near, *_ = linked()
    alice.end(near)
    alice.end(near)
    assert len(alice.outgoing()[0]) == 12
    with pytest.raises(StreamError, match="ended"):
        alice.send(near, b"x")


def test_a_caller_s_mistake_is_a_local_error():
    alice, near, *_ = linked()
    with pytest.raises(LocalProtocolError):
        alice.send(near, bytes(16_385))


def test_fin_goes_on_its_own_stream_s_frame_only():
    alice, near, bob, far = linked()
    other = alice.open()
    alice.send(near, b"near")
    alice.send(other, b"other")
    alice.end(near)  # its frame is not the last one written
    pump(alice, bob)
    assert far.ended_there and not bob.channels[other.id].ended_there


def test_a_peer_that_does_not_serve():
    alice, near, *_ = linked()
    unsent = alice.open()
    assert alice.unserved("not served") == [near]
    assert near.problem == "not served" and alice.channels == {} and alice.outgoing() == []
    alice.send(unsent, b"it may begin to")
    assert unsent.id == 3


def test_taking_parts_of_chunks():
    channel = Channel(1, ours=False, due=0)
    for chunk in (b"abc", b"defgh", b"i"):
        channel.put(chunk)
    assert [channel.take(n) for n in (1, 1, 4, 2, 9)] == [b"a", b"b", b"c", b"de", b"fghi"]
    assert channel.unread_bytes == 0

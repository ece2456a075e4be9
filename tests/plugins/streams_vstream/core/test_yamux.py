"""What a peer may send, and what happens when it sends something else. Both ends by hand."""

from __future__ import annotations

import itertools

import pytest

from skycore.errors import RemoteProtocolError, StreamError
from streams_vstream.core.budget import Pool
from streams_vstream.core.channel import What
from streams_vstream.core.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    header,
)
from streams_vstream.core.own import PAYLOAD_MAX, Limits
from streams_vstream.core.yamux import Session

WINDOW = 262_144


def pair(**limits):
    """The dialler's session and the other's."""
    bounds = Limits(**limits)
    return Session(dialled=True, limits=bounds), Session(dialled=False, limits=bounds)


def session(**limits):
    """A session that took the connection: its peer opens 1, 3, 5, …"""
    return Session(dialled=False, limits=Limits(**limits))


def cross(one, other, now=0.0):
    """Carry what one side has to say; return the events it caused."""
    events = []
    for payload in one.outgoing():
        events += other.receive(payload, now)
    return events


def data(stream_id, body=b"", flags=0):
    return header(DATA, flags, stream_id, len(body)) + body


def credit(stream_id, delta, flags=0):
    return header(WINDOW_UPDATE, flags, stream_id, delta)


def sent(one):
    """The frames that a session wants to send: (kind, flags, id, length)."""
    whole, frames, at = b"".join(one.outgoing()), [], 0
    while at < len(whole):
        _, kind, flags, stream_id, length = HEADER.unpack_from(whole, at)
        frames.append((kind, flags, stream_id, length))
        at += 12 + (length if kind == DATA else 0)
    return frames


def read_all(one, channel):
    got = b""
    while channel.unread:
        got += one.read(channel, 65_536)
    return got


# --- the wire ------------------------------------------------------------------------------------


def test_the_header_is_that_of_the_specification():
    assert header(DATA, SYN | FIN, 0x01020304, 0x0A0B0C0D).hex() == "000000050102030" + "40a0b0c0d"
    assert header(WINDOW_UPDATE, ACK, 2, 0).hex() == "000100020000000200000000"
    assert header(PING, SYN, 0, 7).hex() == "000200010000000000000007"
    assert header(GO_AWAY, 0, 0, 1).hex() == "000300000000000000000001"


def test_a_small_request_and_its_answer_are_one_frame_each():
    alice, bob = pair()
    near = alice.open()
    assert alice.outgoing() == [], "nothing leaves before there is something to say"
    alice.send(near, b"ask")
    alice.end(near)
    (payload,) = alice.outgoing()
    assert payload == data(1, b"ask", SYN | FIN)
    (opened, far), *rest = bob.receive(payload, 0.0)
    assert opened is What.OPENED and {what for what, _ in rest} == {What.READABLE}
    bob.accept(far)
    assert bob.read(far, 100) == b"ask" and far.ended_there
    bob.send(far, b"answer")
    bob.close(far)
    (payload,) = bob.outgoing()
    assert payload == data(1, b"answer", ACK | FIN)
    alice.receive(payload, 0.0)
    assert alice.read(near, 100) == b"answer"
    assert alice.channels == bob.channels == {} and alice.idle and bob.idle
    assert alice.opening == bob.backlog == 0


def test_ids_rise_on_the_wire_whatever_the_order_of_dialling():
    alice, bob = pair()
    first, second = alice.open(), alice.open()
    alice.send(second, b"b")
    alice.send(first, b"a")
    cross(alice, bob)
    assert (second.id, first.id) == (1, 3)
    assert Session(dialled=False, limits=Limits()).open().id == 0


def test_the_two_ends_use_different_ids():
    alice, bob = pair()
    mine, yours = alice.open(), bob.open()
    alice.send(mine, b"a")
    bob.send(yours, b"b")
    cross(alice, bob)
    cross(bob, alice)
    assert mine.id == 1 and yours.id == 2
    assert set(alice.channels) == set(bob.channels) == {1, 2}


def test_payloads_carry_sixteen_kibibytes_of_data_at_most_and_whole_frames():
    alice, _bob = pair()
    for size in (16_384, 1, 9_000, 9_000, 5, 16_384):
        alice.send(alice.open(), bytes(size))
    payloads = alice.outgoing()
    assert [len(p) for p in payloads] == [16_396, 9_025, 9_029, 16_396]
    assert max(map(len, payloads)) <= PAYLOAD_MAX
    assert alice.outgoing() == [] and not alice.waiting


def test_f5_frames_may_arrive_one_byte_at_a_time():
    alice, bob = pair()
    near = alice.open()
    alice.send(near, b"hello")
    alice.end(near)
    events = [
        e for payload in alice.outgoing() for b in payload for e in bob.receive(bytes((b,)), 0)
    ]
    far = events[0][1]
    assert read_all(bob, far) == b"hello" and far.ended_there


@pytest.mark.parametrize("cut", range(1, 40))
def test_f2_a_cut_at_every_byte_leaves_no_half_event(cut):
    whole = data(1, b"hello", SYN) + data(1, b"world", FIN)
    bob = session()
    events = bob.receive(whole[:cut], 0.0)
    if not events:
        assert cut < 12 and not bob.channels
    events += bob.receive(whole[cut:], 0.0)
    assert read_all(bob, events[0][1]) == b"helloworld"


# --- windows -------------------------------------------------------------------------------------


def test_credit_is_given_after_half_a_window():
    alice, bob = pair()
    near = alice.open()
    for _ in range(16):
        alice.send(near, bytes(16_384))
    assert near.send_window == 0
    (_, far), *_ = cross(alice, bob)
    assert far.receive_window == 0
    for size in (*[16_384] * 7, 16_383):
        assert len(bob.read(far, size)) == size
    assert not bob.waiting
    bob.read(far, 1)
    assert sent(bob) == [(WINDOW_UPDATE, ACK, 1, WINDOW // 2)]


def test_no_credit_once_the_peer_has_ended():
    bob = session()
    ((_, far), *_) = bob.receive(data(1, bytes(WINDOW), SYN | FIN), 0.0)
    assert len(read_all(bob, far)) == WINDOW
    assert sent(bob) == []


def test_f10_a_first_frame_over_the_window_registers_nothing():
    bob = session()
    with pytest.raises(RemoteProtocolError, match="WindowExceeded"):
        bob.receive(header(DATA, SYN, 1, WINDOW + 1), 0.0)
    assert not bob.channels and bob.backlog == 0 and bob.unread_bytes == 0


def test_f16_credit_beyond_the_window():
    for flags, delta in ((SYN, 1), (SYN, 2**32 - 1)):
        with pytest.raises(RemoteProtocolError, match="WindowOverflow"):
            session().receive(credit(1, delta, flags), 0.0)
    for spent, delta in ((0, 1), (100, 101), (100, 2**32 - 1)):
        alice, bob = pair()
        near = alice.open()
        alice.send(near, bytes(spent))
        cross(alice, bob)
        with pytest.raises(RemoteProtocolError, match="WindowOverflow"):
            alice.receive(credit(1, delta), 0.0)


def test_f17_one_byte_over_what_was_granted():
    bob = session()
    bob.receive(data(1, bytes(WINDOW), SYN), 0.0)
    with pytest.raises(RemoteProtocolError, match="WindowExceeded"):
        bob.receive(data(1, b"x"), 0.0)


def test_f18_tiny_credits_are_a_flood():
    alice, bob = pair()
    near = alice.open()
    alice.send(near, bytes(16_384))
    cross(alice, bob)
    near.send_window = 0
    with pytest.raises(RemoteProtocolError, match="FlowAbuse"):
        for _ in range(1_000_000):
            alice.receive(credit(1, 1), 0.0)
    assert near.send_window < 5_000


def test_slow_nuisance_is_forgiven():
    bob = session()
    bob.receive(data(1, b"", SYN), 0.0)
    for second in range(2_000):
        for _ in range(100):
            bob.receive(data(1, b""), float(second))
    assert bob.counters == {"empty_data": 200_000}


def test_empty_data_and_pings_are_floods():
    with pytest.raises(RemoteProtocolError, match="FlowAbuse"):
        session().receive(data(1, b"", SYN) + data(1) * 10_000, 0.0)
    with pytest.raises(RemoteProtocolError, match="PingFlood"):
        session().receive(header(PING, SYN, 0, 1) * 10_000, 0.0)


# --- ids, opens, ends ----------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [(2,), (0,), (1, 1), (5, 3), (5, 5), (1, 4)])
@pytest.mark.parametrize("kind", [DATA, WINDOW_UPDATE])
def test_f14_wrong_ids_end_the_session(ids, kind):
    bob = session()
    with pytest.raises(RemoteProtocolError, match="StreamIdInvalid"):
        for stream_id in ids:
            bob.receive(header(kind, SYN, stream_id, 0), 0.0)


def test_f14_an_id_stays_used_after_its_stream():
    bob = session()
    ((_, far), *_) = bob.receive(data(1, b"", SYN | FIN), 0.0)
    bob.close(far)
    assert not bob.channels
    with pytest.raises(RemoteProtocolError, match="StreamIdInvalid"):
        bob.receive(data(1, b"", SYN), 0.0)


def test_data_for_id_zero_ends_the_session():
    for frame in (data(0, b"x"), credit(0, 5_000)):
        with pytest.raises(RemoteProtocolError, match="StreamIdInvalid"):
            session().receive(frame, 0.0)


def test_f15_ids_run_out():
    alice = Session(dialled=True, limits=Limits(), first_id=2**32 - 3)
    first, second = alice.open(), alice.open()
    assert alice.spent
    with pytest.raises(StreamError, match="StreamsExhausted"):
        alice.open()
    alice.close(second)  # never sent: its id is free again
    assert not alice.spent
    second = alice.open()
    alice.send(first, b"a")
    alice.send(second, b"b")
    assert (first.id, second.id) == (2**32 - 3, 2**32 - 1) and alice.spent


def test_f12_a_full_backlog_resets_and_recovers():
    bob = session()
    opened = []
    for i in range(10_000):
        opened += bob.receive(data(1 + 2 * i, b"", SYN), 0.0)
    assert len(opened) == len(bob.channels) == bob.backlog == 256
    resets = sent(bob)
    assert len(resets) == 9_744 and resets[0] == (WINDOW_UPDATE, RST, 513, 0)
    bob.accept(opened[0][1])
    ((what, _),) = bob.receive(data(30_001, b"", SYN), 0.0)
    assert what is What.OPENED


def test_refused_opens_without_end_are_a_flood():
    bob = session()
    with pytest.raises(RemoteProtocolError, match="OpenFlood"):
        for i in range(100_000):
            bob.receive(data(1 + 2 * i, b"x", SYN), 0.0)


def test_a_refused_stream_s_data_is_thrown_away():
    bob = session(backlog_max=0)
    assert bob.receive(data(1, b"x" * 100, SYN | FIN) + data(1, b"y"), 0.0) == []
    assert bob.unread_bytes == 0 and not bob.channels


def test_streams_of_a_peer_are_bounded_and_lingering_ones_make_room():
    bob = session(streams_max=3)
    channels = [bob.receive(data(i, b"", SYN), 0.0)[0][1] for i in (1, 3, 5)]
    for channel in channels:
        bob.accept(channel)
    assert bob.receive(data(7, b"", SYN), 0.0) == []
    assert sent(bob) == [(WINDOW_UPDATE, RST, 7, 0)]
    bob.close(channels[1])  # we are done, the peer is not
    assert len(bob.receive(data(9, b"", SYN), 0.0)) == 1
    assert set(bob.channels) == {1, 5, 9}
    assert sent(bob) == [(DATA, ACK | FIN, 3, 0), (WINDOW_UPDATE, RST, 3, 0)]


def test_our_own_streams_are_bounded_too():
    alice, bob = pair(streams_max=2)
    first, second = alice.open(), alice.open()
    with pytest.raises(StreamError, match="TooManyStreams"):
        alice.open()
    alice.send(first, b"x")
    alice.close(first)
    cross(alice, bob)
    assert alice.open().id == 0
    alice.close(second)
    alice.open()


def test_f13_open_and_reset_is_a_flood():
    bob = session()
    count = 0
    with pytest.raises(RemoteProtocolError, match="ResetFlood"):
        for count in range(100_000):
            bob.receive(data(1 + 2 * count, b"x", SYN) + credit(1 + 2 * count, 0, RST), 0.0)
            assert not bob.channels and bob.backlog == 0 and bob.unread_bytes == 0
    assert 1_000 <= count < 2_000


def test_refusals_of_our_own_streams_are_no_flood():
    alice, bob = pair(backlog_max=256)
    for _ in range(5_000):
        near = alice.open()
        alice.send(near, b"x")
        alice.outgoing()
        alice.receive(credit(near.id, 0, RST), 0.0)
        assert near.problem
    assert not alice.channels and alice.opening == 0
    assert bob.counters == {}


def test_f21_after_the_end_frames_are_counted_and_nothing_leaks():
    bob = session()
    ((_, far), *_) = bob.receive(data(1, b"x", SYN | FIN), 0.0)
    assert bob.receive(data(1, b"more"), 0.0) == []
    assert bob.receive(data(1, b"", FIN) + credit(1, 0, FIN), 0.0) == []
    assert bob.counters == {"after_fin": 3}
    assert read_all(bob, far) == b"x"
    bob.close(far)
    bob.outgoing()
    for frame in (data(1, b"late"), data(1, b"", FIN), credit(1, 0, RST), data(99, b"never")):
        assert bob.receive(frame, 0.0) == []
    assert bob.receive(credit(1, 5_000), 0.0) == [], "a last credit may cross the end"
    assert bob.counters == {"after_fin": 3, "unknown_stream": 4}
    assert not bob.channels and bob.unread_bytes == 0 and bob.idle


def test_f22_pings_are_answered_and_strays_ignored():
    bob = session()
    bob.receive(header(PING, SYN, 0, 77), 0.0)
    assert sent(bob) == [(PING, ACK, 0, 77)]
    bob.receive(header(PING, ACK, 0, 5), 0.0)
    bob.receive(data(1, b"", SYN) + header(PING, SYN, 1, 5), 0.0)
    bob.receive(data(1, b"", ACK), 0.0)
    assert bob.counters == {"pings": 1, "stray_ping": 2, "stray_ack": 1}
    assert sent(bob) == []


def test_f22_after_go_away_nobody_opens():
    bob = session()
    bob.receive(data(1, b"", SYN), 0.0)
    bob.receive(header(GO_AWAY, 0, 0, 0), 0.0)
    with pytest.raises(StreamError, match="StreamsRefused"):
        bob.open()
    assert bob.receive(data(3, b"", SYN), 0.0) == []
    assert sent(bob) == [(WINDOW_UPDATE, RST, 3, 0)]
    assert set(bob.channels) == {1}, "what runs goes on"


def test_f3_every_unknown_version_type_and_flag_is_refused():
    good = {(kind, flags) for kind in (DATA, WINDOW_UPDATE) for flags in range(16)}
    good |= {(PING, SYN), (PING, ACK), (GO_AWAY, 0)}
    flags = {0} | {1 << bit for bit in range(16)} | set(range(16)) | {0xFFFF}
    for kind, flag in itertools.product([*range(8), 255], flags):
        bob = session()
        bob.receive(data(1, b"", SYN), 0.0)
        frame = header(kind, flag, 3 if kind < PING else 0, 0)
        if (kind, flag) in good:
            bob.receive(frame, 0.0)
        else:
            with pytest.raises(RemoteProtocolError, match="BadFrame"):
                bob.receive(frame, 0.0)
    with pytest.raises(RemoteProtocolError, match="BadFrame"):
        session().receive(b"\x01" + data(1, b"", SYN)[1:], 0.0)


# --- memory --------------------------------------------------------------------------------------


def test_over_the_node_s_bound_the_stream_furthest_behind_goes():
    pool = Pool(300_000)
    bob = Session(dialled=False, limits=Limits(unread_bytes_max=250_000), pool=pool)
    carol = Session(dialled=False, limits=Limits(unread_bytes_max=250_000), pool=pool)
    ((_, stalled), *_) = bob.receive(data(1, bytes(200_000), SYN), 0.0)
    ((_, lively), *_) = bob.receive(data(3, bytes(90_000), SYN), 0.0)
    ((_, modest), *_) = carol.receive(data(1, bytes(100_000), SYN), 0.0)
    assert not (stalled.problem or lively.problem or modest.problem), "carol is below her share"
    events = bob.receive(data(5, bytes(20_000), SYN), 0.0)
    assert (What.FAILED, stalled) in events and "not read" in stalled.problem
    assert not lively.problem and bob.unread_bytes == 110_000 and bob.backlog == 2
    assert sent(bob) == [(WINDOW_UPDATE, ACK | RST, 1, 0)]
    assert pool.held == bob.unread_bytes + carol.unread_bytes
    bob.lose("gone")
    assert pool.held == carol.unread_bytes
    read_all(bob, lively)
    assert pool.held == carol.unread_bytes


def test_over_a_peer_s_share_only_what_nobody_reads_goes():
    bob = session(unread_bytes_max=300_000, stalled_s=10.0)
    ((_, stalled), *_) = bob.receive(data(1, bytes(200_000), SYN), 100.0)
    ((_, slow), *_) = bob.receive(data(3, bytes(200_000), SYN), 101.0)
    bob.receive(data(5, b"", SYN), 109.9)
    bob.read(slow, 1_000)
    bob.receive(data(5, b"x"), 109.99)
    assert not stalled.problem
    events = bob.receive(data(5, b"x"), 111.0)
    assert (What.FAILED, stalled) in events and not slow.problem
    assert bob.unread_bytes == 199_002 and bob.counters == {"reset_for_memory": 1}


def test_holding_too_much_again_and_again_ends_the_session():
    bob = Session(dialled=False, limits=Limits(unread_bytes_max=1), pool=Pool(1))
    with pytest.raises(RemoteProtocolError, match="MemoryExceeded"):
        for i in range(10_000):
            bob.receive(data(1 + 2 * i, b"xx", SYN), 0.0)


def test_crumbs_take_no_more_memory_than_their_bytes():
    bob = session()
    ((_, far), *_) = bob.receive(data(1, b"", SYN), 0.0)
    crumb = data(1, b"x")
    for _ in range(256):
        bob.receive(crumb * 1_024, 0.0)
    assert far.unread_bytes == WINDOW
    assert len(far.unread) <= 64 + WINDOW // 256
    assert read_all(bob, far) == b"x" * WINDOW


def test_f4_ten_thousand_mutated_payloads_break_nothing():
    """Whatever comes, only RemoteProtocolError leaves, and the tables stay true."""
    import random

    dice = random.Random(4)
    for round_ in range(10_000):
        bob = session(streams_max=8, unread_bytes_max=400_000)
        good = (
            data(1, b"hello", SYN)
            + data(3, bytes(100), SYN)
            + credit(1, 0, FIN)
            + data(3, b"", RST)
        )
        bad = bytearray(good)
        for _ in range(dice.randint(1, 6)):
            bad[dice.randrange(len(bad))] = dice.choice((0, 1, 2, 3, 4, 8, 15, 16, 127, 255))
        try:
            for at in range(0, len(bad), 50):
                bob.receive(bytes(bad[at : at + 50]), float(round_))
        except RemoteProtocolError as refused:
            assert str(refused).split(":")[0] in {
                "BadFrame",
                "StreamIdInvalid",
                "WindowExceeded",
                "WindowOverflow",
            }
        assert bob.unread_bytes == sum(c.unread_bytes for c in bob.channels.values())
        assert bob.backlog == sum(c.pending for c in bob.channels.values())


# --- the end of a session ------------------------------------------------------------------------


def test_a_lost_session_fails_every_stream_and_keeps_what_had_come():
    alice, bob = pair()
    near, unsent = alice.open(), alice.open()
    alice.send(near, b"x")
    ((_, far), *_) = cross(alice, bob)
    bob.send(far, b"y")
    cross(bob, alice)
    assert alice.lose("cable cut") == [near]
    assert alice.channels == {} and alice.opening == 0 and alice.idle
    assert read_all(alice, near) == b"y"
    for channel in (near, unsent):
        for call in (lambda c: alice.send(c, b"z"), alice.announce, alice.end):
            if call == alice.announce and not channel.due:
                continue
            with pytest.raises(StreamError, match="cable cut"):
                call(channel)
        alice.close(channel)
        alice.reset(channel, "again")
    assert alice.opening == 0 and alice.outgoing() == []
    with pytest.raises(StreamError, match="cable cut"):
        alice.open()


def test_acks_are_sent_before_the_opener_runs_dry():
    alice, bob = pair()
    for _ in range(1_000):
        assert alice.opening < 256
        near = alice.open()
        alice.send(near, b"x")
        ((_, far), *_) = cross(alice, bob)
        bob.accept(far)  # and never says a word
        cross(bob, alice)
    assert alice.opening < 32

"""Random schedules: two sessions, delayed payloads, users that do as they like."""

from __future__ import annotations

import hashlib
import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from skycore.errors import StreamError
from streams_vstream.core.channel import What
from streams_vstream.core.own import Limits
from streams_vstream.core.yamux import Session

SIZE = 400_000


class End:
    """One side: its session, what it is sending, and what it has read, by channel."""

    def __init__(self, dialled):
        self.session = Session(dialled=dialled, limits=Limits())
        self.wire = deque()
        self.sending = {}
        self.reading = {}

    def flush(self):
        self.wire.extend(self.session.outgoing())

    def use(self, channel, data):
        self.sending[channel] = deque(data[at : at + 9_000] for at in range(0, len(data), 9_000))
        self.reading[channel] = bytearray()

    def write(self, channel):
        queue = self.sending.get(channel)
        if queue is None:
            return False
        if queue and len(queue[0]) <= channel.send_window:
            self.session.send(channel, queue.popleft())
        elif queue:
            return False
        else:
            self.session.end(channel)
            del self.sending[channel]
        return True

    def read(self, channel, most):
        if channel.unread:
            self.reading[channel] += self.session.read(channel, most)
            return True
        return False


def deliver(one, other):
    if not one.wire:
        return False
    for what, channel in other.session.receive(one.wire.popleft(), 0.0):
        assert what is not What.FAILED
        if what is What.OPENED:
            other.session.accept(channel)
            other.use(channel, bytes(reversed(payload_of(channel.id))))
    return True


def payload_of(number):
    return hashlib.shake_128(b"%d" % number).digest(SIZE)


def step(dice, one, other):
    """One random action of `one`; returns whether anything changed."""
    channels = list(one.reading)
    kind = dice.randrange(4)
    if kind == 0:
        return deliver(other, one)
    if kind == 1:
        return any(one.read(c, dice.choice((1_000, 65_536))) for c in dice.sample(channels, 1))
    if kind == 2:
        return any(one.write(c) for c in dice.sample(channels, 1))
    one.flush()
    return True


def work(seed):
    dice = random.Random(seed)
    alice, bob = End(True), End(False)
    for end in (alice, bob):
        for _ in range(dice.randint(1, 2)):
            end.use(end.session.open(), b"")
        for channel in end.reading:  # what is sent depends on the id, known once it is announced
            end.session.announce(channel)
            end.use(channel, payload_of(channel.id))
    idle = 0
    while (
        idle < 60
    ):  # at random, then, so that a random pause is not taken for a deadlock, in order
        moved = step(dice, *dice.choice(((alice, bob), (bob, alice))))
        idle = 0 if moved and any((alice.wire, bob.wire, alice.sending, bob.sending)) else idle + 1
    busy = True
    while busy:
        busy = False
        for one, other in ((alice, bob), (bob, alice)):
            one.flush()
            busy |= deliver(one, other)
            for channel in list(one.reading):
                busy |= one.write(channel) or one.read(channel, 65_536)
    return alice, bob


@pytest.mark.parametrize("seeds", [range(at, at + 5) for at in range(0, 40, 5)])
def test_f20_both_ends_send_and_give_credit_without_deadlock(seeds):
    for seed in seeds:
        alice, bob = work(seed)
        for end in (alice, bob):
            assert not end.session.channels, f"seed {seed}: every stream came to its end"
            assert end.session.counters == {}
            assert end.session.unread_bytes == 0 and end.session.opening == 0
        for one, other in ((alice, bob), (bob, alice)):
            for channel, got in one.reading.items():
                sent = payload_of(channel.id)
                assert bytes(got) == (bytes(reversed(sent)) if channel.ours else sent)
            assert {c.id for c in one.reading} == {c.id for c in other.reading}


@pytest.mark.soak
def test_f20_a_thousand_schedules():
    for seed in range(1_000):
        alice, bob = work(seed)
        assert not alice.session.channels and not bob.session.channels


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=60_000), max_size=6), st.lists(st.integers(1, 9_999))
)
def test_cuts_do_not_matter(chunks, cuts):
    alice = Session(dialled=True, limits=Limits())
    bob = Session(dialled=False, limits=Limits(unread_bytes_max=10**9))
    near = alice.open()
    for chunk in chunks:
        for at in range(0, len(chunk), 16_384):
            piece = chunk[at : at + 16_384]
            near.send_window = max(near.send_window, len(piece))
            alice.send(near, piece)
    alice.end(near)
    whole = b"".join(alice.outgoing())
    got, far, at = b"", None, 0
    for cut in [*cuts, len(whole)]:
        for what, channel in bob.receive(whole[at : at + cut], 0.0):
            if what is What.OPENED:
                far = channel
                far.receive_window = 10**9
        at = min(len(whole), at + cut)
    while far.unread:
        got += bob.read(far, 50_000)
    assert got == b"".join(chunks) and far.ended_there


class TwoSessions(RuleBasedStateMachine):
    """F21: users open, send, read, end, close and reset in any order; tables stay true."""

    def __init__(self):
        super().__init__()
        self.sessions = [
            Session(dialled=dialled, limits=Limits(streams_max=6, unread_bytes_max=300_000))
            for dialled in (True, False)
        ]
        self.wires = [deque(), deque()]
        self.held = [[], []]
        self.used = [[], []]

    def pick(self, side, number):
        return self.held[side][number % len(self.held[side])]

    @rule(side=st.integers(0, 1))
    def open(self, side):
        try:
            channel = self.sessions[side].open()
        except StreamError:
            return
        self.held[side].append(channel)
        self.used[side].append(channel)

    @precondition(lambda self: all(self.held))
    @rule(
        side=st.integers(0, 1),
        number=st.integers(0, 20),
        act=st.sampled_from(["send", "read", "end", "close", "reset", "announce"]),
        size=st.integers(0, 16_384),
    )
    def use(self, side, number, act, size):
        session, channel = self.sessions[side], self.pick(side, number)
        try:
            if act == "send":
                session.send(channel, bytes(min(size, channel.send_window)))
            elif act == "read" and channel.unread:
                session.read(channel, size + 1)
            elif act in ("end", "announce"):
                getattr(session, act)(channel)
            elif act == "close":
                session.close(channel)
            elif act == "reset":
                session.reset(channel, "reset here")
        except StreamError:
            assert channel.problem or channel.ended_here

    @rule(side=st.integers(0, 1), accept=st.booleans())
    def deliver(self, side, accept):
        session, other = self.sessions[side], self.sessions[1 - side]
        self.wires[side].extend(session.outgoing())
        if self.wires[side]:
            for what, channel in other.receive(self.wires[side].popleft(), 0.0):
                if what is What.OPENED and channel.pending:
                    self.used[1 - side].append(channel)
                    if accept:
                        other.accept(channel)
                        self.held[1 - side].append(channel)
                    else:
                        other.reset(channel, "nobody")

    @invariant()
    def tables_are_true(self):
        for side, session in enumerate(self.sessions):
            live = session.channels.values()
            unsent = [c for c in self.used[side] if c.due & 1 and not c.problem]
            ours = sum(c.ours for c in live) + len(unsent)
            assert (session._ours, session._theirs) == (ours, sum(not c.ours for c in live))
            assert session.opening == sum(c.unacked for c in live) + len(unsent)
            assert session.backlog == sum(c.pending for c in live)
            assert session.unread_bytes == sum(c.unread_bytes for c in self.used[side])
            assert session._ours <= 6 and session._theirs <= 6
            assert set(session._lingering.values()) <= set(live)

    def teardown(self):
        for side, session in enumerate(self.sessions):
            for channel in self.used[side]:
                session.close(channel)
        for _ in range(3):
            for side in (0, 1):
                while self.wires[side] or self.sessions[side].waiting:
                    self.deliver(side, False)
        for session in self.sessions:
            assert not session.channels and session.idle and session.unread_bytes == 0


TwoSessions.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestTwoSessions = TwoSessions.TestCase

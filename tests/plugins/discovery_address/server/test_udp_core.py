"""Datagrams at the resolver, one by one: what is proven by what, and what nobody gains."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery_address.server.udp_core import Claim, Limits, UdpCore
from discovery_address.server.udp_rates import Buckets
from discovery_address.server.udp_sessions import Session
from skycore.model.addresses import host_group
from skycore.model.sudph import (
    FOUND,
    NAT_CONE,
    NAT_SYMMETRIC,
    TOO_MANY,
    UNKNOWN,
    Alive,
    Ask,
    Beat,
    Bind,
    Bound,
    Cookie,
    DialBack,
    Found,
    Leave,
    Punch,
    Resolve,
    bind_message,
    decode,
    encode,
    where,
)
from skycore.testing.fakes import TEST_NETWORK, SeededEntropy, identity

HERE, THERE, ELSEWHERE = ("9.9.9.1", 7000), ("9.9.9.2", 7000), ("9.9.9.3", 7000)
OTHER_PORT = 30_179
LIMITS = Limits(
    sessions_max=100,
    sessions_per_host_max=4,
    questions_per_s=20.0,
    lifetime_s=300.0,
    any_address=False,
)


class Bench:
    """A core, and nodes that talk to it."""

    def __init__(self, **limits):
        self.table = {}
        self.core = UdpCore(
            TEST_NETWORK, LIMITS._replace(**limits), SeededEntropy(1).bytes, self.table.get
        )
        self.core.other_port = OTHER_PORT
        self.now = 0.0
        self.wall_s = 1_800_000_000

    def take(self, message, sender, port=0):
        data = message if isinstance(message, bytes) else encode(message)
        outgoing, word = self.core.take(data, sender, port, self.now, self.wall_s)
        return [(decode(o.data), o.to, o.port) for o in outgoing], word

    def wait(self, seconds):
        self.now += seconds
        self.wall_s += int(seconds)

    def cookie(self, sender):
        [(answer, to, _)], _ = self.take(Ask(bytes(8)), sender)
        assert isinstance(answer, Cookie) and to == sender
        return answer.cookie

    def signed(self, name, sender, *, nat=NAT_CONE, local=(), cookie=None, nonce=b"12345678"):
        who = identity(name)
        cookie = self.cookie(sender) if cookie is None else cookie
        places = tuple(where(place) for place in local)
        bind = Bind(who.public, cookie, nonce, nat, places, bytes(64))
        text = bind_message(TEST_NETWORK.id, bind)
        return Bind(who.public, cookie, nonce, nat, places, who.sign(text))

    def bind(self, name, sender, **said):
        out, claim = self.take(self.signed(name, sender, **said), sender)
        assert not out  # not before it is written down
        assert isinstance(claim, Claim), self.core.counters
        answer = self.core.bound(claim, self.now)
        assert answer.to == sender
        bound = decode(answer.data)
        assert isinstance(bound, Bound)
        return bound


def key(name):
    return identity(name).public


def test_a_node_asks_binds_beats_and_leaves():
    bench = Bench()
    bound = bench.bind("alice", HERE)
    assert bound.seen == where(HERE) and bound.lifetime_s == 300
    [(alive, to, _)], _ = bench.take(Beat(bound.session, 7), HERE)
    assert alive == Alive(7, True, where(HERE)) and to == HERE
    out, gone = bench.take(Leave(bound.session), HERE)
    assert not out and isinstance(gone, Session) and gone.public == key("alice")
    [(alive, _, _)], _ = bench.take(Beat(bound.session, 8), HERE)
    assert alive.known is False


def test_an_answer_comes_from_the_port_that_was_asked_for():
    bench = Bench()
    for port in (0, 1):
        [(cookie, _, via)], _ = bench.take(Ask(bytes(8)), HERE, port)
        assert via == port and cookie.other_port == OTHER_PORT
        [(_, _, via)], _ = bench.take(Ask(bytes(8), from_other_port=True), HERE, port)
        assert via == 1
    assert bench.take(bench.signed("alice", HERE), HERE, 1) == ([], None)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "192.168.1.9", "fe80::1"])
def test_an_address_that_is_not_public_is_bound_by_a_setting_alone(address):
    bench = Bench()
    assert bench.take(bench.signed("alice", (address, 7)), (address, 7)) == ([], None)
    assert bench.core.counters["not_public"] == 1
    assert Bench(any_address=True).bind("alice", (address, 7)).seen == where((address, 7))


# --- proofs ---------------------------------------------------------------------------------------


def test_u1_nothing_is_looked_at_before_the_address_is_proven():
    bench = Bench()
    stolen = bench.cookie(HERE)
    for cookie, sender in ((bytes(16), HERE), (stolen, THERE), (stolen, (HERE[0], 1))):
        assert bench.take(bench.signed("alice", sender, cookie=cookie), sender) == ([], None)
    assert bench.core.counters["bad_cookie"] == 3
    assert len(bench.core.sessions) == 0


def test_a_cookie_is_good_for_one_to_two_minutes_and_for_this_run():
    bench = Bench()
    old = bench.cookie(HERE)
    bench.wait(60)
    bench.bind("alice", HERE, cookie=old)
    bench.wait(60)
    assert bench.take(bench.signed("alice", HERE, cookie=old), HERE) == ([], None)
    other = UdpCore(TEST_NETWORK, LIMITS, SeededEntropy(2).bytes, {}.get)
    fresh = encode(bench.signed("alice", HERE))
    assert other.take(fresh, HERE, 0, 0.0, bench.wall_s) == ((), None)
    assert other.counters["bad_cookie"] == 1


def test_a_signature_is_of_this_key_for_this_network_and_over_all_of_it():
    bench = Bench()
    good = bench.signed("alice", HERE)
    alien = bind_message(bytes(32), good)
    bad = [
        Bind(key("bob"), good.cookie, good.nonce, good.nat, good.local, good.signature),
        Bind(good.public, good.cookie, b"87654321", good.nat, good.local, good.signature),
        Bind(good.public, good.cookie, good.nonce, NAT_SYMMETRIC, good.local, good.signature),
        Bind(good.public, good.cookie, good.nonce, 1, (where(THERE),), good.signature),
        Bind(
            good.public, good.cookie, good.nonce, good.nat, (), identity("alice").sign(alien)
        ),
    ]  # fmt: skip
    for forged in bad:
        assert bench.take(forged, HERE) == ([], None)
    assert bench.core.counters["bad_signature"] == len(bad)
    assert len(bench.core.sessions) == 0


def test_u8_a_session_counts_from_its_own_address_alone():
    bench = Bench()
    alice, _ = bench.bind("alice", HERE), bench.bind("bob", THERE)
    [(alive, _, _)], _ = bench.take(Beat(alice.session, 1), ELSEWHERE)
    assert alive.known is False  # a NAT that moved: the node binds again
    assert bench.take(Leave(alice.session), ELSEWHERE) == ([], None)
    assert bench.take(Resolve(alice.session, bytes(8), key("bob")), ELSEWHERE) == ([], None)
    assert bench.core.sessions.of_key(key("alice")).address == HERE


def test_a_bind_that_comes_twice_or_late_leaves_the_session_that_the_node_knows():
    bench = Bench()
    first = bench.bind("alice", HERE)
    again = bench.bind("alice", HERE, nonce=b"another1")
    assert again.session == first.session
    assert len(bench.core.sessions) == 1


def test_a_key_that_binds_elsewhere_has_one_session_the_new_one():
    bench = Bench()
    old = bench.bind("alice", HERE)
    new = bench.bind("alice", THERE)
    assert new.session != old.session and len(bench.core.sessions) == 1
    assert bench.core.counters["rebound"] == 1
    [(alive, _, _)], _ = bench.take(Beat(old.session, 1), HERE)
    assert alive.known is False


# --- resolving and calling -----------------------------------------------------------------------


def test_who_is_bound_finds_and_has_the_other_side_called():
    bench = Bench()
    alice = bench.bind("alice", HERE, local=[("192.168.0.2", 7)])
    bob = bench.bind("bob", THERE, nat=NAT_SYMMETRIC, local=[("192.168.0.3", 7)])
    out, _ = bench.take(Resolve(alice.session, b"request1", key("bob")), HERE)
    (found, to, _), (call, called, _) = out
    assert to == HERE and called == THERE
    assert found == Found(b"request1", FOUND, where(THERE), NAT_SYMMETRIC)
    assert call == DialBack(bob.session, b"request1", key("alice"), where(HERE), NAT_CONE)


def test_neighbours_are_told_of_each_others_addresses_inside():
    bench = Bench()
    inside = [("192.168.0.2", 7), ("192.168.0.3", 7)]
    alice = bench.bind("alice", HERE, local=inside[:1])
    bench.bind("bob", (HERE[0], 7001), local=inside[1:])
    (found, _, _), (call, _, _) = bench.take(Resolve(alice.session, bytes(8), key("bob")), HERE)[0]
    assert [p.endpoint for p in found.local] == inside[1:]
    assert [p.endpoint for p in call.local] == inside[:1]


def test_u11_nobody_is_made_to_punch_at_an_address_that_did_not_ask_for_it():
    bench = Bench()
    victims = [("8.8.8.8", 53), ("127.0.0.1", 631), ("224.0.0.251", 5353), ("0.0.0.0", 9)]
    alice = bench.bind("alice", HERE, local=victims)
    bench.bind("bob", (HERE[0], 7001))
    _, (call, _, _) = bench.take(Resolve(alice.session, bytes(8), key("bob")), HERE)[0]
    assert call.local == () and call.seen == where(HERE)
    # without a binding nobody is called at all, whoever's key one names
    for session in (bytes(16), b"x" * 16):
        assert bench.take(Resolve(session, bytes(8), key("bob")), ELSEWHERE) == ([], None)
    assert not bench.core.called(key("bob"), key("mallory"), bench.now)


def test_u11_a_target_is_called_ten_times_a_minute_for_one_dialler():
    bench = Bench()
    alice = bench.bind("alice", HERE)
    bench.bind("bob", THERE)
    calls = 0
    for _ in range(600):
        bench.wait(0.1)
        out, _ = bench.take(Resolve(alice.session, bytes(8), key("bob")), HERE)
        calls += sum(isinstance(message, DialBack) for message, _, _ in out)
    assert calls <= 20  # ten at once, ten more in the minute
    assert len(encode(Punch(bytes(8)))) <= 64


def test_a_key_does_not_call_itself_and_an_unknown_one_is_told():
    bench = Bench()
    alice = bench.bind("alice", HERE)
    out, _ = bench.take(Resolve(alice.session, bytes(8), key("alice")), HERE)
    assert [type(message) for message, _, _ in out] == [Found]
    [(found, _, _)], _ = bench.take(Resolve(alice.session, bytes(8), key("bob")), HERE)
    assert found.status == UNKNOWN and found.seen is None


def test_a_key_that_is_bound_at_another_server_is_found_without_a_call():
    bench = Bench()
    alice = bench.bind("alice", HERE)
    bench.table[key("bob")] = ELSEWHERE
    [(found, _, _)], _ = bench.take(Resolve(alice.session, bytes(8), key("bob")), HERE)
    assert found.status == FOUND and found.seen == where(ELSEWHERE)


def test_who_resolves_too_often_is_told_so():
    bench = Bench()
    alice = bench.bind("alice", HERE)
    told = [
        bench.take(Resolve(alice.session, bytes(8), key("bob")), HERE)[0][0][0].status
        for _ in range(100)
    ]
    assert told[:60] == [UNKNOWN] * 60 and set(told[60:]) == {TOO_MANY}


# --- floods --------------------------------------------------------------------------------------


def test_u20_a_spoofed_address_gets_a_bounded_number_of_small_answers():
    bench = Bench()
    asked = answered = 0
    for number in range(2_000):
        bench.wait(0.01)
        question = Beat(bytes(16), number) if number % 2 else Ask(bytes(8))
        asked += len(encode(question))
        answered += sum(len(encode(m)) for m, _, _ in bench.take(question, HERE)[0])
    assert bench.core.counters["asked"] + bench.core.counters["beats_unknown"] <= 100 + 20 * 20
    assert answered < asked / 4


def test_a_flood_in_somebodys_name_does_not_silence_him():
    bench = Bench()
    alice = bench.bind("alice", HERE)
    for _ in range(1_000):
        bench.take(Ask(bytes(8)), HERE)
    [(alive, _, _)], _ = bench.take(Beat(alice.session, 1), HERE)
    assert alive.known


def test_one_address_holds_so_many_sessions_and_all_of_them_so_many():
    bench = Bench(sessions_max=6, sessions_per_host_max=4)
    for number in range(4):
        bench.bind(f"n{number}", (HERE[0], 1 + number))
    assert bench.take(bench.signed("n4", (HERE[0], 5)), (HERE[0], 5)) == ([], None)
    bench.bind("n0", (HERE[0], 6))  # who is there may move
    for number in (5, 6):
        bench.bind(f"n{number}", (THERE[0], 1 + number))
    assert bench.take(bench.signed("n7", ELSEWHERE), ELSEWHERE) == ([], None)
    assert bench.core.counters["full"] == 2


def test_who_falls_silent_is_forgotten_in_order():
    bench = Bench()
    bench.bind("alice", HERE)
    bench.wait(30)
    bob = bench.bind("bob", THERE)
    bench.wait(20)
    assert [s.public for s in bench.core.expire(bench.now - 40)] == [key("alice")]
    bench.take(Beat(bob.session, 1), THERE)
    bench.wait(39)
    assert not bench.core.expire(bench.now - 40)


def test_buckets_remember_a_bounded_number_of_keys_and_ipv6_counts_by_64():
    buckets = Buckets(1.0, 2.0, 3)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [True, True, False]
    assert buckets.take("a", 1.0)
    for name in "bcde":
        buckets.take(name, 1.0)
    assert len(buckets) == 3
    assert host_group("2001:db8::1") == host_group("2001:db8::ffff") != host_group("2001:db9::1")


@given(data=st.binary(max_size=600), port=st.sampled_from([0, 1]))
def test_u1_whatever_a_stranger_sends_is_answered_by_no_more_bytes(data, port):
    bench = Bench()
    for text in (data, b"\x01SK1" + data, encode(Ask(bytes(8))) + data, encode(Ask(bytes(8)))[:-1]):
        outgoing, word = bench.core.take(text, HERE, port, 0.0, bench.wall_s)
        assert sum(len(o.data) for o in outgoing) <= len(text)
        assert word is None


@given(
    address=st.ip_addresses().map(str),
    nonce=st.binary(min_size=8, max_size=8),
    number=st.integers(1, 65_535),
)
def test_u1_no_answer_to_an_unproven_address_is_larger_than_its_question(address, nonce, number):
    bench = Bench(any_address=True)
    sender = (address, number)
    for question in (
        Ask(nonce),
        Ask(nonce, from_other_port=True),
        Beat(nonce * 2, 2**32 - 1),
        Leave(nonce * 2),
        Resolve(nonce * 2, nonce, bytes(33)),
        Punch(nonce),
    ):
        data = encode(question)
        outgoing, _ = bench.core.take(data, sender, 0, 0.0, bench.wall_s)
        assert sum(len(o.data) for o in outgoing) <= len(data)
        assert all(o.to == sender for o in outgoing)
    question = encode(bench.signed("alice", sender))
    _, claim = bench.core.take(question, sender, 0, 0.0, bench.wall_s)
    assert len(bench.core.bound(claim, 0.0).data) <= len(question)

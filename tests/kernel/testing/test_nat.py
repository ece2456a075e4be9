"""The NAT model against RFC 3489's words and RFC 4787's rules, whatever is sent in what order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.testing.nat import MAPPINGS_MAX, Nat, NatKind

PUBLIC = "203.0.113.1"
INSIDE = st.tuples(st.sampled_from(["192.168.0.2", "192.168.0.3"]), st.integers(1, 3))
OUTSIDE = st.tuples(st.sampled_from(["198.51.100.1", "198.51.100.2"]), st.integers(1, 3))
KINDS = st.sampled_from(NatKind)
STEPS = st.lists(st.tuples(st.floats(0, 40), INSIDE, OUTSIDE), max_size=30)


def passes(kind, contacted, remote):
    if kind is NatKind.FULL_CONE:
        return True
    if kind is NatKind.ADDRESS_RESTRICTED:
        return remote[0] in {host for host, _ in contacted}
    return remote in contacted


@given(KINDS, STEPS, OUTSIDE, st.floats(0, 40))
def test_what_comes_in_is_what_the_kind_lets_in(kind, steps, remote, wait_s):
    nat = Nat(kind, PUBLIC, mapping_s=30)
    now, sent = 0.0, {}
    for pause, inside, to in steps:
        now += pause
        seen = nat.outgoing(now, inside, to)
        assert seen[0] == PUBLIC
        sent[seen, to] = (inside, now)
    now += wait_s
    for seen, _ in list(sent):
        contacted = {to for (s, to), (_, at) in sent.items() if s == seen and now - at < 30}
        got = nat.incoming(now, seen[1], remote)
        expected = bool(contacted) and passes(kind, contacted, remote)
        assert (got is not None) == expected
        if got is not None:
            assert got in {i for (s, _), (i, _) in sent.items() if s == seen}


@given(KINDS, STEPS)
def test_a_mapping_is_one_hosts_and_holds_while_it_is_used(kind, steps):
    nat = Nat(kind, PUBLIC, mapping_s=10_000)
    lent = {}
    for _, inside, to in steps:
        seen = nat.outgoing(0.0, inside, to)
        key = (inside, to) if kind is NatKind.SYMMETRIC else inside
        assert lent.setdefault(key, seen) == seen
    assert len(set(lent.values())) == len(lent)  # nobody shares a port


@given(KINDS, INSIDE, OUTSIDE)
def test_u16_a_mapping_dies_unless_something_goes_out(kind, inside, remote):
    nat = Nat(kind, PUBLIC, mapping_s=2)
    _, port = nat.outgoing(0.0, inside, remote)
    for second in range(1, 300):
        assert nat.outgoing(float(second), inside, remote) == (PUBLIC, port)
    assert nat.incoming(300.9, port, remote) == inside
    assert nat.incoming(301.0, port, remote) is None  # what comes in does not keep it alive


@given(KINDS, INSIDE, OUTSIDE, st.integers(0, 50))
def test_a_rebinding_takes_another_port_and_drops_what_comes_to_the_old(kind, inside, remote, seed):
    nat = Nat(kind, PUBLIC, seed=seed)
    _, old = nat.outgoing(0.0, inside, remote)
    nat.rebind()
    assert nat.incoming(0.0, old, remote) is None
    _, new = nat.outgoing(0.0, inside, remote)
    assert new != old
    assert nat.incoming(0.0, new, remote) == inside


def test_ports_are_kept_where_they_are_free():
    nat = Nat(NatKind.PORT_RESTRICTED, PUBLIC, keeps_ports=True)
    first = nat.outgoing(0.0, ("192.168.0.2", 5555), ("198.51.100.1", 1))
    second = nat.outgoing(0.0, ("192.168.0.3", 5555), ("198.51.100.1", 1))
    assert first == (PUBLIC, 5555)
    assert second != first


def test_a_flood_of_hosts_pushes_out_the_oldest_and_no_more():
    nat = Nat(NatKind.FULL_CONE, PUBLIC)
    remote = ("198.51.100.1", 1)
    first = nat.outgoing(0.0, ("10.9.9.9", 1), remote)
    for number in range(MAPPINGS_MAX):
        nat.outgoing(1.0, (f"10.0.{number >> 8}.{number & 255}", 1), remote)
    assert nat.incoming(1.0, first[1], remote) in (None, ("10.0.15.255", 1))
    assert len(nat._by_port) == MAPPINGS_MAX


@pytest.mark.parametrize("kind", NatKind)
def test_the_same_seed_lends_the_same_ports(kind):
    def ports(seed):
        nat = Nat(kind, PUBLIC, seed=seed)
        return [nat.outgoing(0.0, ("192.168.0.2", p), ("198.51.100.1", p)) for p in range(1, 9)]

    assert ports(1) == ports(1) != ports(2)

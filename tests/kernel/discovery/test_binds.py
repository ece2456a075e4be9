"""Address records as addresses, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skycore.discovery.binds import addresses_of, bind_of, is_public
from skycore.model.addresses import Address, split_host_port
from skycore.model.entries import AddressBind, AddressEntry
from skycore.model.limits import ENDPOINT_MAX, HELLO_ADDRESSES_MAX


def endpoints(**bind):
    return [a.endpoint for a in addresses_of(AddressEntry(stcpr=AddressBind(**bind)))]


def test_the_seen_address_first_and_those_behind_the_router_after_it():
    bind = {"port": "7", "addresses": ("192.168.0.2",), "remote_addr": "198.51.100.1"}
    assert endpoints(**bind) == ["198.51.100.1:7", "192.168.0.2:7"]
    assert endpoints(**bind, is_local=True) == ["192.168.0.2:7", "198.51.100.1:7"]


def test_a_port_of_its_own_wins_and_ipv6_has_brackets():
    assert endpoints(port="7", remote_addr="198.51.100.1:9") == ["198.51.100.1:9"]
    assert endpoints(port="7", remote_addr_v6="2001:db8::1") == ["[2001:db8::1]:7"]
    assert endpoints(port="7", remote_addr="[2001:db8::1]:9") == ["[2001:db8::1]:9"]
    assert endpoints(remote_addr="198.51.100.1:9") == ["198.51.100.1:9"]


def test_loopback_counts_for_who_was_seen_there_alone():
    loopback = {"port": "7", "addresses": ("127.0.0.1", "10.0.0.1")}
    assert endpoints(**loopback, remote_addr="198.51.100.1") == ["198.51.100.1:7", "10.0.0.1:7"]
    assert endpoints(**loopback, remote_addr="127.0.0.1") == ["127.0.0.1:7", "10.0.0.1:7"]
    assert endpoints(**loopback) == ["10.0.0.1:7"]


@pytest.mark.parametrize(
    "bind",
    [{}, {"port": "7"}, {"remote_addr": "198.51.100.1"}, {"port": "x", "remote_addr": "1.2.3.4"},
     {"port": "0", "remote_addr": "1.2.3.4"}, {"port": "70000", "remote_addr": "1.2.3.4"},
     {"port": "7", "remote_addr": "h\u00f6st"}, {"port": "7", "remote_addr": "a b\n"},
     {"port": "7", "remote_addr": "x" * 300}],
)  # fmt: skip
def test_what_is_no_address_is_left_out(bind):
    assert endpoints(**bind) == []


def test_both_types_and_the_older_flat_record():
    entry = AddressEntry(
        stcpr=AddressBind("7", remote_addr="198.51.100.1"),
        sudph=AddressBind(remote_addr="198.51.100.1:9"),
    )
    assert addresses_of(entry) == (
        Address("stcpr", "198.51.100.1:7"), Address("sudph", "198.51.100.1:9"),
    )  # fmt: skip
    old = AddressEntry(port=7, remote_addr="198.51.100.1", addresses=("10.0.0.1",))
    assert [a.endpoint for a in addresses_of(old)] == ["198.51.100.1:7", "10.0.0.1:7"]


def test_what_a_node_says_of_itself():
    listening = [Address("sudph", "10.0.0.1:1"), Address("stcpr", ":7777")]
    assert bind_of("stcpr", listening) == AddressBind("7777")
    assert bind_of("stcpr", listening, "198.51.100.1").remote_addr == "198.51.100.1"
    assert bind_of("stcpr", listening, "2001:db8::1").remote_addr_v6 == "2001:db8::1"
    assert bind_of("quic", listening) is None
    assert bind_of("stcpr", [Address("stcpr", "not one")]) is None
    two = [Address("stcpr", "10.0.0.1:7"), Address("stcpr", "198.51.100.1:9")]
    bind = bind_of("stcpr", two)
    assert bind == AddressBind("7", ("10.0.0.1", "198.51.100.1:9"))
    found = [a.endpoint for a in addresses_of(AddressEntry(stcpr=bind))]
    assert found == ["10.0.0.1:7", "198.51.100.1:9"]


def test_public_addresses():
    assert is_public("198.51.101.7") and is_public("2001:41d0::7")
    for text in ("10.0.0.1", "127.0.0.1", "192.168.1.1", "::1", "fe80::1", "0.0.0.0", "", "host"):
        assert not is_public(text), text


hosts = st.text(max_size=300) | st.ip_addresses().map(str)


@given(st.lists(hosts, max_size=64), hosts, hosts, st.text(max_size=300), st.booleans())
def test_whatever_a_record_says_a_few_sound_addresses_come_out(own, seen, six, port, is_local):
    bind = AddressBind(port, tuple(own), seen, six, is_local)
    found = addresses_of(AddressEntry(stcpr=bind, sudph=bind, port=port, addresses=tuple(own)))
    assert len(found) <= HELLO_ADDRESSES_MAX
    for address in found:
        host, number = split_host_port(address.endpoint)
        assert host and 0 < number <= 65_535
        assert len(address.endpoint) <= ENDPOINT_MAX
        assert address.endpoint.isascii() and address.endpoint.isprintable()

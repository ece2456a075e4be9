"""What address records say, as addresses that can be dialled, and back.

Why hints and no more: whoever writes such a record may name any host. So what comes out of it is
tried like what a stranger says of himself: bounded, forgotten when it does not work, and proven by
the handshake alone. And whoever listens nowhere near is sent nowhere near: a stranger's record that
names loopback or a house's own network would knock at the reader's machine and house, not at the
stranger's. Source of the order: Skywire's address resolver (docs/protocols/discovery.md).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Final

from skycore.errors import ConfigError
from skycore.model.addresses import Address, join_host_port, split_host_port
from skycore.model.entries import AddressBind, AddressEntry
from skycore.model.limits import ENDPOINT_MAX, HELLO_ADDRESSES_MAX

__all__ = [
    "KINDS",
    "ORDINARY",
    "Reach",
    "addresses_of",
    "bind_of",
    "is_loopback",
    "is_public",
    "listens_nearby",
    "reach_of",
]

ORDINARY: Final = "stcpr"
KINDS: Final = (ORDINARY, "sudph")
"""Transport types that an address record has a place for."""
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


class Reach(IntEnum):
    """From where an address leads to the same host."""

    NEVER = 0
    """It is nobody's: unspecified, multicast, malformed."""
    HERE = 1
    """On the machine itself."""
    NEARBY = 2
    """In one house or provider's network."""
    EVERYWHERE = 3


def addresses_of(entry: AddressEntry, *, nearby: bool = True) -> tuple[Address, ...]:
    """Return where a record says that its subject can be dialled, best first, a few at most.

    The address that others saw comes before those that its owner has behind his router, unless a
    resolver says that he and we are behind the same one. Loopback is tried only where the owner was
    seen there. What is no address is left out, and so is what is not public where we are not
    `nearby`, nor said to be behind the same router.
    """
    found: dict[Address, None] = {}
    for kind in KINDS:
        bind = getattr(entry, kind)
        if bind is not None:
            found.update(dict.fromkeys(_of_bind(kind, bind, nearby)))
    old = AddressBind(
        str(entry.port or ""),
        entry.addresses,
        entry.remote_addr,
        entry.remote_addr_v6,
        entry.is_local,
    )
    found.update(dict.fromkeys(_of_bind(ORDINARY, old, nearby)))
    return tuple(found)[:HELLO_ADDRESSES_MAX]


def _of_bind(kind: str, bind: AddressBind, nearby: bool) -> Iterator[Address]:
    seen = [bind.remote_addr, bind.remote_addr_v6]
    least = Reach.HERE if any(_reach(text) is Reach.HERE for text in seen if text) else Reach.NEARBY
    if not nearby and not bind.is_local:
        least = Reach.EVERYWHERE
    for text in [*bind.addresses, *seen] if bind.is_local else [*seen, *bind.addresses]:
        endpoint = _endpoint(text, bind.port)
        if endpoint and _reach(text) >= least:
            yield Address(kind, endpoint)


def _reach(text: str) -> Reach:
    return reach_of(_host(text))


def _host(text: str) -> str:
    if _is_ip(text):
        return text
    try:
        return split_host_port(text)[0]
    except ConfigError:
        return text


def _endpoint(text: str, port: str) -> str:
    """Return `host:port`; the record's port where the text has none. Empty for no address."""
    try:
        if text and (_is_ip(text) or ":" not in text):
            text = join_host_port(text, int(port)) if port.isascii() and port.isdigit() else ""
        host, number = split_host_port(text)
    except (ConfigError, ValueError):
        return ""
    is_sound = host and number and text.isascii() and text.isprintable()
    return text if is_sound and len(text) <= ENDPOINT_MAX else ""


def bind_of(kind: str, listening: Iterable[Address], observed: str = "") -> AddressBind | None:
    """Return what to tell of where this node takes connections of a type; None: nowhere.

    `observed` is the address that a resolver saw. An endpoint without a host gives the port alone:
    its owner does not know by which of its addresses others reach it.
    """
    port, hosts = 0, dict[str, None]()
    for address in listening:
        if address.kind != kind:
            continue
        try:
            host, number = split_host_port(address.endpoint)
        except ConfigError:
            continue
        port = port or number
        if host:  # another port than the first's is told with it
            hosts[host if number == port else join_host_port(host, number)] = None
    if not port:
        return None
    six = observed if ":" in observed else ""
    return AddressBind(
        port=str(port),
        addresses=tuple(hosts)[:HELLO_ADDRESSES_MAX],
        remote_addr="" if six else observed,
        remote_addr_v6=six,
    )


def reach_of(host: str) -> Reach:
    """Return from where a host means the same one to everybody; names count as public.

    Numbers that are no address in the usual way of writing ("127.1", "0x7f000001") are understood
    by some systems all the same, so they are refused and not taken for names.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        last = host.lower().rstrip(".").rpartition(".")[2]
        if last in ("localhost", "localdomain"):
            return Reach.HERE
        return Reach.NEVER if _NUMBER.fullmatch(last) or not last else Reach.EVERYWHERE
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback:
        return Reach.HERE
    if address.is_unspecified or address.is_multicast or address.is_reserved:
        return Reach.NEVER
    return Reach.EVERYWHERE if address.is_global else Reach.NEARBY


def listens_nearby(listening: Iterable[Address]) -> bool:
    """Tell whether a node takes connections at an address that is not public: it is nearby."""
    for address in listening:
        try:
            host, _ = split_host_port(address.endpoint)
        except ConfigError:
            continue
        if host and reach_of(host) in (Reach.HERE, Reach.NEARBY):
            return True
    return False


def is_public(host: str) -> bool:
    """Tell whether the whole internet could mean the same host by this address."""
    return _is_ip(host) and reach_of(host) is Reach.EVERYWHERE


def is_loopback(host: str) -> bool:
    """Tell whether this address means the machine itself."""
    return reach_of(host) is Reach.HERE


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True

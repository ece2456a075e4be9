"""What address records say, as addresses that can be dialled, and back.

Why hints and no more: whoever writes such a record may name any host. So what comes out of it is
tried like what a stranger says of himself: bounded, forgotten when it does not work, and proven by
the handshake alone. Source of the order: Skywire's address resolver (docs/protocols/discovery.md).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from skycore.errors import ConfigError
from skycore.model.addresses import Address, join_host_port, split_host_port
from skycore.model.entries import AddressBind, AddressEntry
from skycore.model.limits import ENDPOINT_MAX, HELLO_ADDRESSES_MAX

__all__ = ["KINDS", "ORDINARY", "addresses_of", "bind_of", "is_loopback", "is_public"]

ORDINARY: Final = "stcpr"
KINDS: Final = (ORDINARY, "sudph")
"""Transport types that an address record has a place for."""


def addresses_of(entry: AddressEntry) -> tuple[Address, ...]:
    """Return where a record says that its subject can be dialled, best first, a few at most.

    The address that others saw comes before those that its owner has behind his router, unless a
    resolver says that he and we are behind the same one. Loopback is tried only where the owner was
    seen there. What is no address is left out.
    """
    found: dict[Address, None] = {}
    for kind in KINDS:
        bind = getattr(entry, kind)
        if bind is not None:
            found.update(dict.fromkeys(_of_bind(kind, bind)))
    old = AddressBind(
        str(entry.port or ""),
        entry.addresses,
        entry.remote_addr,
        entry.remote_addr_v6,
        entry.is_local,
    )
    found.update(dict.fromkeys(_of_bind(ORDINARY, old)))
    return tuple(found)[:HELLO_ADDRESSES_MAX]


def _of_bind(kind: str, bind: AddressBind) -> Iterator[Address]:
    seen = [bind.remote_addr, bind.remote_addr_v6]
    own: Sequence[str] = bind.addresses
    if not any(is_loopback(_host(text)) for text in seen if text):
        own = [text for text in own if not is_loopback(_host(text))]
    for text in [*own, *seen] if bind.is_local else [*seen, *own]:
        endpoint = _endpoint(text, bind.port)
        if endpoint:
            yield Address(kind, endpoint)


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


def is_public(host: str) -> bool:
    """Tell whether the whole internet could mean the same host by this address."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Tell whether this address means the machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True

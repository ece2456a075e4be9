"""Contacts as strangers tell them: what may be believed of them, and what is thrown away.

Why judged before use: a contact list is the cheapest way to make a node dial whatever an attacker
likes (D24). A contact from a reply is a candidate only; it enters the routing table once it has
answered over an authenticated stream (C4, O07).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from skycore.model.addresses import Address, Contact
from skycore.model.keys import node_id
from skycore.model.limits import ADDRESS_KIND_MAX, ENDPOINT_MAX, HELLO_ADDRESSES_MAX

__all__ = ["ADDRESSES_MAX", "clean_contact", "has_global", "id_of"]

ADDRESSES_MAX: Final = HELLO_ADDRESSES_MAX

NEVER, LOCAL, GLOBAL = 0, 1, 2


@lru_cache(maxsize=16_384)
def id_of(public: bytes) -> int:
    """Return the node id of a key as a number: XOR distance is arithmetic."""
    return int.from_bytes(node_id(public), "big")


@lru_cache(maxsize=16_384)
def _reach(endpoint: str) -> int:
    """Say whether an endpoint is one to dial: never, in one's own network only, or globally."""
    if len(endpoint) > ENDPOINT_MAX or not endpoint.isprintable():
        return NEVER
    host, colon, port = endpoint.rpartition(":")
    if not colon:
        return GLOBAL  # no host:port: a type of transport with its own notion of a place
    if not (port.isascii() and port.isdigit()) or not 0 < int(port) <= 65_535 or not host:
        return NEVER
    host = host.rpartition("@")[2]  # through a relay, PK@host:port: as far as the relay
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return GLOBAL if host.strip(".") and " " not in host else NEVER
    if address.is_multicast or address.is_unspecified or host == "255.255.255.255":
        return NEVER
    return GLOBAL if address.is_global else LOCAL


def has_global(addresses: Sequence[Address]) -> bool:
    """Tell whether one of these is reachable from everywhere."""
    return any(_reach(address.endpoint) == GLOBAL for address in addresses)


def clean_contact(contact: Contact, key_bytes: int, *, teller_is_global: bool) -> Contact | None:
    """Return the contact with the addresses worth trying, or None where nothing is left of it.

    A peer from the open internet cannot tell us of loopback or private places: they would be ours.
    """
    if len(contact.public) != key_bytes or len(contact.addresses) > ADDRESSES_MAX:
        return None
    least = GLOBAL if teller_is_global else LOCAL
    kept = tuple(
        a
        for a in contact.addresses
        if len(a.kind) <= ADDRESS_KIND_MAX and _reach(a.endpoint) >= least
    )
    if not kept:
        return None
    return contact if len(kept) == len(contact.addresses) else Contact(contact.public, kept)

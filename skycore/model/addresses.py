"""Addresses: where a key can be dialled, and by which type of transport."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

import msgspec

from skycore.errors import ConfigError
from skycore.model.keys import KeySuite, PubKey, parse_public

__all__ = [
    "Address",
    "Contact",
    "host_group",
    "join_host_port",
    "parse_contact",
    "split_host_port",
]


class Address(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One way to reach a node: the transport type's name and an endpoint that it understands."""

    kind: str
    endpoint: str


class Contact(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A node as others know it: its key, and where it may be dialled."""

    public: bytes
    addresses: tuple[Address, ...] = ()


def split_host_port(text: str) -> tuple[str, int]:
    """Read `host:port` or `[v6]:port`. Raises `ConfigError`."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ConfigError(
            f"{text!r} is no address", hint="write host:port, for example 127.0.0.1:7777"
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_host_port(host: str, port: int) -> str:
    """Write `host:port`, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@lru_cache(4_096)
def host_group(host: str) -> str:
    """Return whose limit an address counts on: its own, of IPv6 that of its /64.

    Whoever has one IPv6 address has 2^64 of them.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"


def parse_contact(suite: KeySuite, text: str, kind: str = "stcpr") -> Contact:
    """Read `PK@host:port`, as bootstrap lists have it, or `PK@sudph://host:port`.

    `kind` is the transport type where none is named. Raises `ConfigError`, `InvalidKeyError`.
    """
    key, at, endpoint = text.partition("@")
    if not at:
        raise ConfigError(f"{text!r} is no contact", hint="write PK@host:port")
    named, sign, rest = endpoint.partition("://")
    if sign:
        kind, endpoint = named, rest
    split_host_port(endpoint)
    return Contact(PubKey(parse_public(suite, key)), (Address(kind, endpoint),))

"""What callers say of where they listen, what is believed of it, and in which form it is kept.

What is believed is what was seen: the address that a request came from. What a caller says besides
(a port, addresses behind his router) is a hint that costs a dial; a public address that he only
claims (`public_ip`) is left alone, for it could be anybody's. Source of the shapes: Skywire's
address resolver (docs/protocols/discovery.md).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from skycore.contracts.discovery import Record
from skycore.contracts.registry import Listed, Listing
from skycore.discovery.answers import read_json
from skycore.discovery.binds import KINDS, is_public
from skycore.errors import NamespaceError, RequestRefusedError
from skycore.model.entries import AddressBind, AddressEntry, Host

__all__ = ["bind_in", "entries_in", "entry_of", "listed", "observed_host", "read_bind", "read_keys"]

ADDRESSES_MAX: Final = 16
KEYS_MAX: Final = 10_000


class _Told(msgspec.Struct, frozen=True):
    """The body of a bind. What else it holds is left alone."""

    port: Host | Annotated[int, Meta(ge=1, le=65_535)]
    addresses: Annotated[tuple[Host, ...], Meta(max_length=ADDRESSES_MAX)] | None = None


_told = msgspec.json.Decoder(_Told)
_bind = msgspec.json.Decoder(AddressBind)
_keys = msgspec.json.Decoder(Annotated[list[Host], Meta(max_length=KEYS_MAX)] | None)
_encoder = msgspec.json.Encoder()


def observed_host(host: str) -> str:
    """Return the address of a connection, IPv4 as such also where it came in over IPv6."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def read_bind(body: bytes, observed: str, *, any_address: bool) -> AddressBind:
    """Return what to keep of a bind that came from `observed`. Raises `RequestRefusedError`.

    As upstream: an address that is not public is refused, and so is one that is none of those the
    caller says he has, for he is behind a router that does not lead to him. `any_address` is the
    setting `private_addresses`.
    """
    told = read_json(_told, body)
    port = str(told.port)
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65_535):
        raise RequestRefusedError("port is none", code=400)
    addresses = told.addresses or ()
    hosts = [_host_of(text) for text in addresses]
    if not any_address:
        if not is_public(observed):
            raise RequestRefusedError(
                f"you are seen at {observed or 'no address'}, which is not public",
                code=400,
                hint="discovery_address_server.private_addresses=true binds such ones, too",
            )
        if hosts and observed not in hosts:
            raise RequestRefusedError(
                f"you are seen at {observed}, which is none of your addresses",
                code=400,
                hint="name it in transport_stcpr.advertise, if its port leads to you",
            )
    six = ":" in observed
    return AddressBind(
        port=str(int(port)),
        addresses=tuple(dict.fromkeys(addresses if any_address else _own(addresses, observed))),
        remote_addr="" if six else observed,
        remote_addr_v6=observed if six else "",
    )


def _own(addresses: Sequence[str], observed: str) -> Sequence[str]:
    """Return addresses without public ones that nobody saw: they could be anybody's."""
    return [a for a in addresses if (h := _host_of(a)) == observed or not is_public(h)]


def _host_of(text: str) -> str:
    """Return the address in `address` or `address:port`. Raises `RequestRefusedError`."""
    for part in (text, text.rpartition(":")[0].removeprefix("[").removesuffix("]")):
        try:
            return str(ipaddress.ip_address(part))
        except ValueError:
            continue
    raise RequestRefusedError(f"{text[:80]!r} is no address", code=400)


def read_keys(body: bytes) -> Sequence[str]:
    """Return a body that is a list of keys. Raises `RequestRefusedError`."""
    return read_json(_keys, body) or ()


def listed(kind: str, bind: AddressBind) -> Listed:
    """Return a bind as it is kept and served; never with what is true for one asker alone."""
    return Listed(kind.encode(), _encoder.encode(msgspec.structs.replace(bind, is_local=False)))


def bind_in(body: bytes) -> AddressBind:
    """Return a kept bind."""
    return _bind.decode(body)


def entry_of(listing: Listing) -> AddressEntry:
    """Return what is published of a listing."""
    binds = {entry.key.decode(): bind_in(entry.body) for entry in listing.entries}
    return AddressEntry(
        pk=listing.subject.hex(), stcpr=binds.get("stcpr"), sudph=binds.get("sudph")
    )


def entries_in(record: Record, *, any_address: bool) -> Sequence[Listed]:
    """Return what a subject's own record in the DHT says, as it is kept. Raises `NamespaceError`.

    The same rule holds for what it calls its public addresses.
    """
    entry = record.body
    if not isinstance(entry, AddressEntry):
        raise NamespaceError("not an address record")
    found = []
    for kind in KINDS:
        bind: AddressBind | None = getattr(entry, kind)
        if bind is None:
            continue
        seen = [text for text in (bind.remote_addr, bind.remote_addr_v6) if text]
        if not any_address and not all(_is_public(text) for text in seen or bind.addresses):
            raise NamespaceError(f"an address of {kind} is not public")
        found.append(listed(kind, bind))
    return found


def _is_public(text: str) -> bool:
    try:
        return is_public(_host_of(text))
    except RequestRefusedError:
        return False

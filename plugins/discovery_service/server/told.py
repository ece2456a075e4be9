"""What callers say that they offer, checked and put in the one form that is kept.

Who says it is who offers it: a service's address begins with the caller's key (L21). Where it is on
the globe stands as the caller gives it: this server has no map of addresses. Rules and statuses:
Skywire's service discovery (docs/protocols/discovery.md).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

from discovery_service.entries import ALIASES, service_of, steady
from skycore.contracts.discovery import Record
from skycore.contracts.registry import Listed, Listing
from skycore.errors import NamespaceError, RequestRefusedError
from skycore.model.entries import Host, ServiceEntry

__all__ = [
    "KEYS_MAX",
    "Told",
    "entries_in",
    "entries_of",
    "entry_in",
    "key_of",
    "listed",
    "read",
    "read_keys",
]

KEYS_MAX: Final = 10_000
_TYPE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_VERSIONED: Final = frozenset(("vpn", "skysocks"))
_rows = msgspec.json.Decoder(dict[str, Any] | list[dict[str, Any]])
_keys: msgspec.json.Decoder[list[str]] = msgspec.json.Decoder(
    Annotated[list[Host], Meta(max_length=KEYS_MAX)]
)
_kept = msgspec.json.Decoder(ServiceEntry)
_encoder = msgspec.json.Encoder()


class Told(NamedTuple):
    """What a request says."""

    entries: tuple[ServiceEntry, ...]
    is_all: bool
    """A list: all that the caller offers. One service alone says nothing of the others."""


def read(body: bytes, public: bytes, seen: str, services_max: int) -> Told:
    """Return the services of a body that `public` sent from the address `seen`.

    Raises `RequestRefusedError`: 400 malformed, 403 for what the caller may not say, 413 too many.
    """
    try:
        rows = _rows.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise RequestRefusedError("invalid json", code=400) from None
    is_all = isinstance(rows, list)
    many = rows if isinstance(rows, list) else [rows]
    if len(many) > services_max:
        raise RequestRefusedError(f"more than {services_max} services", code=413)
    return Told(tuple(_checked(_entry(row), public, seen) for row in many), is_all)


def _entry(row: dict[str, Any]) -> ServiceEntry:
    try:
        return service_of(row)
    except msgspec.ValidationError as bad:
        raise RequestRefusedError(f"invalid json: {bad}"[:200], code=400) from None


def _checked(entry: ServiceEntry, public: bytes, seen: str) -> ServiceEntry:
    key, colon, port = entry.address.partition(":")
    if key != public.hex():
        raise RequestRefusedError("the service's key is not the signer's", code=403)
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65_536:
        raise RequestRefusedError("a service's address is key:port", code=400)
    if not _TYPE.fullmatch(entry.type) or entry.type in ALIASES:
        raise RequestRefusedError(f"{entry.type!r} is no type of service", code=400)
    if entry.type in _VERSIONED and not entry.version:
        raise RequestRefusedError(f"a {entry.type} without a version is not listed", code=403)
    if entry.type == "visor" and not _holds(entry.local_ips, seen):
        raise RequestRefusedError(
            f"{seen}, where you are seen, is none of the visor's own addresses", code=403
        )
    return entry


def _holds(addresses: Sequence[str], seen: str) -> bool:
    try:
        wanted = ipaddress.ip_address(seen)
        mapped = getattr(wanted, "ipv4_mapped", None)
        return str(mapped or wanted) in addresses
    except ValueError:
        return False


def read_keys(body: bytes) -> Sequence[str]:
    """Return a body that is a list of keys. Raises `RequestRefusedError`."""
    try:
        return _keys.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise RequestRefusedError("invalid json", code=400) from None


def key_of(kind: str, address: str) -> bytes:
    """Return what tells services of one key apart."""
    return f"{kind}\0{address}".encode()


def listed(entry: ServiceEntry) -> Listed:
    """Return a service as it is kept."""
    return Listed(entry.set_key, _encoder.encode(entry))


def entry_in(body: bytes) -> ServiceEntry:
    """Return a kept service."""
    return _kept.decode(body)


def entries_of(listing: Listing) -> Sequence[ServiceEntry]:
    """Return what is published of a listing."""
    return tuple(steady(entry_in(entry.body)) for entry in listing.entries)


def entries_in(record: Record) -> Sequence[Listed]:
    """Return what a subject's own record in the DHT says, as it is kept. Raises `NamespaceError`.

    Where its owner was seen is not known here, so what asks for that (a type `visor` at a public
    address of its own) is believed: it is signed.
    """
    found = []
    for entry in record.body or ():
        if not isinstance(entry, ServiceEntry):
            raise NamespaceError("not a service")
        seen = entry.local_ips[0] if entry.local_ips else ""
        try:
            if entry.type != "visor" or seen:
                _checked(entry, record.subject, seen)
        except RequestRefusedError as bad:
            raise NamespaceError(str(bad)) from bad
        found.append(listed(entry))
    return found

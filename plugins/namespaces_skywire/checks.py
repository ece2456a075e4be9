"""Whom the entries of a record speak of: its subject, and nobody else.

Why: an item is signed by its subject, or for it; an entry in it that names another key would pass
for that key's record wherever it is read alone (L16, C6, L20). Keys are text of whatever suite, so
they are compared as text with the subject's own. Each check is pure and raises `NamespaceError`.
"""

from __future__ import annotations

from collections.abc import Sequence

from skycore.errors import NamespaceError
from skycore.model.entries import (
    AddressEntry,
    DmsgEntry,
    DmsgServerEntry,
    FullNodeAdvert,
    ServiceEntry,
    TransportEntry,
)

__all__ = [
    "own_addresses",
    "own_advert",
    "own_entry",
    "own_server",
    "own_services",
    "own_transports",
]


def own_advert(subject: bytes, advert: FullNodeAdvert) -> None:
    """C6: nobody advertises a full node under another's key, nor what is none."""
    if advert.pk != subject.hex():
        raise NamespaceError("a full node's advert names another key than its subject")
    if not advert.full_node:
        raise NamespaceError("an advert of a node that is no full node", hint="delete it instead")


def own_entry(subject: bytes, entry: DmsgEntry) -> None:
    """L16: `static` is the subject, so no entry is published in another's name."""
    if entry.static != subject.hex():
        raise NamespaceError("a DMSG entry whose static is another key than its subject")


def own_server(subject: bytes, entry: DmsgServerEntry) -> None:
    """L16: a server speaks of itself."""
    if entry.pk != subject.hex():
        raise NamespaceError("a DMSG server's entry names another key than its subject")


def own_transports(subject: bytes, entries: Sequence[TransportEntry]) -> None:
    """Who lists a transport is one of its edges."""
    key = subject.hex()
    if any(key not in entry.edges for entry in entries):
        raise NamespaceError("a transport that its subject is no edge of")


def own_services(subject: bytes, entries: Sequence[ServiceEntry]) -> None:
    """A service's address, `key:port`, begins with the key that offers it."""
    own = f"{subject.hex()}:"
    if any(not entry.address.startswith(own) for entry in entries):
        raise NamespaceError("a service at another key than its subject", hint="address: key:port")


def own_addresses(subject: bytes, entry: AddressEntry) -> None:
    """`pk` may be left out, as older resolvers do; another key it may not be."""
    if entry.pk and entry.pk != subject.hex():
        raise NamespaceError("addresses of another key than their subject")

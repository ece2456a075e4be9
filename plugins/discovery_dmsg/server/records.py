"""Entries as records of the DHT: what is published of a listing, and what a record lists.

Why an unchanged entry is published as it first was: a client signs its entry anew every five
minutes, and nothing in it is new but sequence and timestamp. To publish each would cost a signature
and a write per client and refresh (L9); the older entry is as true, and its signature as good. Why
the signature is verified on both ways: no step trusts the one before it (L16).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from discovery_dmsg.server.rules import held_in, key_of
from skycore.contracts.discovery import Record
from skycore.contracts.namespace import Namespace
from skycore.contracts.registry import Listed, Listing
from skycore.discovery.directory import Directory
from skycore.errors import InvalidKeyError, InvalidSignatureError, NamespaceError
from skycore.model import dmsg_entry
from skycore.model.entries import DmsgEntry, DmsgServerEntry
from skycore.model.network import NetworkConstants

__all__ = ["Bodies", "entries_of", "essence", "gist_of", "server_type"]

SPARE: Final = 1_000


def server_type(public_hex: str, official: frozenset[str]) -> str:
    """Return as what a server is listed."""
    return "official" if public_hex in official else "community"


def essence(entry: DmsgEntry) -> DmsgEntry:
    """Return an entry without what changes by itself.

    Of the free sessions it keeps whether there are any: a full server is not offered to anybody.
    """
    server = entry.server
    if server is not None:
        free = min(server.available_sessions, 1)
        server = msgspec.structs.replace(server, available_sessions=free, server_type="")
    client = entry.client
    if client is not None:
        servers = tuple(sorted(client.delegated_servers))
        client = msgspec.structs.replace(client, delegated_servers=servers)
    return msgspec.structs.replace(
        entry, sequence=0, timestamp=0, signature="", server=server, client=client
    )


def entries_of(network: NetworkConstants, record: Record) -> tuple[Listed, ...]:
    """Return what a record `dmsg` lists. Raises `NamespaceError` for what its key did not sign."""
    entry = _verified(network, record.body, record.subject)
    if entry.server is None and entry.client is None:
        raise NamespaceError("a DMSG entry of neither a client nor a server")
    return (Listed(key_of(record.subject, entry), dmsg_entry.encode(entry, server_type="")),)


def _verified(network: NetworkConstants, entry: DmsgEntry, subject: bytes) -> DmsgEntry:
    try:
        public = dmsg_entry.verify(network, entry)
    except (InvalidKeyError, InvalidSignatureError) as bad:
        raise NamespaceError(f"a DMSG entry that its key did not sign: {bad}") from None
    if public != subject:
        raise NamespaceError("a DMSG entry of another key than its subject")
    return entry


def gist_of(namespace: Namespace | None, value: bytes) -> bytes:
    """Return what a record `dmsg` says, whenever it was signed: for services that share a table.

    Each goes on with the entry that it saw first; neither may take the other's for another word.
    """
    if namespace is None:
        return value
    try:
        return namespace.encode(essence(namespace.decode(value)))
    except NamespaceError:
        return value


class Bodies:
    """What is published of listings, under `dmsg` and `dmsg-server`."""

    def __init__(
        self, network: NetworkConstants, directory: Directory, official: frozenset[str]
    ) -> None:
        self._network = network
        self._directory = directory
        self._official = official
        self._told: dict[bytes, tuple[DmsgEntry, DmsgEntry]] = {}
        """By subject: the essence, and the entry that it was first seen in."""

    def entry(self, listing: Listing) -> Any:
        """Return the entry to publish under `dmsg`; None: none. Raises `NamespaceError`."""
        held = held_in(listing)
        if held is None or not held.is_live:
            self._told.pop(listing.subject, None)
            return None
        core = essence(held.entry)
        told = self._told.get(listing.subject)
        if told is not None and told[0] == core:
            return told[1]
        if len(self._told) > 2 * len(self._directory) + SPARE:
            self._told = {s: t for s, t in self._told.items() if s in self._directory}
        entry = _verified(self._network, held.entry, listing.subject)
        self._told[listing.subject] = (core, entry)
        return entry

    def server(self, listing: Listing) -> Any:
        """Return what to publish under `dmsg-server`; None: nothing."""
        held = held_in(listing)
        if held is None or not held.is_live or held.entry.server is None:
            return None
        key = listing.subject.hex()
        return DmsgServerEntry(
            key,
            held.entry.server.address,
            server_type=server_type(key, self._official),
            dht_bootstrap=held.entry.server.dht_bootstrap,
        )

"""Desk: the routes of the service discovery, from a proven request to an answer.

Who may do what: a key lists and unlists its own services; reading is anybody's, web pages included.
Every GET is answered from memory; a registration is one round trip, its nonce, its services and its
heartbeat together (L7). Routes, statuses and shapes: Skywire's service discovery
(docs/protocols/discovery.md); ours are a list in one registration, and the type "*".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from discovery_service.entries import ANY_TYPE
from discovery_service.server.settings import ServiceServerSettings
from discovery_service.server.shelf import Shelf
from discovery_service.server.told import KEYS_MAX, entry_in, key_of, listed, read, read_keys
from skycore.contracts.registry import RegistryWrite
from skycore.contracts.runtime import Clock, Identity, NodeInfo
from skycore.discovery.answers import (
    Asked,
    ErrorShape,
    Reply,
    json_reply,
    read_json,
)
from skycore.discovery.desk import Route, ServerDesk
from skycore.discovery.directory import Directory
from skycore.discovery.serving import Uptimes
from skycore.errors import RequestRefusedError
from skycore.model.entries import Key, Name

__all__ = ["ServiceDesk"]

QUANTITY_MAX: Final = 100_000
TRUE: Final = Reply(b"true")


class _UptimesAsked(msgspec.Struct, frozen=True):
    pks: Annotated[list[Key], Meta(max_length=KEYS_MAX)] = []
    v: Name = "v1"


_uptimes_asked = msgspec.json.Decoder(_UptimesAsked)


class ServiceDesk(ServerDesk):
    """Lists services. It counts requests as `registered`, `unchanged`, `deleted`, `read`, too."""

    table = "service-discovery"
    name = "sd"
    salt = b"svc"
    shape = ErrorShape.CODE
    settings: ServiceServerSettings

    def __init__(
        self,
        settings: ServiceServerSettings,
        directory: Directory,
        shelf: Shelf,
        identity: Identity,
        info: NodeInfo,
        clock: Clock,
    ) -> None:
        super().__init__(settings, directory, identity, info, clock)
        self.shelf = shelf
        self._uptimes = Uptimes(directory, clock)

    def routes(self) -> Iterable[Route]:
        """List, unlist, read."""
        return (
            ("GET", "/api/services", self._list),
            ("POST", "/api/services", self._register),
            ("GET", "/api/services/{address}", self._one),
            ("DELETE", "/api/services/{address}", self._delete),
            ("DELETE", "/api/services/deregister/{kind}", self._deregister),
            ("GET", "/uptimes", self._uptime_rows),
            ("POST", "/uptimes", self._uptime_rows_of),
        )

    def listed(self) -> tuple[str, Mapping[str, Any]]:
        """Count the services, of each type, too."""
        count = self.directory.entry_count
        return f"{count} services", {"services": count, "by_type": self.shelf.counts()}

    def health(self) -> Mapping[str, Any]:
        """Tell how many services of each type there are."""
        return {"services": self.shelf.counts()}

    # --- listing --------------------------------------------------------------------------------

    async def _register(self, asked: Asked) -> Reply:
        """List a service, or (a list) all that the caller offers and nothing else."""
        caller = self.proven(asked)
        told = read(asked.body, caller.public, caller.host, self.settings.services_max)
        written = await self.write(
            caller,
            put=tuple(listed(entry) for entry in told.entries),
            whole=told.is_all,
            lifetime_s=self.settings.entry_lifetime_s,
            beat=True,
        )
        self.counters["registered" if written.changed else "unchanged"] += 1
        return json_reply(told.entries if told.is_all else told.entries[0])

    async def _delete(self, asked: Asked) -> Reply:
        caller = self.proven(asked)
        kind, address = _kind(asked), asked.path["address"]
        if self.key(address.partition(":")[0]) != caller.public:
            raise RequestRefusedError("the service's key is not the signer's", code=403)
        gone = self._keys_of(caller.public, kind, address)
        written = await self.write(caller, remove=gone)
        self.counters["deleted"] += len(written.removed)
        return TRUE

    async def _deregister(self, asked: Asked) -> Reply:
        """A monitor's word ends services, until their keys list them again."""
        monitor, kind = self.monitor(asked), asked.path["kind"]
        words = {word: self.key(word.partition(":")[0]) for word in read_keys(asked.body)}
        await self.end(
            monitor,
            [
                RegistryWrite(subject, remove=self._keys_of(subject, kind, word))
                for word, subject in sorted(words.items())
            ],
        )
        return TRUE

    def _keys_of(self, subject: bytes, kind: str, address: str) -> tuple[bytes, ...]:
        """Return under which keys a subject lists a type at `key:port`, or at any port of `key`."""
        found = []
        for entry in self.directory.of(subject).entries:
            service = entry_in(entry.body)
            is_there = service.address == address or ":" not in address
            if is_there and kind in (service.type, ANY_TYPE):
                found.append(key_of(service.type, service.address))
        return tuple(found)

    # --- reading --------------------------------------------------------------------------------

    async def _list(self, asked: Asked) -> Reply:
        self.counters["read"] += 1
        query, kind = asked.query, _kind(asked)
        version, country = query.get("version", ""), query.get("country", "")
        quantity = _quantity(query.get("quantity", ""))
        if not version and not country and quantity is None:
            return Reply(self.shelf.whole(kind))
        return Reply(self.shelf.some(kind, version, country, quantity))

    async def _one(self, asked: Asked) -> Reply:
        """A key's service; with `type=*` all of its services, as a list."""
        self.counters["read"] += 1
        kind, address = _kind(asked), asked.path["address"]
        rows = [
            row
            for row in self.shelf.of(self.key(address.partition(":")[0]), kind)
            if ":" not in address or row.entry.address == address
        ]
        if kind == ANY_TYPE:
            return Reply(b"[" + b",".join(row.body for row in rows) + b"]")
        if not rows:
            raise RequestRefusedError("service not found", code=404)
        return Reply(rows[0].body)

    async def _uptime_rows(self, asked: Asked) -> Reply:
        return await self._uptimes_of(None, asked.query.get("v", "v1"))

    async def _uptime_rows_of(self, asked: Asked) -> Reply:
        wanted = read_json(_uptimes_asked, asked.body)
        return await self._uptimes_of({bytes(self.key(word)) for word in wanted.pks}, wanted.v)

    async def _uptimes_of(self, subjects: Collection[bytes] | None, version: str) -> Reply:
        self.counters["read"] += 1
        return json_reply(await self._uptimes.rows(subjects, version=version))


def _kind(asked: Asked) -> str:
    kind = asked.query.get("type", "")
    if not kind:
        raise RequestRefusedError("which type? ?type=vpn", code=400)
    return kind


def _quantity(text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or int(text[:9]) > QUANTITY_MAX:
        raise RequestRefusedError("quantity is no number", code=400)
    return int(text)

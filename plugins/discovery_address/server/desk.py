"""Desk: the routes of the address resolver, from a proven request to an answer.

Who may do what: a key binds and unbinds itself, at the address that it is seen at; whoever signs
may ask where another one is. Every answer comes from memory; every accepted write is one round
trip. Why `bind` stands apart from its route: binds of sudph come in by UDP, from a part of their
own, and mean the same. Routes, statuses and shapes: Skywire's address resolver
(docs/protocols/discovery.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from discovery_address.server.settings import AddressServerSettings
from discovery_address.server.told import (
    bind_in,
    entry_of,
    listed,
    observed_host,
    read_bind,
    read_keys,
)
from skycore.contracts.registry import RegistryWrite
from skycore.contracts.runtime import Clock, Identity, NodeInfo
from skycore.discovery.answers import Asked, ErrorShape, Reply, json_reply
from skycore.discovery.binds import KINDS, ORDINARY
from skycore.discovery.callers import Caller
from skycore.discovery.desk import Route, ServerDesk
from skycore.discovery.directory import Directory
from skycore.errors import RequestRefusedError
from skycore.model.entries import AddressBind
from skycore.model.keys import PubKey

__all__ = ["AddressDesk"]

Resolved = Callable[[str, bytes, bytes], None]
"""Told of each answer: type, whose address, who asked."""


class AddressDesk(ServerDesk):
    """Keeps binds and answers requests. It counts requests as `bound`, `unchanged`, `unbound`,
    `resolved`, `unknown`, too.
    """

    table = "address-resolver"
    name = "ar"
    salt = b"addr"
    shape = ErrorShape.TEXT
    settings: AddressServerSettings

    def __init__(
        self,
        settings: AddressServerSettings,
        directory: Directory,
        identity: Identity,
        info: NodeInfo,
        clock: Clock,
    ) -> None:
        super().__init__(settings, directory, identity, info, clock)
        self.udp_address = ""
        """Where sudph binds are taken, for /health; set by the part that takes them."""
        self._watchers: list[Resolved] = []
        self._lists: dict[str, tuple[int, bytes]] = {}

    def routes(self) -> Iterable[Route]:
        """Bind, unbind, resolve."""
        return (
            ("POST", "/bind/stcpr", self._bind),
            ("DELETE", "/bind/stcpr", self._unbind),
            ("GET", "/resolve/{kind}/{key}", self._resolve),
            ("GET", "/transports", self._transports),
            ("GET", "/entries", self._entries),
            ("DELETE", "/deregister/{kind}", self._deregister),
        )

    def listed(self) -> tuple[str, Mapping[str, Any]]:
        """Count the binds."""
        count = self.directory.entry_count
        return f"{count} binds", {"binds": count}

    def health(self) -> Mapping[str, Any]:
        """Tell where sudph binds are taken."""
        return {"udp_address": self.udp_address, "subjects": len(self.directory)}

    # --- binds, however they come in ------------------------------------------------------------

    async def bind(
        self, kind: str, public: bytes, bind: AddressBind, caller: Caller | None = None
    ) -> None:
        """Keep where a key takes connections of a type, for the lifetime of the settings.

        `public` is proven by whoever calls this, and `bind` holds what was seen of it; `caller`
        where a request proved it. Raises `RequestRefusedError` for a nonce that is not the next
        one, and where the caller's address has no room left; `StoreError`.
        """
        caller = caller or Caller(PubKey(public), None)
        written = await self.write(
            caller, put=(listed(kind, bind),), lifetime_s=self.settings.entry_lifetime_s
        )
        self.counters["bound" if written.changed else "unchanged"] += 1

    async def unbind(self, kind: str, public: bytes, caller: Caller | None = None) -> bool:
        """Forget a bind; tell whether there was one. Raises as `bind`."""
        caller = caller or Caller(PubKey(public), None)
        written = await self.write(caller, remove=(kind.encode(),))
        self.counters["unbound"] += len(written.removed)
        return bool(written.removed)

    def find(self, kind: str, public: bytes) -> AddressBind | None:
        """Return where a key takes connections of a type."""
        wanted = kind.encode()
        for entry in self.directory.of(public).entries:
            if entry.key == wanted:
                return bind_in(entry.body)
        return None

    @contextmanager
    def on_resolve(self, told: Resolved) -> Iterator[None]:
        """Be told who asked for whom: a key behind a router must send first to who dials it."""
        self._watchers.append(told)
        try:
            yield
        finally:
            self._watchers.remove(told)

    # --- requests -------------------------------------------------------------------------------

    async def _bind(self, asked: Asked) -> Reply:
        """Bind, and tell what was bound: so a visor learns its own address."""
        caller = self.proven(asked)
        bind = read_bind(asked.body, _seen(asked), any_address=self.settings.private_addresses)
        await self.bind(ORDINARY, caller.public, bind, caller)
        return json_reply(bind)

    async def _unbind(self, asked: Asked) -> Reply:
        caller = self.proven(asked)
        await self.unbind(ORDINARY, caller.public, caller)
        return Reply()

    async def _resolve(self, asked: Asked) -> Reply:
        caller = self.proven(asked)
        kind, public = _kind(asked), self.key(asked.path["key"])
        await self.write(caller)
        bind = self.find(kind, public)
        if bind is None:
            self.counters["unknown"] += 1
            raise RequestRefusedError("no entry was found", code=404)
        self.counters["resolved"] += 1
        for told in tuple(self._watchers):
            told(kind, public, caller.public)
        here = _seen(asked)
        is_local = bool(here) and here in (_host(bind.remote_addr), bind.remote_addr_v6)
        return json_reply(msgspec.structs.replace(bind, is_local=is_local))

    async def _transports(self, asked: Asked) -> Reply:
        """Who is bound, by type. Upstream's clients sign this, and count on their nonce."""
        if self.signs(asked):
            caller = self.proven(asked)
            await self.write(caller)

        def keys() -> Any:
            found: dict[str, list[str]] = {kind: [] for kind in sorted(KINDS, reverse=True)}
            for listing in self.directory:
                for entry in listing.entries:
                    found.setdefault(entry.key.decode(), []).append(listing.subject.hex())
            return {kind: sorted(those) for kind, those in found.items()}

        return self._listed("transports", keys)

    async def _entries(self, asked: Asked) -> Reply:
        """All binds, in one answer; upstream has no such route."""
        return self._listed(
            "entries",
            lambda: [entry_of(one) for one in sorted(self.directory, key=lambda o: o.subject)],
        )

    def _listed(self, name: str, make: Callable[[], Any]) -> Reply:
        """Answer with a list that is made once for each state of the table."""
        version, body = self._lists.get(name, (-1, b""))
        if version != self.directory.version:
            version, body = self.directory.version, msgspec.json.encode(make())
            self._lists[name] = version, body
        return Reply(body)

    async def _deregister(self, asked: Asked) -> Reply:
        """A monitor's word ends binds, until their keys bind again."""
        monitor, kind = self.monitor(asked), _kind(asked)
        keys = {self.key(word) for word in read_keys(asked.body)}
        gone = (kind.encode(),)
        await self.end(monitor, [RegistryWrite(key, remove=gone) for key in sorted(keys)])
        return Reply(b"null")


def _seen(asked: Asked) -> str:
    """Return the address that a request came from."""
    client = asked.scope.get("client")
    return observed_host(client[0]) if client else ""


def _kind(asked: Asked) -> str:
    kind = asked.path["kind"]
    if kind not in KINDS:
        raise RequestRefusedError(f"{kind[:80]!r} is none of {', '.join(KINDS)}", code=400)
    return kind


def _host(text: str) -> str:
    """Return the address of `address` or `address:port` (IPv4: how sudph is told)."""
    return text.partition(":")[0]

"""Desk: the routes of the address resolver, from a proven request to an answer.

Who may do what: a key binds and unbinds itself, at the address that it is seen at; whoever signs
may ask where another one is. Every answer comes from memory; every accepted write is one round
trip. Why `bind` stands apart from its route: binds of sudph come in by UDP, from a part of their
own, and mean the same. Routes, statuses and shapes: Skywire's address resolver
(docs/protocols/discovery.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
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
from skycore.contracts.registry import RegistryWrite, RegistryWritten
from skycore.contracts.runtime import Clock, NodeInfo
from skycore.discovery.answers import Asked, Desk, ErrorShape, Handler, Reply, json_reply
from skycore.discovery.binds import KINDS, ORDINARY
from skycore.discovery.callers import Caller, Callers
from skycore.discovery.directory import Directory
from skycore.discovery.quotas import SourceQuotas
from skycore.discovery.serving import CallerRates, once_loaded, started_at
from skycore.errors import RequestRefusedError
from skycore.model.entries import AddressBind
from skycore.model.keys import PubKey

__all__ = ["AddressDesk"]

Resolved = Callable[[str, bytes, bytes], None]
"""Told of each answer: type, whose address, who asked."""


class AddressDesk:
    """Keeps binds and answers requests. `app` is the ASGI application."""

    def __init__(
        self,
        settings: AddressServerSettings,
        directory: Directory,
        callers: Callers,
        info: NodeInfo,
        clock: Clock,
    ) -> None:
        self.settings = settings
        self.directory = directory
        self.udp_address = ""
        """Where sudph binds are taken, for /health; set by the part that takes them."""
        self.counters: Counter[str] = Counter()
        """Requests by how they ended: `bound`, `unchanged`, `unbound`, `resolved`, `unknown`,
        `deregistered`, and `refused_STATUS`."""
        self._callers = callers
        self._info = info
        self._started_at = started_at(clock)
        self._rates = CallerRates(
            settings.requests_per_minute, settings.burst, settings.callers_remembered_max, clock
        )
        self._quotas = SourceQuotas(settings, directory, clock)
        self._watchers: list[Resolved] = []
        self._lists: dict[str, tuple[int, bytes]] = {}
        routes = once_loaded(self._routes(), directory)
        self.app = Desk(ErrorShape.TEXT, [(m, p, self._counted(h)) for m, p, h in routes])

    def _routes(self) -> Iterable[tuple[str, str, Handler]]:
        return (
            ("POST", "/bind/stcpr", self._bind),
            ("DELETE", "/bind/stcpr", self._unbind),
            ("GET", "/resolve/{kind}/{key}", self._resolve),
            ("GET", "/transports", self._transports),
            ("GET", "/entries", self._entries),
            ("DELETE", "/deregister/{kind}", self._deregister),
            ("GET", "/security/nonces/{key}", self._nonce),
            ("GET", "/health", self._health),
        )

    def _counted(self, handler: Handler) -> Handler:
        async def counting(asked: Asked) -> Reply:
            try:
                return await handler(asked)
            except RequestRefusedError as refused:
                self.counters[f"refused_{refused.code}"] += 1
                raise

        return counting

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
        written = await self._write(
            caller, put=(listed(kind, bind),), lifetime_s=self.settings.entry_lifetime_s
        )
        self.counters["bound" if written.changed else "unchanged"] += 1

    async def unbind(self, kind: str, public: bytes, caller: Caller | None = None) -> bool:
        """Forget a bind; tell whether there was one. Raises as `bind`."""
        caller = caller or Caller(PubKey(public), None)
        written = await self._write(caller, remove=(kind.encode(),))
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

    async def _write(self, caller: Caller, **said: Any) -> RegistryWritten:
        """Do what is said of a key and use its nonce up, in one round trip."""
        write = RegistryWrite(caller.public, nonce=caller.nonce, **said)
        with self._quotas.admit(caller.public, caller.host, write.put):
            (written,) = await self.directory.write((write,))
            return self._rates.settle(caller.public, written)

    # --- requests -------------------------------------------------------------------------------

    def _proven(self, asked: Asked) -> Caller:
        caller = self._callers.prove(asked.scope, asked.body)
        self._rates.take(caller.public)
        return caller

    async def _bind(self, asked: Asked) -> Reply:
        """Bind, and tell what was bound: so a visor learns its own address."""
        caller = self._proven(asked)
        bind = read_bind(asked.body, _seen(asked), any_address=self.settings.private_addresses)
        await self.bind(ORDINARY, caller.public, bind, caller)
        return json_reply(bind)

    async def _unbind(self, asked: Asked) -> Reply:
        caller = self._proven(asked)
        await self.unbind(ORDINARY, caller.public, caller)
        return Reply()

    async def _resolve(self, asked: Asked) -> Reply:
        caller = self._proven(asked)
        kind, public = _kind(asked), self._key(asked)
        await self._write(caller)
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
        if self._callers.signs(asked.scope):
            caller = self._proven(asked)
            await self._write(caller)

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
        monitor = self._callers.prove_monitor(asked.scope, asked.body)
        self._rates.take(monitor.public)
        kind = _kind(asked)
        keys = {self._callers.key(word) for word in read_keys(asked.body)}
        if monitor.nonce is not None:  # first: of a batch, each write stands by itself
            await self._write(monitor)
        written = await self.directory.write(
            [RegistryWrite(key, remove=(kind.encode(),)) for key in sorted(keys)]
        )
        self.counters["deregistered"] += sum(len(one.removed) for one in written)
        return Reply(b"null")

    async def _nonce(self, asked: Asked) -> Reply:
        try:
            public = self._key(asked)
        except RequestRefusedError as bad:
            return json_reply({"error": {"message": str(bad), "code": 400}}, 400)
        nonce = await self.directory.next_nonce(public)
        return json_reply({"edge": public.hex(), "next_nonce": nonce})

    async def _health(self, asked: Asked) -> Reply:
        return json_reply(
            {
                "service_name": "address-resolver",
                "build_info": {"version": self._info.version},
                "started_at": self._started_at,
                "dmsg_address": "",
                "dmsg_servers": [],
                "udp_address": self.udp_address,
                "network": self._info.network,
                "subjects": len(self.directory),
                "trouble": self.directory.trouble,
            }
        )

    def _key(self, asked: Asked) -> PubKey:
        return self._callers.key(asked.path["key"])


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

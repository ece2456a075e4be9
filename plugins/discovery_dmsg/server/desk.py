"""The routes of DMSG discovery. An entry's own signature is all the authentication there is.

Why the directory is asked before the registry: what it holds already rules out most that breaks a
rule, at no cost; the write, which is one round trip, then has the last word (L7). Source of routes,
messages and codes: Skywire's dmsg discovery (docs/protocols/discovery.md).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from discovery_dmsg.server import rules
from discovery_dmsg.server.lists import Lists
from discovery_dmsg.settings import DmsgServerSettings
from skycore.contracts.registry import RegistryWrite
from skycore.contracts.runtime import Clock, Identity, NodeInfo
from skycore.discovery.answers import (
    Asked,
    Desk,
    ErrorShape,
    Handler,
    Reply,
    error_body,
    json_reply,
    read_json,
)
from skycore.discovery.callers import Callers, check, host_of
from skycore.discovery.directory import Directory
from skycore.discovery.feeding import Feeding
from skycore.discovery.quotas import SourceQuotas
from skycore.discovery.serving import Uptimes, started_at
from skycore.discovery.taking import Taking
from skycore.errors import DecodeError, RequestRefusedError
from skycore.model import dmsg_entry
from skycore.model.entries import DmsgEntry
from skycore.model.keys import short

__all__ = ["SHAPE", "DmsgDesk"]

log = logging.getLogger(__name__)
SHAPE: Final = ErrorShape.MESSAGE
KEYS_MAX: Final = 1_024
"""Keys in one request."""
ENTRY_BYTES_MAX: Final = 12 * 1024
"""Enough for 64 servers; less than what a registry takes of one entry."""
BAD_INPUT: Final = "error bad input"
_Text = Annotated[str, Meta(max_length=512)]
_keys = msgspec.json.Decoder(Annotated[list[_Text], Meta(max_length=KEYS_MAX)])


class _Wanted(msgspec.Struct, frozen=True):
    """Body of `POST /uptimes`."""

    pks: Annotated[list[_Text], Meta(max_length=KEYS_MAX)] = []
    v: Annotated[str, Meta(max_length=16)] = "v1"


_wanted = msgspec.json.Decoder(_Wanted)


class DmsgDesk:
    """What the service keeps, and its answers. Made by `service.open_desk`."""

    def __init__(
        self,
        settings: DmsgServerSettings,
        identity: Identity,
        clock: Clock,
        directory: Directory,
        lists: Lists,
        info: NodeInfo,
    ) -> None:
        self.directory = directory
        self.counters: Counter[str] = Counter()
        """`written`, `deleted`, `deregistered`: entries; `refused` requests."""
        self.feedings: tuple[Feeding, ...] = ()
        """Of the salts `dmsg` and `dmsg-server`; none where nothing is published."""
        self.taking: Taking | None = None
        self._settings, self._identity, self._clock = settings, identity, clock
        self.lists = lists
        self._callers = Callers(identity, settings)
        self._quotas = SourceQuotas(settings, directory, clock)
        self._uptimes = Uptimes(directory, clock)
        self._health = {
            "service_name": "dmsg-discovery",
            "build_info": {"version": info.version},
            "started_at": started_at(clock),
        }
        self.app = Desk(SHAPE, [(*route[:2], self._told(route[2])) for route in self._routes()])

    def _routes(self) -> Sequence[tuple[str, str, Handler]]:
        at = "/dmsg-discovery"
        return [
            ("GET", f"{at}/entry/{{key}}", self._entry),
            ("POST", f"{at}/entry", self._write),
            ("POST", f"{at}/entry/{{key}}", self._write),
            ("DELETE", f"{at}/entry", self._delete),
            ("GET", f"{at}/entries", self._list(self.lists.entries)),
            ("GET", f"{at}/visorEntries", self._list(self.lists.visor_entries)),
            ("POST", f"{at}/entries/batch", self._batch),
            ("GET", f"{at}/available_servers", self._list(self.lists.available_servers)),
            ("GET", f"{at}/all_servers", self._list(self.lists.all_servers)),
            ("GET", f"{at}/servers/clients", self._list(self.lists.clients_by_server)),
            ("GET", f"{at}/server/{{key}}/clients", self._clients_of),
            ("DELETE", f"{at}/deregister", self._deregister),
            ("GET", "/uptimes", self._uptimes_of_all),
            ("POST", "/uptimes", self._uptimes_of_some),
            ("GET", "/security/nonces/{key}", self._nonce),
            ("GET", "/health", self._tell_health),
        ]

    def _told(self, handler: Handler) -> Handler:
        """Return a handler that counts refusals, and tells those of entries in this shape."""

        async def answer(asked: Asked) -> Reply:
            try:
                return await handler(asked)
            except RequestRefusedError as refused:
                self.counters["refused"] += 1
                if refused.code == 401 and handler in (self._write, self._delete):
                    return Reply(error_body(SHAPE, 401, str(refused)), 401)
                raise

        return answer

    # --- reading ---------------------------------------------------------------------------------

    async def _entry(self, asked: Asked) -> Reply:
        held = rules.held_in(self.directory.of(self._key(asked.path["key"])))
        if held is None or not held.is_live:
            raise self._missing(rules.UNKNOWN)
        return Reply(held.body)

    def _list(self, make: Callable[[], bytes | None]) -> Callable[[Asked], Awaitable[Reply]]:
        async def answer(asked: Asked) -> Reply:
            body = make()
            if body is None:
                raise self._missing(rules.NO_SERVERS)
            if not self.directory.is_loaded:  # a list that may be a part is not told as the whole
                raise self._missing(rules.UNKNOWN)
            return Reply(body)

        return answer

    async def _clients_of(self, asked: Asked) -> Reply:
        return Reply(self.lists.clients_of(self._key(asked.path["key"]).hex()))

    async def _batch(self, asked: Asked) -> Reply:
        found = {}
        for text in dict.fromkeys(read_json(_keys, asked.body)):
            try:
                public = self._key(text)
            except RequestRefusedError:  # it has no entry: that is an answer
                continue
            held = rules.held_in(self.directory.of(public))
            if held is not None and held.is_live:
                found[text] = msgspec.Raw(held.body)
        return json_reply(found)

    async def _uptimes_of_all(self, asked: Asked) -> Reply:
        version = asked.query.get("v", "v1")
        return json_reply(await self._uptimes.rows(version=version))

    async def _uptimes_of_some(self, asked: Asked) -> Reply:
        wanted = read_json(_wanted, asked.body)
        keys = {self._key(text) for text in wanted.pks}
        return json_reply(await self._uptimes.rows(keys, version=wanted.v))

    async def _nonce(self, asked: Asked) -> Reply:
        public = self._key(asked.path["key"])
        nonce = await self.directory.next_nonce(public)
        return json_reply({"edge": public.hex(), "next_nonce": nonce})

    async def _tell_health(self, asked: Asked) -> Reply:
        return json_reply(self._health)

    def _key(self, text: str) -> bytes:
        return self._callers.key(text)

    def _missing(self, message: str) -> RequestRefusedError:
        """Return the refusal of what is not there; or not known, while nothing was read yet."""
        if not self.directory.is_loaded:
            return RequestRefusedError("entries are not read yet", code=503)
        return RequestRefusedError(message, code=404)

    # --- writing ---------------------------------------------------------------------------------

    def _read_entry(self, asked: Asked) -> DmsgEntry:
        if len(asked.body) > ENTRY_BYTES_MAX:
            raise RequestRefusedError(
                f"{BAD_INPUT}: an entry has at most {ENTRY_BYTES_MAX} bytes", code=400
            )
        try:
            entry = dmsg_entry.decode(asked.body)
        except DecodeError as bad:
            raise RequestRefusedError(f"{BAD_INPUT}: {bad}", code=400) from None
        if asked.path.get("key", entry.static) != entry.static:
            raise RequestRefusedError(f"{BAD_INPUT}: the entry is of another key", code=400)
        return entry

    async def _write(self, asked: Asked) -> Reply:
        entry, is_short = self._read_entry(asked), asked.query.get("timeout") == "true"
        if await self.register(entry, host_of(asked.scope), is_short=is_short):
            return json_reply({"message": "wrote a new entry", "code": 200})
        return json_reply({"message": "wrote new entry iteration", "code": 200})

    async def register(self, entry: DmsgEntry, host: str, *, is_short: bool = False) -> bool:
        """List a signed entry; tell whether its key had none. Raises `RequestRefusedError`.

        `host` is where it came from; empty: from this node itself.
        """
        rules.check_entry(entry, self._clock.wall_ns(), self._settings)
        public = rules.check_signed(self._identity.network, entry)
        held = rules.held_in(self.directory.of(public))
        rules.check_after(held, entry)
        life_s = rules.lifetime_s(entry, self._settings, is_short=is_short)
        await self._put(rules.registration(public, entry, life_s), host)
        self.counters["written"] += 1
        if held is not None and held.is_live:
            return False
        level = logging.DEBUG if entry.server is None else logging.INFO  # clients are thousands
        log.log(level, "entry registered pk=%s server=%s", short(public), entry.server is not None)
        return True

    async def _delete(self, asked: Asked) -> Reply:
        await self.end(self._read_entry(asked), host_of(asked.scope))
        return json_reply({"message": "deleted entry", "code": 200})

    async def end(self, entry: DmsgEntry, host: str) -> None:
        """Do what a signed deletion says. Raises `RequestRefusedError`."""
        rules.check_deletion(entry, self._clock.wall_ns(), self._settings)
        public = rules.check_signed(self._identity.network, entry, deletes=True)
        held = rules.held_in(self.directory.of(public))
        if held is None or not held.is_live:
            raise self._missing(rules.UNKNOWN)
        rules.check_after(held, entry)
        await self._put(rules.deletion(public, entry, self._settings), host)
        self.counters["deleted"] += 1
        log.debug("entry deleted pk=%s", short(public))

    async def _put(self, write: RegistryWrite, host: str) -> None:
        with self._quotas.admit(write.subject, host, write.put, whole=write.whole):
            (written,) = await self.directory.write([write])
            if written.error == "stamp":
                raise rules.wrong(rules.WRONG_SEQUENCE)
            check(written)

    async def _deregister(self, asked: Asked) -> Reply:
        caller = self._callers.prove_monitor(asked.scope, asked.body)
        keys = [self._key(text) for text in read_json(_keys, asked.body)]
        if caller.nonce is not None:  # first, and by itself: a batch is no transaction
            used = RegistryWrite(caller.public, nonce=caller.nonce)
            check((await self.directory.write([used]))[0])
        held = {key: rules.held_in(self.directory.of(key)) for key in keys}
        ends = [
            rules.deletion(key, entry.entry, self._settings, must_rise=False)
            for key, entry in held.items()
            if entry is not None and entry.is_live
        ]
        await self.directory.write(ends)
        self.counters["deregistered"] += len(ends)
        log.info("entries deregistered by=%s count=%d", short(caller.public), len(ends))
        return json_reply(None)

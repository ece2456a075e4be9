"""Desk: the routes of the transport discovery, from a proven request to an answer.

Who may do what: a key lists and unlists its own; reading is anybody's. Every GET is answered from
memory; every accepted write is one round trip, its nonce, its entries and its heartbeat together
(L7). Routes, statuses and shapes: Skywire's transport discovery (docs/protocols/discovery.md).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from discovery_transport.server import fleet as lists
from discovery_transport.server.fleet import Fleet
from discovery_transport.server.settings import TransportServerSettings
from discovery_transport.server.told import (
    ids_in,
    is_key,
    listed,
    read_entries,
    read_signed,
    read_words,
)
from skycore.contracts.registry import Listed, RegistryWrite
from skycore.contracts.runtime import Clock, Identity, NodeInfo
from skycore.discovery.answers import (
    Asked,
    ErrorShape,
    Reply,
    holds,
    json_reply,
    takes_gzip,
)
from skycore.discovery.callers import Caller
from skycore.discovery.desk import Route, ServerDesk
from skycore.discovery.directory import Directory
from skycore.discovery.serving import Uptimes
from skycore.errors import RequestRefusedError
from skycore.model.keys import PubKey

__all__ = ["TransportDesk"]

KEYS_MAX: Final = 10_000
"""Keys that one request asks about."""
FOUND_MAX: Final = 10_000
"""Entries that it is answered: whoever wants more reads the list of all, which is made once."""
FOREIGN_DIGITS_MIN: Final = 66
"""Of a key of another suite, as Skywire's network has them."""
NULL: Final = Reply(b"null")
RECORD_SEQ: Final = b"sky-record-seq"
"""By it an edge sees that its own DHT record keeps its listing alive, and rests (L12)."""


class TransportDesk(ServerDesk):
    """Lists transports. It counts requests as `registered`, `unchanged`, `deleted`, `beats`,
    `read`, `not_modified`, too.
    """

    table = "transport-discovery"
    name = "tpd"
    salt = b"tp"
    shape = ErrorShape.TEXT
    settings: TransportServerSettings

    def __init__(
        self,
        settings: TransportServerSettings,
        directory: Directory,
        fleet: Fleet,
        identity: Identity,
        info: NodeInfo,
        clock: Clock,
    ) -> None:
        super().__init__(settings, directory, identity, info, clock)
        self.fleet = fleet
        self.record_seq: Callable[[bytes], int] = lambda subject: 0
        """Which seq of a subject's own DHT record its listing was taken from; 0: from none."""
        self._uptimes = Uptimes(directory, clock)

    def routes(self) -> Iterable[Route]:
        """List, unlist, read."""
        return (
            ("POST", "/transports", self._register_signed),
            ("POST", "/v3/transports", self._register),
            ("GET", "/transports/id:{id}", self._by_id),
            ("GET", "/transports/edge:{key}", self._by_edge),
            ("GET", "/v3/transports/edge:{key}", self._by_edge),
            ("POST", "/transports/edges", self._by_edges),
            ("GET", "/all-transports", self._all),
            ("GET", "/all-transports/stats", self._stats),
            ("GET", "/all-transports/per-key-stats", self._per_key),
            ("GET", "/transports/stats/{key}", self._stats_of),
            ("DELETE", "/transports/id:{id}", self._delete),
            ("POST", "/transports/delete-batch", self._delete_batch),
            ("DELETE", "/transports/deregister", self._deregister),
            ("GET", "/v4/update", self._beat),
            ("GET", "/uptimes", self._uptime_rows),
            ("POST", "/statuses", self._gone),
        )

    def listed(self) -> tuple[str, Mapping[str, Any]]:
        """Count the transports, and those that one edge alone lists."""
        count = len(self.fleet)
        return f"{count} transports", {"transports": count, "one_sided": self.fleet.one_sided}

    def health(self) -> Mapping[str, Any]:
        """Count keys and transports."""
        return {"subjects": len(self.directory), "transports": len(self.fleet)}

    async def _seen(self, asked: Asked) -> None:
        """Count what is read; upstream's clients sign some of it, and count on their nonce."""
        self.counters["read"] += 1
        if self.signs(asked):
            await self.write(self.proven(asked))

    # --- listing --------------------------------------------------------------------------------

    async def _register(self, asked: Asked) -> Reply:
        caller = self.proven(asked)
        told = read_entries(asked.body)
        put = self._checked(told, caller)
        await self._list(caller, put)
        return Reply(_array(entry.body for entry in put), 201)

    async def _register_signed(self, asked: Asked) -> Reply:
        """The older form; answers what it was told, or (?sync=true) the whole network."""
        caller = self.proven(asked)
        told = read_signed(asked.body)
        is_sync = asked.query.get("sync") == "true"
        await self._list(caller, self._checked([one.entry for one in told], caller))
        if is_sync:
            return Reply(self.fleet.whole(lists.ALL).body, 201)
        now = self._clock.wall_ns()
        return json_reply([msgspec.structs.replace(one, registered=now) for one in told], 201)

    def _checked(self, told: Sequence[Any], caller: Caller) -> tuple[Listed, ...]:
        most = self.settings.transports_max
        known = self.fleet.said_by(caller.public)
        if len(told) <= most:
            put = listed(told, caller.public, known)
            if len(known) + sum(entry.key not in known for entry in put) <= most:
                return put
        raise RequestRefusedError(f"more than {most} transports", code=413)

    async def _list(self, caller: Caller, put: tuple[Listed, ...]) -> None:
        written = await self.write(
            caller, put=put, lifetime_s=self.settings.entry_lifetime_s, beat=True
        )
        self.counters["registered" if written.changed else "unchanged"] += 1

    async def _delete(self, asked: Asked) -> Reply:
        caller = self.proven(asked)
        key = _id(asked.path["id"])
        row = self.fleet.row(key)
        if row is None:
            await self.write(caller)  # so that a replay is told as one
            raise RequestRefusedError("transport not found", code=404)
        if caller.public.hex() not in row.edges:
            raise RequestRefusedError("the key that deletes is none of its edges", code=400)
        written = await self.write(caller, remove=(key,))
        self.counters["deleted"] += len(written.removed)
        return Reply(b"transport deleted", kind="text/plain; charset=utf-8")

    async def _delete_batch(self, asked: Asked) -> Reply:
        caller = self.proven(asked)
        words = read_words(asked.body)
        if len(words) > self.settings.transports_max:
            raise RequestRefusedError("too many ids", code=413)
        own = {entry.key for entry in self.directory.of(caller.public).entries}
        written = await self.write(caller, remove=tuple(k for k in ids_in(words) if k in own))
        deleted = len(written.removed)
        self.counters["deleted"] += deleted
        return json_reply({"deleted": deleted, "skipped": len(words) - deleted})

    async def _deregister(self, asked: Asked) -> Reply:
        """A monitor's word ends a transport for both edges, until one of them lists it again."""
        monitor = self.monitor(asked)
        words = read_words(asked.body)
        keys = ids_in(words)
        if len(keys) < len(set(words)) or len(keys) > self.settings.transports_max:
            raise RequestRefusedError("the body is no list of transport ids", code=400)
        by_subject: dict[bytes, list[bytes]] = {}
        for key in keys:
            for subject in self.directory.having(key):
                by_subject.setdefault(subject, []).append(key)
        await self.end(
            monitor,
            [RegistryWrite(subject, remove=tuple(those)) for subject, those in by_subject.items()],
        )
        return NULL

    async def _beat(self, asked: Asked) -> Reply:
        await self.write(self.proven(asked), beat=True)
        self.counters["beats"] += 1
        return NULL

    # --- reading --------------------------------------------------------------------------------

    async def _by_id(self, asked: Asked) -> Reply:
        await self._seen(asked)
        row = self.fleet.row(_id(asked.path["id"]))
        if row is None:
            raise RequestRefusedError("transport not found", code=404)
        return Reply(row.marked if asked.query.get("sides") else row.body)

    async def _by_edge(self, asked: Asked) -> Reply:
        await self._seen(asked)
        subject = self._key(asked)
        entries = self.directory.of(subject).entries
        if not entries:
            raise RequestRefusedError("this key lists no transports", code=404)
        seq = self.record_seq(subject)
        headers = ((RECORD_SEQ, b"%d" % seq),) if seq else ()
        return Reply(_array(entry.body for entry in entries), headers=headers)

    async def _by_edges(self, asked: Asked) -> Reply:
        self.counters["read"] += 1
        words = dict.fromkeys(read_words(asked.body))
        if len(words) > KEYS_MAX:
            raise RequestRefusedError(f"more than {KEYS_MAX} keys", code=413)
        found: dict[bytes, bytes] = {}
        for word in words:
            if is_key(word):
                found |= dict(self.directory.of(bytes.fromhex(word)).entries)
            if len(found) > FOUND_MAX:
                raise RequestRefusedError(f"more than {FOUND_MAX} transports", code=413)
        return Reply(_array(found.values()))

    async def _all(self, asked: Asked) -> Reply:
        query = asked.query
        if query.get("sides"):
            return await self._whole(asked, lists.SIDES)
        is_without = query.get("selfTransports") == "hide"
        return await self._whole(asked, lists.NO_SELF if is_without else lists.ALL)

    async def _stats(self, asked: Asked) -> Reply:
        return await self._whole(asked, lists.STATS)

    async def _per_key(self, asked: Asked) -> Reply:
        return await self._whole(asked, lists.PER_KEY)

    async def _whole(self, asked: Asked, kind: str) -> Reply:
        """Answer with a list of the whole network, in as few bytes as the client lets us."""
        self.counters["read"] += 1
        if not len(self.fleet):
            raise RequestRefusedError("no transports are listed", code=404)
        tag = self.fleet.tag(kind)
        if holds(asked, tag):
            self.counters["not_modified"] += 1
            return Reply(b"", 304, headers=((b"etag", tag),))
        if not takes_gzip(asked):
            whole = self.fleet.whole(kind)
            return Reply(whole.body, headers=((b"etag", whole.tag),))
        packed = await self.fleet.packed(kind)
        return Reply(
            packed.body,
            headers=(
                (b"etag", b"W/" + packed.tag),
                (b"content-encoding", b"gzip"),
                (b"vary", b"accept-encoding"),
            ),
        )

    async def _stats_of(self, asked: Asked) -> Reply:
        self.counters["read"] += 1
        by_type = self.fleet.stats_of(self._key(asked))
        if not by_type:
            raise RequestRefusedError("this key lists no transports", code=404)
        return json_reply({"total": sum(by_type.values()), "by_type": by_type})

    async def _uptime_rows(self, asked: Asked) -> Reply:
        self.counters["read"] += 1
        query = asked.query
        words = [word for word in query.get("visors", "").replace(";", ",").split(",") if word]
        subjects = {bytes.fromhex(word) for word in words[:KEYS_MAX] if is_key(word)}
        rows = await self._uptimes.rows(subjects if words else None, version=query.get("v", "v1"))
        return json_reply(rows)

    async def _gone(self, asked: Asked) -> Reply:
        raise RequestRefusedError("transports tell no statuses any more", code=410)

    def _key(self, asked: Asked) -> PubKey:
        """Return a key of a path. One of another suite is a key too, which lists nothing here."""
        text = asked.path["key"]
        try:
            return self.key(text)
        except RequestRefusedError:
            if not is_key(text) or len(text) < FOREIGN_DIGITS_MIN:
                raise
            return PubKey(bytes.fromhex(text))


def _id(text: str) -> bytes:
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        raise RequestRefusedError(f"{text[:80]!r} is no transport id", code=400) from None


def _array(bodies: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(bodies) + b"]"

"""The DHT's RPC methods: dht.status, get, put, delete, list, sync, peers.

Why put and delete go through the publisher: it is the only source of seq, so two writers on one
node never give one number to two values. Why a listing isolates bad values: one value that could
not be read made the original's whole listing fail, and its count stopped at a thousand (C52).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from dht_kademlia import rpc_models as m
from dht_kademlia.node import Kademlia
from dht_kademlia.status import describe, salt_text
from skycore.contracts.access import Level
from skycore.contracts.dht import Dht
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Fact, Published, Publisher
from skycore.contracts.rpc import RpcContext, RpcMethod
from skycore.contracts.runtime import Clock
from skycore.errors import NamespaceError, RpcError
from skycore.jsonrpc import ErrorCode
from skycore.model.items import ItemClass, Kind, StoredItem
from skycore.model.keys import PubKey, parse_public
from skycore.model.limits import SALT_MAX, SEQ_MAX

__all__ = ["DhtMethods"]

TOP = b"\xff" * 32


class DhtMethods:
    """`contracts.rpc.RpcService` of the DHT."""

    def __init__(
        self,
        dht: Dht,
        node: Kademlia,
        publisher: Publisher,
        namespaces: Namespaces,
        clock: Clock,
    ) -> None:
        self._dht = dht
        self._node = node
        self._publisher = publisher
        self._namespaces = namespaces
        self._clock = clock
        read, operate = Level.READ, Level.OPERATE
        self.methods: Sequence[RpcMethod] = (
            RpcMethod("dht.status", read, m.NoParams, m.StatusResult, self._status, "DHT status"),
            RpcMethod("dht.get", read, m.GetParams, m.GetResult, self._get, "Read a record"),
            RpcMethod(
                "dht.list", read, m.ListParams, m.ListResult, self._list, "List what is held"
            ),
            RpcMethod("dht.peers", read, m.NoParams, m.PeersResult, self._peers, "Routing table"),
            RpcMethod("dht.put", operate, m.PutParams, m.PutResult, self._put, "Publish a record"),
            RpcMethod(
                "dht.delete", operate, m.DeleteParams, m.PutResult, self._delete, "Delete a record"
            ),
            RpcMethod(
                "dht.sync", operate, m.SyncParams, m.SyncResult, self._sync, "Pull what changed"
            ),
        )

    async def _status(self, params: m.NoParams, context: RpcContext) -> m.StatusResult:
        return m.StatusResult(**await describe(self._node))

    async def _peers(self, params: m.NoParams, context: RpcContext) -> m.PeersResult:
        return m.PeersResult(
            [
                m.PeerView(
                    p.public.hex(),
                    list(p.addresses),
                    p.bucket,
                    round(p.last_seen_s, 1),
                    p.failures,
                    p.connected,
                )
                for p in self._dht.peers()
            ]
        )

    async def _get(self, params: m.GetParams, context: RpcContext) -> m.GetResult:
        stored = await self._dht.get(
            self._subject(params.subject),
            _salt(params.salt),
            age_max_s=params.age_max_s,
            local=params.local,
        )
        if stored is None:
            return m.GetResult(False, False)
        deleted = stored.item.kind == Kind.TOMBSTONE
        try:
            value = self._value(stored)
        except NamespaceError:
            value = None  # value_hex says it all
        return m.GetResult(not deleted, deleted, _view(stored, value))

    async def _list(self, params: m.ListParams, context: RpcContext) -> m.ListResult:
        salt = None if params.salt is None else _salt(params.salt)
        low = _after(bytes.fromhex(params.after)) if params.after else bytes(32)
        found = await self._node.items.listing(salt, low, TOP, params.limit + 3)
        page = _whole_targets(found, params.limit)
        items, bad = [], []
        for stored in page:
            try:
                items.append(_view(stored, self._value(stored)))
            except NamespaceError as error:
                bad.append(m.BadItem(stored.target.hex(), str(error)))
        usage = await self._node.items.usage()
        total = sum(used.items for key, used in usage.items() if salt is None or key == salt)
        more = len(page) < len(found)
        return m.ListResult(items, bad, total, page[-1].target.hex() if more else "")

    async def _put(self, params: m.PutParams, context: RpcContext) -> m.PutResult:
        salt = _salt(params.salt)
        given = [params.text is not None, params.hex is not None, params.json is not msgspec.UNSET]
        if sum(given) != 1:
            raise _invalid("give the value as exactly one of text, hex and json")
        fact = Fact(salt, self._encode(salt, params), self._optional_subject(params.subject))
        published = await self._publisher.publish(fact, cas=_seq(params.cas))
        return self._result(published)

    def _encode(self, salt: bytes, params: m.PutParams) -> bytes:
        if params.text is not None:
            return params.text.encode()
        if params.hex is not None:
            return _hex(params.hex)
        namespace = self._namespaces.find(salt)
        if namespace is None:
            raise _invalid(
                f"no namespace is declared for {params.salt!r}; give its value as text or hex"
            )
        return namespace.from_json(params.json)

    async def _delete(self, params: m.DeleteParams, context: RpcContext) -> m.PutResult:
        fact = Fact(_salt(params.salt), None, self._optional_subject(params.subject))
        return self._result(await self._publisher.publish(fact, cas=_seq(params.cas)))

    async def _sync(self, params: m.SyncParams, context: RpcContext) -> m.SyncResult:
        suite = self._node.identity.network.suite
        peer = parse_public(suite, params.peer) if params.peer else None
        salt = None if params.salt is None else _salt(params.salt)

        def progress(received: int, has_more: bool) -> None:
            context.progress(received, 0 if has_more else received, "items received")

        report = await self._dht.sync(peer, salt, progress)
        plain = msgspec.structs.asdict(report)
        return m.SyncResult(**{**plain, "peer": report.peer.hex(), "reasons": list(report.reasons)})

    def _result(self, published: Published) -> m.PutResult:
        me = self._node.identity.public.hex()
        reports = published.reports
        return m.PutResult(
            str(published.seq),
            published.unchanged,
            sum(r.stored for r in reports),
            [
                m.ReplicaView(r.peer.hex(), r.code, str(r.seq), r.text)
                for report in reports
                for r in report.replicas
            ],
            [
                m.ReplicaView(me, r.outcome.code, str(r.outcome.seq), r.outcome.text)
                for r in reports
            ],
        )

    # --- helpers ---------------------------------------------------------------------------------

    def _subject(self, text: str) -> bytes:
        return bytes.fromhex(text) if text else self._node.identity.public

    def _optional_subject(self, text: str) -> PubKey | None:
        return PubKey(bytes.fromhex(text)) if text else None

    def _value(self, stored: StoredItem) -> Any:
        """Return the value as its namespace reads it. Raises `NamespaceError`."""
        item = stored.item
        if item.kind != Kind.VALUE:
            return None
        namespace = self._namespaces.find(item.salt)
        if namespace is not None:
            return namespace.to_json(item.v)
        try:
            return item.v.decode()
        except UnicodeDecodeError:
            return None


def _view(stored: StoredItem, value: Any) -> m.ItemView:
    item = stored.item
    return m.ItemView(
        stored.target.hex(),
        item.subject.hex(),
        salt_text(item.salt),
        item.signer.hex(),
        ItemClass(stored.item_class).name.lower(),
        Kind(item.kind).name.lower(),
        str(item.seq),
        stored.until,
        stored.stored_ns / 1e9,
        stored.sender.hex(),
        item.v.hex(),
        value,
    )


def _whole_targets(found: Sequence[StoredItem], limit: int) -> list[StoredItem]:
    """Cut a listing so that no target (three items at most) is torn between two pages."""
    if len(found) <= limit:
        return list(found)
    last = found[limit].target
    page = [s for s in found[:limit] if s.target != last]
    return page or [s for s in found if s.target == last]


def _after(target: bytes) -> bytes:
    """Return the next target in order."""
    number = int.from_bytes(target, "big") + 1
    return number.to_bytes(32, "big") if number < 2**256 else TOP


def _salt(text: str) -> bytes:
    salt = _hex(text[4:]) if text.startswith("hex:") else text.encode()
    if len(salt) > SALT_MAX:
        raise _invalid(f"a salt has {SALT_MAX} bytes at most")
    return salt


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as bad:
        raise _invalid(f"{text[:40]!r} is not hexadecimal") from bad


def _seq(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20) or int(text) > SEQ_MAX:
        raise _invalid(f"{text[:40]!r} is no seq")
    return int(text)


def _invalid(message: str) -> RpcError:
    return RpcError(message, code=ErrorCode.INVALID_PARAMS)

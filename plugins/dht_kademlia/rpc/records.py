"""The DHT's RPC methods for records, from get to delete; and sync, peers and status.

Why put and delete go through the publisher: it is the only source of seq, so two writers on one
node never give one number to two values. Why a listing isolates bad values: one value that could
not be read made the original's whole listing fail, and its count stopped at a thousand (C52).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dht_kademlia.core.turning import CHUNK, PageMaker, after
from dht_kademlia.core.versions import valid_at
from dht_kademlia.node import Kademlia
from dht_kademlia.rpc import models as m
from dht_kademlia.rpc.values import PIECE_MAX, WholeValues
from dht_kademlia.rpc.views import Views, invalid, read_hex, read_salt, read_seq
from dht_kademlia.status import describe
from skycore.contracts.access import Level
from skycore.contracts.dht import Dht
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Fact, Published, Publisher
from skycore.contracts.rpc import RpcContext, RpcMethod
from skycore.contracts.runtime import Clock
from skycore.errors import NamespaceError
from skycore.model.items import Kind, StoredItem, mutable_item_target
from skycore.model.keys import PubKey, parse_public

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
        self._views = Views(namespaces, clock)
        self._values = WholeValues(node)
        read, operate = Level.READ, Level.OPERATE
        self.methods: Sequence[RpcMethod] = (
            RpcMethod("dht.status", read, m.NoParams, m.StatusResult, self._status, "DHT status"),
            RpcMethod("dht.get", read, m.GetParams, m.GetResult, self._get, "Read a record"),
            RpcMethod(
                "dht.value", read, m.ValueParams, m.ValueResult, self._piece, "Read a large value"
            ),
            RpcMethod(
                "dht.history",
                read,
                m.HistoryParams,
                m.HistoryResult,
                self._history,
                "List the versions of a record that are held",
            ),
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
            read_salt(params.salt),
            age_max_s=params.age_max_s,
            local=params.local,
        )
        if stored is None:
            return m.GetResult(False, False)
        self._values.keep(stored)
        deleted = stored.item.kind == Kind.TOMBSTONE
        return m.GetResult(not deleted, deleted, self._views.show_any(stored))

    async def _piece(self, params: m.ValueParams, context: RpcContext) -> m.ValueResult:
        value = await self._values.find(
            self._subject(params.subject), read_salt(params.salt), bytes.fromhex(params.digest)
        )
        return m.ValueResult(value[params.offset : params.offset + PIECE_MAX], len(value))

    async def _history(self, params: m.HistoryParams, context: RpcContext) -> m.HistoryResult:
        target = mutable_item_target(self._subject(params.subject), read_salt(params.salt))
        items = self._node.items
        versions = [*await items.get(target), *await items.history(target, m.VERSIONS_MAX)]
        if params.at:
            valid = valid_at(versions, read_seq(params.at) or 0)
            return m.HistoryResult([self._views.show_any(valid)] if valid else [])
        shown = [self._views.show(v, brief=True) for v in versions[: params.limit]]
        return m.HistoryResult(shown)

    async def _list(self, params: m.ListParams, context: RpcContext) -> m.ListResult:
        salt = None if params.salt is None else read_salt(params.salt)
        me = self._node.identity.public

        def wanted(stored: StoredItem) -> bool:
            return not params.mine or stored.item.signer == me

        pages = PageMaker(params.limit, wanted, brief=params.brief)
        more = await self._fill(pages, salt, params.after)
        items, bad = [], []
        for stored in pages.page:
            try:
                items.append(self._views.show(stored, brief=params.brief))
            except NamespaceError as error:
                bad.append(m.BadItem(stored.target.hex(), str(error)))
        usage = await self._node.items.usage()
        total = sum(used.items for key, used in usage.items() if salt is None or key == salt)
        return m.ListResult(items, bad, total, pages.last.hex() if more else "")

    async def _fill(self, pages: PageMaker, salt: bytes | None, last: str) -> bool:
        """Fetch chunks until the page is full; tell whether there is more behind it."""
        low = after(bytes.fromhex(last)) if last else bytes(32)
        while low is not None:
            chunk: Sequence[StoredItem] = await self._node.items.listing(salt, low, TOP, CHUNK)
            is_last = len(chunk) < CHUNK
            if pages.take(chunk, is_last=is_last):
                return True
            low = None if is_last else chunk[-1].target
        return False

    async def _put(self, params: m.PutParams, context: RpcContext) -> m.PutResult:
        salt = read_salt(params.salt)
        given = [params.text is not None, params.hex is not None, params.json is not msgspec.UNSET]
        if sum(given) != 1:
            raise invalid("give the value as exactly one of text, hex and json")
        fact = Fact(salt, self._encode(salt, params), self._optional_subject(params.subject))
        published = await self._publisher.publish(fact, cas=read_seq(params.cas))
        return self._result(published)

    def _encode(self, salt: bytes, params: m.PutParams) -> bytes:
        if params.text is not None:
            return params.text.encode()
        if params.hex is not None:
            return read_hex(params.hex)
        namespace = self._namespaces.find(salt)
        if namespace is None:
            raise invalid(
                f"no namespace is declared for {params.salt!r}; give its value as text or hex"
            )
        return namespace.from_json(params.json)

    async def _delete(self, params: m.DeleteParams, context: RpcContext) -> m.PutResult:
        fact = Fact(read_salt(params.salt), None, self._optional_subject(params.subject))
        return self._result(await self._publisher.publish(fact, cas=read_seq(params.cas)))

    async def _sync(self, params: m.SyncParams, context: RpcContext) -> m.SyncResult:
        suite = self._node.identity.network.suite
        peer = parse_public(suite, params.peer) if params.peer else None
        salt = None if params.salt is None else read_salt(params.salt)

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

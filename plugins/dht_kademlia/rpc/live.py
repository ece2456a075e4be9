"""The RPC methods that keep a node in step with others: reconcile, changes, verify, full nodes.

Why changes are asked for and not sent: a caller over any stream, however slow, holds nothing here
but a cursor of the change log, and a call is over after 20 s. Why following is a method of its own,
for a minute at a time: it makes the node pull a whole salt, which reading must not; and a caller
that goes away must not leave it pulling for ever.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import msgspec
from anyio.abc import TaskGroup

from dht_kademlia.node import Kademlia
from dht_kademlia.rpc import live_models as m
from dht_kademlia.rpc.models import NoParams
from dht_kademlia.rpc.verify import compare_facts, describe_differences, verified
from dht_kademlia.rpc.views import Views, invalid, read_salt
from dht_kademlia.serve.changelog import SETTLE_S, log_end
from dht_kademlia.sync.adverts import fresh_adverts
from skycore.contracts.access import Level
from skycore.contracts.dht import Dht, DhtMode
from skycore.contracts.namespace import Namespaces
from skycore.contracts.rpc import RpcContext, RpcMethod, RpcService
from skycore.contracts.runtime import Clock
from skycore.contracts.store import ChangeFilter
from skycore.errors import CursorInvalidError, SkycoreError
from skycore.model.items import Cursor, Kind, StoredItem
from skycore.model.keys import PubKey, parse_public

__all__ = ["open_dht_live_rpc"]

log = logging.getLogger(__name__)
PAGE_BYTES = 256 * 1024
"""Bytes of values in one answer; as JSON it is eight times as much at worst."""
FOLLOWED_MAX = 16
FULL_NODES_SHOWN_MAX = 1_000


class _Following:
    """Salts that callers want kept in step, each until some moment."""

    def __init__(self, dht: Dht, tasks: TaskGroup) -> None:
        self._dht = dht
        self._tasks = tasks
        self._scopes: dict[bytes | None, anyio.CancelScope] = {}

    def follow(self, salt: bytes | None, for_s: float) -> None:
        """Follow for so long from now; raises `RpcError` where too many are followed."""
        until = anyio.current_time() + for_s
        scope = self._scopes.get(salt)
        if scope is not None:
            scope.deadline = max(scope.deadline, until)
            return
        if len(self._scopes) >= FOLLOWED_MAX:
            raise invalid(f"{FOLLOWED_MAX} salts are followed already", "follow all: no --salt")
        self._scopes[salt] = anyio.CancelScope(deadline=until)
        self._tasks.start_soon(self._run, salt)

    async def _run(self, salt: bytes | None) -> None:
        try:
            with self._scopes[salt]:
                async with self._dht.watch(salt):
                    await anyio.sleep_forever()
        except SkycoreError as failed:
            log.info("cannot follow error=%r", str(failed))
        finally:
            del self._scopes[salt]


class _LiveMethods:
    def __init__(
        self, dht: Dht, node: Kademlia, namespaces: Namespaces, clock: Clock, following: _Following
    ) -> None:
        self._dht = dht
        self._node = node
        self._namespaces = namespaces
        self._clock = clock
        self._views = Views(namespaces, clock)
        self._following = following
        read, operate = Level.READ, Level.OPERATE
        self.methods: Sequence[RpcMethod] = (
            RpcMethod("dht.changes", read, m.ChangesParams, m.ChangesResult, self._changes,
                      "What changed here since"),
            RpcMethod("dht.verify", read, m.VerifyParams, m.VerifyResult, self._verify,
                      "Compare with another node"),
            RpcMethod("dht.verify_facts", read, m.CompareParams, m.CompareResult, self._compare,
                      "Compare with a list of facts"),
            RpcMethod("dht.full_nodes", read, NoParams, m.FullNodesResult, self._full_nodes,
                      "Find the full nodes"),
            RpcMethod("dht.reconcile", operate, m.ReconcileParams, m.ReconcileResult,
                      self._reconcile, "Compare with another node, and repair both"),
            RpcMethod("dht.full_node", operate, m.FullNodeParams, m.ModeResult, self._full_node,
                      "Be a full node, or none, until the next start"),
            RpcMethod("dht.follow", operate, m.FollowParams, m.FollowResult, self._follow,
                      "Keep a salt in step for a while"),
        )  # fmt: skip

    # --- changes ---------------------------------------------------------------------------------

    async def _changes(self, params: m.ChangesParams, context: RpcContext) -> m.ChangesResult:
        after = Cursor.decode(bytes.fromhex(params.after))
        try:
            return await self._wait(params, after or await log_end(self._node.items))
        except CursorInvalidError:
            now = await log_end(self._node.items)
            return m.ChangesResult([], now.encode().hex(), False, is_reset=True)

    async def _wait(self, params: m.ChangesParams, cursor: Cursor) -> m.ChangesResult:
        """Return what is wanted of the next page, or nothing where in `wait_s` nothing came."""
        items = self._node.items
        wanted = ChangeFilter(salt=_salt(params.salt))
        until = anyio.current_time() + params.wait_s
        while True:
            changed = items.changed()  # before reading: what comes in between is not slept over
            page = await items.changes(cursor, wanted, params.limit, PAGE_BYTES)
            found = [(stored, stored.item_position <= cursor.position) for stored in page.entries]
            shown = [self._change(*one) for one in found if params.renewals or not one[1]]
            rest_s = until - anyio.current_time()
            if shown or page.has_more or rest_s <= 0:
                return m.ChangesResult(shown, page.cursor.encode().hex(), page.has_more)
            cursor = page.cursor
            with anyio.move_on_after(rest_s):
                await changed.wait()
                await anyio.sleep(min(SETTLE_S, rest_s))

    def _change(self, stored: StoredItem, is_renewal: bool) -> m.ChangeView:
        gone = stored.item.kind == Kind.TOMBSTONE
        what = "renewed" if is_renewal else "deleted" if gone else "stored"
        return m.ChangeView(what, self._views.show_any(stored))

    async def _follow(self, params: m.FollowParams, context: RpcContext) -> m.FollowResult:
        if self._dht.mode is DhtMode.FULL:
            return m.FollowResult(self._dht.mode.value, False)
        self._following.follow(_salt(params.salt), params.for_s)
        return m.FollowResult(self._dht.mode.value, True)

    # --- comparing -------------------------------------------------------------------------------

    async def _reconcile(self, params: m.ReconcileParams, context: RpcContext) -> m.ReconcileResult:
        salt = _salt(params.salt)
        report = await self._dht.reconcile(self._peer(params.peer), salt, dry_run=params.dry_run)
        plain = msgspec.structs.asdict(report)
        plain["peer"] = report.peer.hex()
        plain["reasons"] = list(report.reasons)
        plain["differences"] = describe_differences(report, {}, set())
        return m.ReconcileResult(**plain)

    async def _verify(self, params: m.VerifyParams, context: RpcContext) -> m.VerifyResult:
        salt = _salt(params.salt)
        report = await self._dht.reconcile(self._peer(params.peer), salt, dry_run=True)
        return await verified(self._node, report, salt)

    async def _compare(self, params: m.CompareParams, context: RpcContext) -> m.CompareResult:
        own = self._node.identity.public
        return await compare_facts(self._node.items, self._namespaces, own, params)

    def _peer(self, text: str) -> PubKey:
        return parse_public(self._node.identity.network.suite, text)

    # --- full nodes ------------------------------------------------------------------------------

    async def _full_nodes(self, params: NoParams, context: RpcContext) -> m.FullNodesResult:
        found = set(await self._dht.find_full_nodes())
        own, now_ns = self._node.identity.public, self._clock.wall_ns()
        return m.FullNodesResult(
            [
                m.FullNodeView(
                    advert.public.hex(),
                    advert.items,
                    round(max(0.0, (now_ns - advert.ts_ns) / 1e9), 1),
                    advert.public == own,
                    self._node.transports.find(PubKey(advert.public)) is not None,
                )
                for advert in await fresh_adverts(self._node)
                if advert.public in found
            ][:FULL_NODES_SHOWN_MAX]
        )

    async def _full_node(self, params: m.FullNodeParams, context: RpcContext) -> m.ModeResult:
        before = self._dht.mode
        await self._dht.set_mode(DhtMode.FULL if params.on else DhtMode.REGULAR)
        configured = DhtMode.FULL if self._node.settings.full_node else DhtMode.REGULAR
        return m.ModeResult(self._dht.mode.value, before.value, configured.value)


def _salt(text: str | None) -> bytes | None:
    return None if text is None else read_salt(text)


@asynccontextmanager
async def open_dht_live_rpc(
    dht: Dht, node: Kademlia, namespaces: Namespaces, clock: Clock
) -> AsyncIterator[RpcService]:
    """Offer the methods; what callers follow ends with them."""
    async with anyio.create_task_group() as tasks:
        yield _LiveMethods(dht, node, namespaces, clock, _Following(dht, tasks))
        tasks.cancel_scope.cancel()

"""The DHT as a source of entries: one lookup, all that a full node holds, and what changes there.

Why only a complete full node's list counts as everything: what a regular node holds is what lies
near its id, and a full node that has not had its first sync holds less than there is (L18). Why a
follower is told when this node falls out of step: a server must know that silence is not an end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import anyio

from dht_kademlia.node import Kademlia
from dht_kademlia.serve.changelog import next_page
from dht_kademlia.standing import Followed
from skycore.contracts.dht import Dht, DhtMode
from skycore.contracts.discovery import EntrySource, Record, Records
from skycore.contracts.namespace import Namespaces
from skycore.contracts.store import ChangeFilter
from skycore.discovery.records import best_of_each, is_own_word, record_of
from skycore.errors import DiscoveryError, MissingBlocksError
from skycore.model.items import Kind, StoredItem

__all__ = ["DhtSource", "open_dht_source"]

NAME: Final = "dht"
PAGE_ITEMS: Final = 512
FIRST_BYTES: Final = 1024 * 1024
LOOK_S: Final = 2.0
"""How often a follower looks whether this node is in step."""
OUT_OF_STEP_S: Final = 20.0
"""For so long a lost peer may be looked for before what it could tell counts as unknown."""
LAG_S_MAX: Final = 60.0
"""After so long without the word of another one a full node's list is no longer all there is."""
BATCH_RECORDS: Final = 256
BATCH_BYTES: Final = 1024 * 1024
ROW_BYTES: Final = 300
LARGE_BYTES: Final = 128 * 1024
"""What a value in blocks counts as."""
TOP: Final = b"\xff" * 32


@asynccontextmanager
async def open_dht_source(
    dht: Dht, node: Kademlia, namespaces: Namespaces
) -> AsyncIterator[EntrySource]:
    """Give what the DHT knows of any salt."""
    yield DhtSource(dht, node, namespaces)


class DhtSource:
    """`contracts.discovery.FollowedSource`."""

    name = NAME
    salts: frozenset[bytes] | None = None
    is_local = True
    """Lists and changes come from this node's own store; `find` may ask other nodes."""

    def __init__(self, dht: Dht, node: Kademlia, namespaces: Namespaces) -> None:
        self._dht = dht
        self._node = node
        self._items = node.items
        self._namespaces = namespaces
        self._heard_ns = 0

    async def find(self, salt: bytes, subject: bytes) -> Record | None:
        """Return what a lookup finds. Raises `DiscoveryError` where nobody can be asked."""
        node = self._node
        found = await self._dht.get(subject, salt)
        if found is None:
            if not len(node.table) and not (self._dht.is_complete and not node.seeds):
                raise DiscoveryError(
                    "the DHT knows no node to ask", hint="set dht_kademlia.bootstrap to some"
                )
            return None
        return await self._record(found)

    async def _record(self, stored: StoredItem) -> Record | None:
        value = stored.value
        if value is None:
            try:
                value = await self._items.value(stored)
            except MissingBlocksError:  # replaced just now, or on its way: the next change has it
                return None
        return record_of(self._namespaces, stored, value, NAME)

    # --- lists -----------------------------------------------------------------------------------

    async def records(self, salt: bytes) -> Records:
        """Return what this node holds; everything where it is a full node that has it all."""
        found: list[Record] = []
        low, held = bytes(32), list[StoredItem]()
        while True:
            page = await self._items.listing(salt, low, TOP, PAGE_ITEMS)
            is_last = len(page) < PAGE_ITEMS
            held = list(page)
            if not is_last:  # the last target has perhaps more slots: it is read again
                low = page[-1].target
                held = [row for row in page if row.target != low]
            for row in best_of_each(held):
                record = await self._record(row)
                if record is not None and record.body is not None:
                    found.append(record)
            if is_last:
                break
        note = self._why_partial()
        return Records(tuple(found), NAME, self._as_of_ns(), not note, note)

    def _why_partial(self) -> str:
        if self._node.mode is not DhtMode.FULL:
            return "this node is no full node: it holds what lies near its id"
        if not self._dht.is_complete:
            return "this full node has not had its first sync"
        lag_s = self._node.standing.lag_s(self._node.clock.now())
        if self._is_out_of_step(None) or lag_s > LAG_S_MAX:
            return "this full node has lost the others"
        return ""

    # --- being in step ---------------------------------------------------------------------------

    def _followed(self, salt: bytes | None) -> Sequence[Followed]:
        wanted = (None,) if self._node.mode is DhtMode.FULL else (None, salt)
        return [one for one in self._node.standing.followed if one.salt in wanted]

    def _as_of_ns(self) -> int:
        """Return when this node last heard of the others, as far as anybody looked."""
        clock, out = self._node.clock, self._is_out_of_step(None)
        if self._node.mode is not DhtMode.FULL or (out and not self._heard_ns):
            return clock.wall_ns()  # never everything: a list of what is here now
        if not out:
            lag_s = self._node.standing.lag_s(clock.now())
            self._heard_ns = clock.wall_ns() - int(lag_s * 1e9)
        return self._heard_ns

    def _is_out_of_step(self, salt: bytes | None) -> bool:
        """Tell whether changes elsewhere would not be heard of here."""
        node = self._node
        if node.mode is DhtMode.FULL:
            if not self._dht.is_complete:
                return True
            followed = self._followed(None)
            if followed:
                return not any(one.is_live for one in followed)
            return bool(node.seeds) and not len(node.table)  # puts reach a lone one from its peers
        return not any(one.is_live for one in self._followed(salt))

    # --- changes ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def follow(self, salt: bytes) -> AsyncIterator[AsyncIterator[Sequence[Record]]]:
        """Tell what subjects sign themselves; a regular node keeps the salt in step meanwhile.

        The first batches come once this node is in step. Raises `DiscoveryError` when it falls out
        of it for longer than a moment, `StoreError` where its store fails.
        """
        async with AsyncExitStack() as stack:
            if self._node.mode is not DhtMode.FULL:
                await stack.enter_async_context(self._dht.watch(salt))
            yield self._batches(salt)

    async def _batches(self, salt: bytes) -> AsyncIterator[Sequence[Record]]:
        await self._in_step(salt)
        page = await self._items.changes(None, ChangeFilter(salt), PAGE_ITEMS, FIRST_BYTES)
        yield ()  # in step: who was told of trouble knows that it is over
        since: float | None = None
        while True:
            async for batch in self._told(page.entries):
                yield batch
            page = await next_page(self._items, page.cursor, salt, LOOK_S)
            now = self._node.clock.now()
            self._as_of_ns()
            if not self._is_out_of_step(salt):
                since = None
            elif since is None:
                since = now
            elif now - since > OUT_OF_STEP_S:
                raise DiscoveryError("this node is out of step with the DHT: it hears of nobody")

    async def _in_step(self, salt: bytes) -> None:
        while True:
            if not self._is_out_of_step(salt):
                return
            await anyio.sleep(LOOK_S)

    async def _told(self, rows: Sequence[StoredItem]) -> AsyncIterator[list[Record]]:
        """Yield the records of rows in batches, few where their values are large."""
        batch: list[Record] = []
        size = 0
        for row in rows:
            if not is_own_word(row) or (record := await self._record(row)) is None:
                continue
            batch.append(record)
            is_large = row.item.kind == Kind.MANIFEST
            size += LARGE_BYTES if is_large else ROW_BYTES + len(row.item.v)
            if len(batch) >= BATCH_RECORDS or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

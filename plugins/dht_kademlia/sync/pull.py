"""Bulk sync: pull what changed at a full node, page by page, and remember how far we came.

Why a cursor kept on disk per peer, store and salt: the second sync costs what changed and not
what there is, and a sync that broke goes on where it stood (C24, L17). Why the next page is asked
for while this one is verified: signatures are the limit, the network need not be another. Pages
are judged by `core.pages` and items by the gate; what the report counts is what the gate said
(C15, O14).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import anyio
import msgspec

from dht_kademlia.carry.fetch import admit_from
from dht_kademlia.core.messages import ErrorCode, GetItems, Page
from dht_kademlia.core.pages import PageJudge
from dht_kademlia.node import Kademlia
from skycore.contracts.dht import SyncReport
from skycore.contracts.runtime import Files
from skycore.contracts.store import Outcome, PutOutcome
from skycore.errors import (
    DialError,
    ProtocolError,
    ReplyError,
    SkycoreError,
    StoreError,
    TransportError,
)
from skycore.model.addresses import Contact
from skycore.model.items import Cursor, Lease, MutableItem
from skycore.model.keys import short
from skycore.model.limits import PAGE_ITEMS_MAX, PAGE_TIMEOUT_S, SALT_MAX
from skycore.model.numbers import DhtMethod

__all__ = ["Cursors", "find_full_node", "pull"]

log = logging.getLogger(__name__)

CURSORS_FILE: Final = "dht_cursors.msgpack"
CURSORS_MAX: Final = 256
PAGES_A_SAVE: Final = 16
TRIES: Final = 3
REASONS_MAX: Final = 5
PROBES_MAX: Final = 8


class Cursors:
    """How far we came at each peer, by (peer, our store, salt). Bounded; the oldest goes."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._held: dict[bytes, bytes] = {}
        data = files.read(CURSORS_FILE)
        if data:
            try:
                held = msgspec.msgpack.decode(data, type=dict[bytes, bytes])
            except msgspec.DecodeError as bad:
                log.warning("cannot read %s, syncing from zero error=%r", CURSORS_FILE, str(bad))
            else:
                self._held = dict(list(held.items())[-CURSORS_MAX:])

    @staticmethod
    def key(peer: bytes, store_id: bytes, salt: bytes | None) -> bytes:
        """Return the name of a cursor."""
        return msgspec.msgpack.encode((peer, store_id, salt))

    def find(self, key: bytes) -> bytes:
        """Return the cursor, or empty for the start."""
        return self._held.get(key, b"")

    def put(self, key: bytes, cursor: bytes) -> bool:
        """Hold a cursor, or with empty bytes forget it; tell whether that changed anything."""
        if self._held.get(key, b"") == cursor:
            return False
        self._held.pop(key, None)
        if cursor:
            self._held[key] = cursor
        if len(self._held) > CURSORS_MAX:
            del self._held[next(iter(self._held))]
        return True

    def save(self) -> None:
        """Write them down."""
        self._files.write(CURSORS_FILE, msgspec.msgpack.encode(self._held))


async def find_full_node(node: Kademlia) -> Contact:
    """Return the first bootstrap node, else the first contact, that says it is a full node."""
    told = [e.contact for e in node.table if e.mode == "full"]
    others = [e.contact for e in node.table if not e.mode][:PROBES_MAX]
    asked = set()
    for contact in (*node.seeds, *told, *others):
        if contact.public in asked:
            continue
        asked.add(contact.public)
        try:
            if (await node.ping(contact)).mode == "full":
                return contact
        except (TransportError, ProtocolError) as failed:
            log.debug("no full node peer=%s error=%r", short(contact.public), str(failed))
    raise DialError(
        "no full node answers",
        hint="name one: `skynode visor dht sync PK`, or list it under [dht_kademlia] bootstrap",
    )


class _Pull:
    """One sync in progress."""

    def __init__(self, node: Kademlia, cursors: Cursors, contact: Contact, salt: bytes | None):
        self._node = node
        self._cursors = cursors
        self._contact = contact
        self._salt = salt
        self._key = Cursors.key(contact.public, node.items.store_id, salt)
        self._bytes = 0
        self._judge = PageJudge(salt, PAGE_ITEMS_MAX, node.settings.sync_page_bytes)
        self._codes: Counter[int] = Counter()
        self._reasons: list[str] = []
        self.cursor = cursors.find(self._key)
        self.received = 0
        self.complete = False

    async def run(self, progress: Callable[[int, bool], None] | None) -> None:
        """Pull page after page. What stops it early is in the report's reasons."""
        try:
            with anyio.move_on_after(self._node.settings.sync_s_max) as limit:
                await self._pages(progress)
            if limit.cancelled_caught:
                self._reason("the time for one sync was over")
        except (TransportError, ProtocolError) as stopped:
            self._reason(str(stopped))
        finally:
            if self._cursors.put(self._key, self.cursor):
                self._cursors.save()

    async def _pages(self, progress: Callable[[int, bool], None] | None) -> None:
        page = await self._first()
        while True:
            items = self._judge.admit(page)
            self.received += len(page.items)
            following: list[Page | SkycoreError] = []
            async with anyio.create_task_group() as tasks:
                if page.has_more:
                    tasks.start_soon(self._prefetch, page.cursor, following)
                lost = await self._admit(items, page.leases)
            if lost is not None:
                raise lost
            self._advance(page.cursor)
            if progress:
                progress(self.received, page.has_more)
            if not page.has_more:
                self.complete = True
                return
            upcoming = following[0]
            if isinstance(upcoming, SkycoreError):
                raise upcoming
            page = upcoming

    def _advance(self, cursor: bytes) -> None:
        if Cursor.decode(cursor) is not None:
            self.cursor = cursor
        if self._judge.pages % PAGES_A_SAVE == 0 and self._cursors.put(self._key, self.cursor):
            self._cursors.save()

    async def _first(self) -> Page:
        try:
            page = await self._fetch(self.cursor)
        except ReplyError as refused:
            if refused.code != ErrorCode.CURSOR_INVALID or not self.cursor:
                raise
            log.info("cursor is not the peer's any more peer=%s", short(self._contact.public))
            self.cursor = b""
            self._cursors.put(self._key, b"")
            page = await self._fetch(b"")
        self._judge.start(self.cursor)
        return page

    def _moved(self, count: int) -> None:
        self._bytes += count
        self._node.stats.sync_bytes["pull"] += count

    async def _prefetch(self, cursor: bytes, into: list[Page | SkycoreError]) -> None:
        try:
            into.append(await self._fetch(cursor))
        except (TransportError, ProtocolError) as failed:
            into.append(failed)

    async def _fetch(self, cursor: bytes) -> Page:
        bytes_max = self._node.settings.sync_page_bytes
        request = GetItems(self._salt, None, 0, cursor, PAGE_ITEMS_MAX, bytes_max)
        frame = self._node.client.frame(DhtMethod.GET_ITEMS, request)
        for left in reversed(range(TRIES)):
            try:
                reply = await self._node.send(
                    self._contact,
                    DhtMethod.GET_ITEMS,
                    frame,
                    timeout_s=PAGE_TIMEOUT_S,
                    meter=self._moved,
                )
            except TransportError:
                if not left:
                    raise
            else:
                assert isinstance(reply, Page)
                return reply
        raise AssertionError

    async def _admit(
        self, items: Sequence[tuple[MutableItem, Lease | None]], leases: Sequence[Lease]
    ) -> SkycoreError | None:
        """Take a page in. Returns what ended it where the peer or our own store was lost.

        The page then comes again the next time.
        """
        node, contact = self._node, self._contact
        try:
            if items:
                self._count(await admit_from(node, contact, items, meter=self._moved))
            if leases:
                self._count(await node.items.renew(leases, sender=contact.public))
        except (TransportError, StoreError) as lost:
            return lost
        return None

    def _count(self, outcomes: Sequence[PutOutcome]) -> None:
        for outcome in outcomes:
            self._codes[outcome.code] += 1
            if not outcome.accepted:
                self._reason(outcome.text or f"refused with code {outcome.code}")

    def _reason(self, text: str) -> None:
        if len(self._reasons) < REASONS_MAX and text not in self._reasons:
            self._reasons.append(text)

    def report(self) -> SyncReport:
        """Return what happened."""
        codes = self._codes
        stored, renewed, held = codes[Outcome.STORED], codes[Outcome.RENEWED], codes[Outcome.HELD]
        refused = sum(codes.values()) - stored - renewed - held + self._judge.dropped
        if self._judge.dropped:
            self._reason(f"{self._judge.dropped} items under another salt than asked for")
        return SyncReport(
            self._contact.public,
            self.received,
            stored,
            renewed,
            held,
            refused,
            self._judge.pages,
            self._bytes,
            self.complete,
            tuple(self._reasons),
        )


async def pull(
    node: Kademlia,
    cursors: Cursors,
    contact: Contact,
    salt: bytes | None,
    progress: Callable[[int, bool], None] | None = None,
) -> SyncReport:
    """Pull what changed at one node since the last time, under one salt or all."""
    if salt is not None and len(salt) > SALT_MAX:
        raise ProtocolError(f"a salt has {SALT_MAX} bytes at most")
    run = _Pull(node, cursors, contact, salt)
    await run.run(progress)
    report = run.report()
    node.stats.last_sync, node.stats.last_sync_s = report, node.clock.now()
    log.info(
        "synced peer=%s received=%d stored=%d refused=%d complete=%s",
        short(contact.public),
        report.received,
        report.stored,
        report.refused,
        report.complete,
    )
    return report

"""Keeping in step with one node: pull once what it has, then hear of changes as they happen.

Why both a watch and a comparison now and then: a watch is quick, and tells of what changed at the
peer only; the comparison (`reconcile`) finds what either side lost or never heard of, and works in
both directions. The watch is opened first and the comparison runs beside it, so nothing falls
between the two. Pages are judged by `core.watching`, items by the gate; a stream that is silent for
two and a half beats is dead. The cursor is kept on disk, so a restart costs what changed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from dht_kademlia.carry.fetch import admit_from
from dht_kademlia.core.contacts import id_of
from dht_kademlia.core.messages import ErrorCode, Page, Watch
from dht_kademlia.core.watching import SILENCE_S, WatchJudge
from dht_kademlia.node import Kademlia
from dht_kademlia.standing import Followed
from dht_kademlia.sync.pull import Cursors, pull
from skycore.contracts.store import Outcome
from skycore.errors import ProtocolError, ReplyError, SkycoreError, StreamError
from skycore.model.addresses import Contact
from skycore.model.items import Lease, MutableItem
from skycore.model.keys import PubKey, short
from skycore.model.numbers import DhtMethod
from skycore.tasks import backoff_s

__all__ = ["RETRY_FIRST_S", "RETRY_LONGEST_S", "FirstPull", "Follower", "locate"]

log = logging.getLogger(__name__)
RETRY_FIRST_S: Final = 1.0
RETRY_LONGEST_S: Final = 30.0
TURN_S: Final = 30.0
"""How long one peer waits for another one's first pull, before it goes on without."""
LASTING_S: Final = 60.0
AGAIN_S: Final = 30.0
"""Comparisons asked for by trouble come no closer together than this."""

Compare = Callable[[Contact], Awaitable[bool]]
"""Compare with a peer and repair both sides; tells whether it came to its end."""


class FirstPull:
    """The one bulk pull before any watch: what one peer brought, the others need not bring again.

    `is_done` is set by the first pull that came to its end.
    """

    def __init__(self, done: Callable[[], None] = lambda: None) -> None:
        self.is_done = False
        self._lock = anyio.Lock()
        self._done = done

    async def take(
        self, node: Kademlia, cursors: Cursors, contact: Contact, salt: bytes | None
    ) -> None:
        """Pull, unless that was done, or another peer's pull takes long."""
        with anyio.move_on_after(TURN_S) as limit:
            await self._lock.acquire()
        if limit.cancelled_caught:
            return
        try:
            if not self.is_done and (await pull(node, cursors, contact, salt)).complete:
                self.done()
        finally:
            self._lock.release()

    def done(self) -> None:
        """Note that all there is has come."""
        if not self.is_done:
            self.is_done = True
            self._done()


async def locate(node: Kademlia, public: bytes) -> Contact:
    """Return where a key may be found: as known, else as a lookup says."""
    entry = node.table.find(public)
    if entry is not None:
        return entry.contact
    addresses = node.transports.addresses.find(public)
    if not addresses and node.transports.find(public) is None:
        lookup = await node.find_nodes(id_of(public))
        for contact in lookup.closest(1):
            if contact.public == public:
                return contact
    return Contact(PubKey(public), addresses)


class Follower:
    """Keeps in step with one peer, under one salt or all, one connection after another."""

    def __init__(
        self,
        node: Kademlia,
        cursors: Cursors,
        public: bytes,
        salt: bytes | None,
        first: FirstPull,
        compare: Compare,
    ) -> None:
        self.state = Followed(public, salt, node.clock.now())
        self._node = node
        self._cursors = cursors
        self._salt = salt
        self._first = first
        self._compare = compare
        self._key = Cursors.key(public, node.items.store_id, salt)
        self._due = anyio.Event()
        self.contact: Contact | None = None

    # --- loops -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow for as long as it is let; a lost peer is tried again, ever less often."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.compare_now_and_then)
            failures = 0
            while True:
                failures = 1 if await self.session() else failures + 1
                dice = self._node.dice
                await anyio.sleep(backoff_s(failures, RETRY_FIRST_S, RETRY_LONGEST_S, dice))

    async def session(self) -> bool:
        """Follow until the connection ends; raises nothing that a peer can cause.

        Returns whether it lasted: one that ends soon, time and again, is as good as none.
        """
        node, state, began_s = self._node, self.state, self._node.clock.now()
        self.contact = None
        try:
            await self._follow(await locate(node, state.peer))
        except SkycoreError as trouble:
            if state.is_live:
                log.info("lost what we watch peer=%s error=%r", short(state.peer), str(trouble))
            state.down(node.clock.now(), str(trouble))
        finally:
            if state.is_live:
                state.down(node.clock.now(), "given up")
        return node.clock.now() - began_s > LASTING_S

    async def compare_now_and_then(self) -> None:
        """Compare after every connect and every `reconcile_interval_s`; again where that failed."""
        interval_s, dice = self._node.settings.reconcile_interval_s, self._node.dice
        while True:
            with anyio.move_on_after(backoff_s(1, interval_s, interval_s, dice)):
                await self._due.wait()
            self._due, failures = anyio.Event(), 0
            while not await self._compared():
                failures += 1
                await anyio.sleep(backoff_s(failures, RETRY_FIRST_S, interval_s, dice))
            await anyio.sleep(min(AGAIN_S, interval_s / 2))

    async def _compared(self) -> bool:
        if self.contact is None:
            return True  # nobody to compare with: the next connect says when
        try:
            complete = await self._compare(self.contact)
        except SkycoreError as trouble:
            log.debug("no comparison peer=%s error=%r", short(self.state.peer), str(trouble))
            return False
        if complete:
            self._first.done()
        return complete

    # --- one connection --------------------------------------------------------------------------

    async def _follow(self, contact: Contact) -> None:
        node = self._node
        mode = (await node.ping(contact)).mode
        if mode != "full":
            raise ProtocolError(f"{short(contact.public)} is no full node any more")
        self.contact = contact
        if not self._cursors.find(self._key):
            await self._first.take(node, self._cursors, contact, self._salt)
        cursor = self._cursors.find(self._key)
        try:
            await self._watch(contact, cursor)
        except ReplyError as refused:
            if refused.code != ErrorCode.CURSOR_INVALID or not cursor:
                raise
            log.info("cursor is not the peer's any more peer=%s", short(contact.public))
            self._cursors.put(self._key, b"")
            await self._watch(contact, b"")

    async def _watch(self, contact: Contact, cursor: bytes) -> None:
        node, state = self._node, self.state
        judge = WatchJudge(self._salt, cursor, node.clock.now())
        request = Watch(self._salt, cursor)
        connected = False
        async with node.client.subscribe(
            contact.public, DhtMethod.WATCH, request, silence_s=SILENCE_S
        ) as pages:
            pages.meter = self._moved
            async for page in pages:
                assert isinstance(page, Page)
                state.up(node.clock.now())
                node.heard(contact.public, contact.addresses, "full")
                items = judge.admit(page, node.clock.now())
                await self._admit(contact, items, page)
                if not page.has_more:
                    state.caught_up_s = node.clock.now()
                if self._cursors.put(self._key, page.cursor):
                    state.is_dirty = True
                if not connected:
                    connected = True
                    log.info("watching peer=%s", short(contact.public))
                    self._due.set()
        raise StreamError(f"{short(contact.public)} ended the watch")

    def _moved(self, count: int) -> None:
        self._node.stats.sync_bytes["watch"] += count

    async def _admit(
        self, contact: Contact, items: list[tuple[MutableItem, Lease | None]], page: Page
    ) -> None:
        node, codes = self._node, Counter[int]()
        self.state.items += len(items)
        if items:
            outcomes = await admit_from(node, contact, items, meter=self._moved)
            codes.update(outcome.code for outcome in outcomes)
        if page.leases:
            renewed = await node.items.renew(page.leases, sender=contact.public)
            codes.update(outcome.code for outcome in renewed)
        if codes[Outcome.NOT_HELD] or codes[Outcome.MISSING_BLOCKS]:
            self._due.set()  # we lack something that the watch will not bring again

"""Live full nodes: each keeps in step with the others it knows of, and a regular one where asked.

Why each chooses by a hash of both keys: with more full nodes than one may follow, choices that
differ from node to node make a graph without islands, and a newcomer is as likely to be chosen as
anybody. A change then reaches every full node by many ways, so one dead link delays nothing by more
than a hop. What a node follows is looked at again every few seconds.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import anyio
from anyio.abc import TaskGroup

from dht_kademlia.node import Kademlia
from dht_kademlia.standing import Standing
from dht_kademlia.sync.adverts import fresh_adverts
from dht_kademlia.sync.pull import Cursors
from dht_kademlia.sync.reconcile import reconcile
from dht_kademlia.sync.watch import RETRY_FIRST_S, RETRY_LONGEST_S, FirstPull, Follower, locate
from skycore.contracts.dht import DhtMode, ReconcileReport
from skycore.errors import StoreError, StreamError
from skycore.model.addresses import Contact
from skycore.model.keys import short
from skycore.model.limits import CALL_TIMEOUT_S
from skycore.tasks import backoff_s, every

__all__ = ["Live"]

log = logging.getLogger(__name__)
LOOK_S: Final = 5.0
"""How often a full node looks for others, once everybody it knows has said what he is."""
LOOK_SOON_S: Final = 0.5
ASK_AGAIN_S: Final = 300.0
"""How often a peer is asked whether it is a full node (still)."""
ASKED_MAX: Final = 1_024
ASKS_A_LOOK: Final = 8
LOST_S: Final = 120.0
"""A full node that does not answer for so long makes room for another one."""
GRACE_S: Final = 120.0
"""After so long a full node advertises itself even if no pull came to its end."""
CURSORS_S: Final = 30.0
COMPARED_AT_ONCE: Final = 4
"""Comparisons with peers at one time: each holds pages of both sides."""


class Live:
    """Everything that keeps this node in step: as a full node with many, else with one by salt."""

    def __init__(self, node: Kademlia, cursors: Cursors) -> None:
        self._node = node
        self._cursors = cursors
        self._asked: OrderedDict[bytes, float] = OrderedDict()
        self._following: dict[bytes, anyio.CancelScope] = {}
        self._compared = anyio.Semaphore(COMPARED_AT_ONCE)
        self._keeping: Counter[bytes | None] = Counter()
        self._scopes: dict[bytes | None, anyio.CancelScope] = {}
        self._began_s = node.clock.now()
        self._is_dirty = False
        self._tasks: TaskGroup

    @property
    def _standing(self) -> Standing:
        return self._node.standing

    # --- life ------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep in step while the context lasts; cursors are written down now and then."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._be_what_the_mode_says)
            tasks.start_soon(lambda: every(CURSORS_S, self._save, name="cursors", at_once=False))
            for text in self._node.settings.watch_salts:
                self._keep(_salt(text))
            try:
                yield
            finally:
                try:
                    await self._save()
                except StoreError as trouble:  # what changed since is pulled again, that is all
                    log.warning("cannot save the cursors error=%r", str(trouble))
                tasks.cancel_scope.cancel()

    async def _save(self) -> None:
        for followed in self._standing.followed:
            self._is_dirty |= followed.is_dirty
            followed.is_dirty = False
        if self._is_dirty:
            self._cursors.save()
            self._is_dirty = False

    def set_mode(self, mode: DhtMode) -> None:
        """Become a full node, or a regular one, until the next start."""
        if mode is not self._node.mode:
            log.info("mode changes to=%s", mode.value)
            self._node.mode = mode
            self._standing.change()

    async def _be_what_the_mode_says(self) -> None:
        node, standing = self._node, self._standing
        while True:
            mode = node.mode
            async with anyio.create_task_group() as tasks:
                if mode is DhtMode.FULL and node.settings.full_nodes_max:
                    tasks.start_soon(self._keep_in_step)
                elif mode is DhtMode.FULL:
                    standing.is_alone = True  # so the settings say
                    self._complete()
                while node.mode is mode:
                    await standing.changed.wait()
                tasks.cancel_scope.cancel()
            standing.is_complete = False

    # --- a full node -----------------------------------------------------------------------------

    async def _keep_in_step(self) -> None:
        """Follow the full nodes there are: those chosen, as long as they are chosen."""
        self._began_s = self._standing.in_step_s = self._node.clock.now()
        self._following = {}
        self._asked.clear()
        first, unknown = FirstPull(self._complete), 0

        def pause_s() -> float:
            return LOOK_SOON_S if unknown or not len(self._node.table) else LOOK_S

        async with anyio.create_task_group() as tasks:

            async def look() -> None:
                nonlocal unknown
                wanted, unknown = await self._choose()
                for public in [p for p in self._following if p not in wanted]:
                    self._following.pop(public).cancel()
                for public in wanted:
                    if public not in self._following:
                        self._following[public] = anyio.CancelScope()
                        tasks.start_soon(self._follow, public, first)

            await every(pause_s, look, name="full nodes")

    async def _follow(self, public: bytes, first: FirstPull) -> None:
        follower = Follower(self._node, self._cursors, public, None, first, self._compare_all)
        with self._listed(follower), self._following[public]:
            await follower.run()

    @contextmanager
    def _listed(self, follower: Follower) -> Iterator[None]:
        """Let the status know of a follower while it runs."""
        self._standing.followed.append(follower.state)
        try:
            yield
        finally:
            self._standing.left(follower.state)
            self._is_dirty |= follower.state.is_dirty

    def _complete(self) -> None:
        if not self._standing.is_complete:
            log.info("complete: this node has what the other full nodes have")
            self._standing.is_complete = True
            self._standing.change()

    async def _compare_all(self, contact: Contact) -> bool:
        if self._standing.is_refusing:
            return False  # each comparison would bring, and refuse, all that there is no room for
        return (await self.compare(contact, None)).complete

    async def compare(
        self, contact: Contact, salt: bytes | None, *, dry_run: bool = False
    ) -> ReconcileReport:
        """Compare with a peer and repair both sides. Raises `TransportError`, `ProtocolError`."""
        report: ReconcileReport | None = None
        async with self._compared:
            with anyio.move_on_after(self._node.settings.sync_s_max):
                report = await reconcile(self._node, contact, salt, dry_run=dry_run)
        if report is None:
            raise StreamError(f"comparing with {short(contact.public)} took too long")
        if not dry_run:
            self._standing.last_reconcile = report
            self._standing.last_reconcile_s = self._node.clock.now()
        return report

    async def _choose(self) -> tuple[list[bytes], int]:
        """Return whom to follow, and how many peers have yet to say what they are.

        Of the full nodes known, those that come first in this node's own order are followed; seeds
        have half of the places, because whoever makes many keys cannot make one of these.
        """
        node, now = self._node, self._node.clock.now()
        known = {e.contact.public for e in node.table if e.mode == "full"}
        known |= {advert.public for advert in await fresh_adverts(node)}
        known.discard(node.identity.public)
        unknown = self._ask()
        self._standing.full_nodes = len(known)
        modes = {e.contact.public: e.mode for e in node.table}
        seeds_say_no = all(modes.get(seed.public) == DhtMode.REGULAR.value for seed in node.seeds)
        self._standing.is_alone = not known and seeds_say_no
        alone = not known and not unknown and (len(node.table) or not node.seeds)
        if alone or now - self._began_s > GRACE_S:
            self._complete()
        lost = {f.peer for f in self._standing.followed if f.is_lost(now, LOST_S)}
        own = node.identity.public

        def order(public: bytes) -> tuple[bool, bytes]:
            return public in lost, hashlib.sha256(own + public).digest()

        most = node.settings.full_nodes_max
        chosen = sorted(known, key=order)
        seeds = [p for p in chosen if any(p == seed.public for seed in node.seeds)]
        first = seeds[: (most + 1) // 2]
        return [*first, *(p for p in chosen if p not in first)][:most], unknown

    def _ask(self) -> int:
        """Ask some peers what they are, strangers first; return how many have yet to say."""
        node, now = self._node, self._node.clock.now()
        modes = {e.contact.public: e.mode for e in node.table}
        contacts = {c.public: c for c in (*node.seeds, *(e.contact for e in node.table))}
        strangers = [p for p in contacts if not modes.get(p)]
        full = [p for p in contacts if modes.get(p) == "full"]  # or is it regular by now?
        due = [p for p in (*strangers, *full) if now - self._asked.get(p, -math.inf) > ASK_AGAIN_S]
        for public in due[:ASKS_A_LOOK]:
            if node.later(node.probe, contacts[public]):
                self._asked[public] = now
                self._asked.move_to_end(public)
        while len(self._asked) > ASKED_MAX:
            self._asked.popitem(last=False)
        return sum(now - self._asked.get(p, now) < CALL_TIMEOUT_S for p in strangers)

    # --- a regular node, where asked -------------------------------------------------------------

    @asynccontextmanager
    async def keeping(self, salt: bytes | None) -> AsyncIterator[None]:
        """Keep a salt (None: all) in step with some full node while the context lasts."""
        self._keep(salt)
        try:
            yield
        finally:
            self._keeping[salt] -= 1
            if not self._keeping[salt]:
                del self._keeping[salt]
                self._scopes.pop(salt).cancel()

    def _keep(self, salt: bytes | None) -> None:
        self._keeping[salt] += 1
        if self._keeping[salt] == 1:
            self._scopes[salt] = anyio.CancelScope()
            self._tasks.start_soon(self._keep_salt, salt, self._scopes[salt])

    async def _keep_salt(self, salt: bytes | None, scope: anyio.CancelScope) -> None:
        """Follow one full node after the other; while this node is one itself, do nothing."""
        node, turn, failures = self._node, 0, 0
        with scope:
            while True:
                changed = self._standing.changed
                if node.mode is DhtMode.FULL:
                    await changed.wait()
                    continue
                lasted = False
                try:
                    if contacts := await self._full_contacts():
                        lasted = await self._once(contacts[turn % len(contacts)], salt)
                except StoreError as trouble:
                    log.info("cannot look for full nodes error=%r", str(trouble))
                turn, failures = turn + 1, 1 if lasted else failures + 1
                await anyio.sleep(backoff_s(failures, RETRY_FIRST_S, RETRY_LONGEST_S, node.dice))

    async def _once(self, contact: Contact, salt: bytes | None) -> bool:
        """Follow one peer for one connection; tell whether it lasted."""

        async def compare(contact: Contact) -> bool:
            return (await self.compare(contact, salt)).complete

        follower = Follower(self._node, self._cursors, contact.public, salt, FirstPull(), compare)
        lasted = False
        with self._listed(follower):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follower.compare_now_and_then)
                tasks.start_soon(self._until_full, tasks.cancel_scope)
                lasted = await follower.session()
                tasks.cancel_scope.cancel()
        return lasted

    async def _until_full(self, scope: anyio.CancelScope) -> None:
        while self._node.mode is not DhtMode.FULL:
            await self._standing.changed.wait()
        scope.cancel()

    async def _full_contacts(self) -> list[Contact]:
        """Return the full nodes known, seeds first; those that may be one, where none is known."""
        node = self._node
        told = {e.contact.public: e.mode for e in node.table}
        seeds = [s for s in node.seeds if told.get(s.public, "full") != "regular"]
        full = [e.contact for e in node.table if e.mode == "full"]
        found = {c.public: c for c in (*seeds, *full)}
        if not found:
            adverts = await fresh_adverts(node)
            for advert in adverts[:ASKS_A_LOOK]:
                if advert.public != node.identity.public:
                    found[advert.public] = await locate(node, advert.public)
        return list(found.values())


def _salt(text: str) -> bytes | None:
    if text == "*":
        return None
    return bytes.fromhex(text[4:]) if text.startswith("hex:") else text.encode()

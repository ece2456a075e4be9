"""Reconciling: compare with another node by fingerprints, and repair both sides in what differs.

Why beside `pull`: a cursor tells what changed at one node since the last time, and nothing of what
this node has that the other lacks, nor of what either lost. Here each slot that differs is settled
by rank alone: the better item is pulled or pushed, the longer lease travels as a lease, a tombstone
is an item like any other (O10 to O12, C11). Which ranges to ask for, and what a reply may say, is
`core.ranges`; bringing things over is `settling`; the rules are in docs/protocols/reconcile.md.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from typing import Final

import anyio
import anyio.lowlevel

from dht_kademlia.core.messages import Held, Ranges, Reconcile
from dht_kademlia.core.ranges import WHOLE, Listed, Part, Plan, Verdict, compare, read_reply
from dht_kademlia.node import Kademlia
from dht_kademlia.sync.settling import Settling
from skycore.contracts.dht import Difference, ReconcileReport
from skycore.contracts.store import Fingerprint
from skycore.errors import LocalProtocolError, ProtocolError, TransportError
from skycore.model.addresses import Contact
from skycore.model.items import StoredItem
from skycore.model.keys import short
from skycore.model.limits import (
    PAGE_TIMEOUT_S,
    RANGE_ITEMS_MAX,
    RECONCILE_ROUNDS_MAX,
    SALT_MAX,
)
from skycore.model.numbers import DhtMethod

__all__ = ["DIFFERENCES_MAX", "OFFERED_MAX", "reconcile"]

log = logging.getLogger(__name__)

DIFFERENCES_MAX: Final = 1_000
OFFERED_MAX: Final = 4_096
"""Items offered unread where the other side holds too many too close together to list them."""
PAGE_ITEMS: Final = 256
PRINTS_AT_ONCE: Final = 512
"""Fingerprints between two breaths of the event loop: a store in memory takes none itself."""


class _Run:
    """One comparison in progress."""

    def __init__(self, node: Kademlia, contact: Contact, salt: bytes | None, *, dry_run: bool):
        self._node = node
        self._items = node.items
        self._contact = contact
        self._salt = salt
        self._dry_run = dry_run
        self._settling = Settling(node, contact, salt, self._ask, self._moved)
        self._plan = Plan(Fingerprint(0, 0))
        self._bytes = 0
        self._answered = False
        self._different = 0
        self._differences: list[Difference] = []
        self._offered = 0
        self._is_read = True
        self._complete = False

    async def run(self) -> None:
        """Compare and repair. What stops it early is in the report's reasons."""
        try:
            with anyio.move_on_after(self._node.settings.sync_s_max) as limit:
                await self._compare()
            if limit.cancelled_caught:
                self._settling.reason("the time for one run was over")
        except TransportError as lost:
            if not self._answered:
                raise
            self._settling.reason(str(lost))
        except ProtocolError as stopped:
            self._settling.reason(str(stopped))

    async def _compare(self) -> None:
        self._plan = Plan((await self._items.fingerprints(self._salt, [WHOLE]))[0])
        while spans := self._plan.next():
            self._settling.effort.spend(len(spans))
            asked = tuple(span.asked() for span in spans)
            parts, listed = read_reply(spans, await self._ask(Reconcile(self._salt, asked)))
            listed += self._plan.take(parts, await self._prints(parts))
            await self._settle(listed)
        self._complete = self._is_read

    async def _ask(self, request: Reconcile) -> Ranges:
        frame = self._node.client.frame(DhtMethod.RECONCILE, request)
        reply = await self._node.send(
            self._contact,
            DhtMethod.RECONCILE,
            frame,
            timeout_s=PAGE_TIMEOUT_S,
            meter=self._moved,
        )
        assert isinstance(reply, Ranges)
        self._answered = True
        return reply

    def _moved(self, count: int) -> None:
        self._bytes += count
        self._node.stats.sync_bytes["reconcile"] += count

    async def _prints(self, parts: Sequence[Part]) -> Sequence[Fingerprint]:
        found: list[Fingerprint] = []
        for start in range(0, len(parts), PRINTS_AT_ONCE):
            bounds = [(part.low, part.high) for part in parts[start : start + PRINTS_AT_ONCE]]
            found += await self._items.fingerprints(self._salt, bounds)
            await anyio.lowlevel.checkpoint()
        return found

    # --- slot by slot ----------------------------------------------------------------------------

    async def _settle(self, listed: Sequence[Listed]) -> None:
        for one in listed:
            if one.held is None:
                await self._offer(one)
            else:
                await self._match(one, one.held)
        await self._bring()
        await self._bring()  # what the pushes before found to be newer there

    async def _bring(self) -> None:
        if not self._dry_run:
            await self._settling.bring()

    async def _match(self, one: Listed, held: Sequence[Held]) -> None:
        """Settle a range of which all is known that the other side holds, thousands here or none.

        What has ended by our clock is not wanted (O11).
        """
        now_s = self._node.clock.wall_s()
        there = {(h.target, h.item_class): h for h in held if h.until > now_s}
        async for page in self._pages(one):
            for own, other, verdict in compare(page, there):
                self._note(own, other, verdict)
            if self._settling.is_much:
                await self._bring()
        for other in there.values():
            self._note(None, other, Verdict.PULL)

    async def _offer(self, one: Listed) -> None:
        """Offer what is here of a range that could not be read to its end."""
        self._is_read = False
        self._settling.effort.spend(1)
        self._settling.reason(
            f"more than {RANGE_ITEMS_MAX} items lie closer together than {RECONCILE_ROUNDS_MAX} "
            "rounds can tell apart; those held here were offered"
        )
        if self._dry_run:
            return
        async for page in self._pages(one):
            self._offered += len(page)
            if self._offered > OFFERED_MAX:
                return
            for own in page:
                self._settling.push(own)
            await self._bring()

    async def _pages(self, one: Listed) -> AsyncIterator[list[StoredItem]]:
        low, last = one.low, (b"", 0)
        while True:
            page = await self._items.listing(self._salt, low, one.high, PAGE_ITEMS)
            fresh = [s for s in page if (s.target, s.item_class) > last]
            yield fresh
            if len(page) < PAGE_ITEMS or not fresh:
                return
            low, last = fresh[-1].target, (fresh[-1].target, fresh[-1].item_class)

    def _note(self, own: StoredItem | None, other: Held | None, verdict: Verdict) -> None:
        self._different += 1
        if len(self._differences) < DIFFERENCES_MAX:
            self._differences.append(_difference(own, other, self._salt))
        settling = self._settling
        if self._dry_run:
            settling.effort.earn(1)
        elif own is None or verdict is Verdict.PULL:
            assert other is not None
            settling.pull(other.target)
        elif verdict is Verdict.PULL_LEASE:
            settling.pull_lease(own.target)
        elif verdict is Verdict.PUSH_LEASE:
            settling.push_lease(own)
        else:
            settling.push(own, is_newer=other is not None)

    def report(self) -> ReconcileReport:
        """Return what happened."""
        settling = self._settling
        return ReconcileReport(
            self._contact.public,
            self._different,
            settling.pulled,
            settling.pushed,
            settling.renewed,
            settling.refused,
            self._plan.rounds,
            self._bytes,
            self._complete,
            tuple(self._differences),
            tuple(settling.reasons),
        )


def _difference(own: StoredItem | None, other: Held | None, salt: bytes | None) -> Difference:
    """Describe a slot; salt and subject are known where it is held here."""
    seq_there = int.from_bytes(other.rank[:8], "big") if other else 0
    if own is not None:
        item = own.item
        key = own.target, own.item_class
        return Difference(*key, item.seq, seq_there, item.salt, item.subject)
    assert other is not None
    return Difference(other.target, other.item_class, 0, seq_there, salt or b"")


async def reconcile(
    node: Kademlia, contact: Contact, salt: bytes | None, *, dry_run: bool = False
) -> ReconcileReport:
    """Compare with one node, under one salt or all, and repair both sides; `dry_run` compares only.

    Raises `TransportError` where the node never answered, `LocalProtocolError` for a question that
    makes no sense. Whatever ends it later is a reason in the report, and the next run goes on.
    """
    if salt is not None and len(salt) > SALT_MAX:
        raise LocalProtocolError(f"a salt has {SALT_MAX} bytes at most")
    if contact.public == node.identity.public:
        raise LocalProtocolError("a node does not reconcile with itself")
    run = _Run(node, contact, salt, dry_run=dry_run)
    await run.run()
    report = run.report()
    log.log(
        logging.INFO if report.different or not report.complete else logging.DEBUG,
        "reconciled peer=%s different=%d pulled=%d pushed=%d renewed=%d refused=%d complete=%s",
        short(contact.public),
        report.different,
        report.pulled,
        report.pushed,
        report.renewed,
        report.refused,
        report.complete,
    )
    return report

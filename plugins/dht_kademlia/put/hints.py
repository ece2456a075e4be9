"""Hinted hand-off: what did not reach a node at a put goes to it when it is heard of again (C36).

Why besides repair: repair is the duty of the two nodes nearest to an item, and looks every two
minutes; who put the item knows at once whom it missed, and of its return within seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import anyio

from dht_kademlia.carry.bring import CONTACT_S, Brought, bring
from dht_kademlia.core.holders import version_of
from dht_kademlia.core.messages import ErrorCode, PutValue
from dht_kademlia.node import Kademlia
from skycore.contracts.dht import PutReport
from skycore.contracts.store import ItemKey, Outcome
from skycore.errors import CasMismatchError, StoreError
from skycore.model.addresses import Contact
from skycore.model.items import MutableItem, StoredItem
from skycore.model.keys import short
from skycore.tasks import each_of

__all__ = ["hand_over", "note_report"]

log = logging.getLogger(__name__)

PEERS_AT_ONCE: Final = 8


def note_report(node: Kademlia, load: PutValue, report: PutReport) -> None:
    """Note from a put's report who is owed its item, and who holds it.

    A put that expected something and was refused by whoever decided is owed to nobody; and what our
    own store took of it when nobody else was there to decide is taken back, so that no replica of
    it spreads later.
    """
    if load.cas is not None and load.item and report.outcome.code == CasMismatchError.code:
        node.later(_take_back, node, load.item)
        return
    held = load.item or load.lease
    if held is None:
        return
    target, now = held.target, node.clock.now()
    version = version_of(load.item) if load.item and node.sees_to(load.item) else b""
    for replica in report.replicas:
        if replica.code in (ErrorCode.NO_ANSWER, ErrorCode.BUSY):
            node.hints.owe(replica.peer, target, now)
        elif version and replica.code <= Outcome.HELD:
            node.holders.took(version, replica.peer, now)


async def _take_back(node: Kademlia, item: MutableItem) -> None:
    for stored in await node.items.get(item.target):
        if stored.item == item:
            await node.items.drop([ItemKey(stored.target, stored.item_class)])


async def hand_over(node: Kademlia) -> int:
    """Bring to those that were heard of again what they are owed; return how many items it was."""
    returned, node.returned = node.returned, {}
    limiter = anyio.Semaphore(PEERS_AT_ONCE)
    brought = 0

    async def one(public: bytes) -> None:
        nonlocal brought
        async with limiter:
            brought += await _hand_over(node, public)

    await each_of(returned, one)
    return brought


def _knows(node: Kademlia, public: bytes, stored: StoredItem) -> bool:
    return node.holders.holds(version_of(stored.item), public, node.clock.now())


def _owe_again(node: Kademlia, public: bytes, owed: Sequence[tuple[bytes, float]]) -> None:
    for target, until_s in owed:
        node.hints.owe(public, target, node.clock.now(), until_s)


async def _hand_over(node: Kademlia, public: bytes) -> int:
    owed = node.hints.due(public, node.clock.now())
    items: list[StoredItem] = []
    try:
        for target, _ in owed:
            items += await node.items.get(target)
    except StoreError:
        _owe_again(node, public, owed)
        raise
    # whether it has the newest lease is not known of anybody
    items = [s for s in items if s.lease or not _knows(node, public, s)]
    if not items:
        return 0
    contact = Contact(public, node.transports.addresses.find(public))
    done = Brought(0, answered=False)
    with anyio.move_on_after(CONTACT_S):
        done = await bring(node, contact, items)
    if not done.answered:
        _owe_again(node, public, owed)
    log.info(
        "handed over peer=%s items=%d held=%d answered=%s",
        short(public),
        len(items),
        done.held,
        done.answered,
    )
    return done.held

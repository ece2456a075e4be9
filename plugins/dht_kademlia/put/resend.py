"""Putting again what reached nobody: noted after each put, handed out once peers are there."""

from __future__ import annotations

import logging
from typing import Final

from dht_kademlia.carry.push import PASSING
from dht_kademlia.core.messages import PutValue
from dht_kademlia.core.waiting import Held
from dht_kademlia.node import Kademlia
from skycore.contracts.dht import PutReport
from skycore.contracts.store import ItemKey
from skycore.errors import ItemError, NotClosestError, QuotaError
from skycore.model.items import ItemClass
from skycore.tasks import backoff_s

__all__ = ["due_loads", "note", "undo"]

log = logging.getLogger(__name__)

LONGEST_S: Final = 600.0
FOR_NOW: Final = PASSING | {NotClosestError.code, QuotaError.code}
"""What a node says today and perhaps not tomorrow; anything else ends the matter."""


def note(node: Kademlia, load: PutValue, report: PutReport) -> None:
    """Remember a put that no other node took, or forget it where one did.

    What our own store does not hold is not remembered: it is somebody else's, for nodes far from
    here, and whoever put it is told by the report that nobody has it.
    """
    reached = any(r.code not in FOR_NOW for r in report.replicas)
    if not reached and not report.outcome.accepted:
        return
    if reached and not _may_wait(node, load):  # the usual case, without a signature's price
        return
    key = _key(node, load)
    if key is None:
        return
    seq = load.item.seq if load.item else 0
    if reached:
        node.waiting.reached(key, seq)
        return
    held = node.waiting.keep(key, Held(seq, load.cas))
    held.tries += 1
    first_s = node.settings.bootstrap_retry_s
    held.due_s = node.clock.now() + backoff_s(held.tries, first_s, LONGEST_S, node.dice)


async def undo(node: Kademlia, load: PutValue) -> None:
    """Forget our own copy of a put that the network refused after we alone had taken it.

    Its writer expected something else to be there; repair would bring it in by its rank.
    """
    key = _key(node, load)
    held = node.waiting.find(key) if key else None
    if key and load.item and held and held.cas is not None and held.seq == load.item.seq:
        node.waiting.forget(key)
        await node.items.drop([key])
        log.info("put taken back, the network expected otherwise seq=%d", held.seq)


def _may_wait(node: Kademlia, load: PutValue) -> bool:
    held = load.item or load.lease
    if held is None or not len(node.waiting):
        return False
    target = held.target
    return any(node.waiting.find(ItemKey(target, item_class)) for item_class in ItemClass)


def _key(node: Kademlia, load: PutValue) -> ItemKey | None:
    if load.item is None:
        return ItemKey(load.lease.target, load.lease.item_class) if load.lease else None
    try:
        ranked = node.items.judge(load.item, load.lease)
    except ItemError:
        return None  # it ended in the meantime
    return ItemKey(ranked.target, ranked.item_class)


async def due_loads(node: Kademlia, count: int) -> list[PutValue]:
    """Return what to put again now; what expired, or is nowhere any more, is forgotten."""
    loads = []
    for key, held in node.waiting.due(node.clock.now(), count):
        load = await _now(node, key, held)
        if load is None:
            node.waiting.forget(key)
        else:
            loads.append(load)
    return loads


async def _now(node: Kademlia, key: ItemKey, held: Held) -> PutValue | None:
    """Return what is to be put under a key now: what our store holds."""
    for stored in await node.items.get(key.target):
        if stored.item_class == key.item_class and stored.item.seq >= held.seq:
            cas = held.cas if stored.item.seq == held.seq else None
            return PutValue(stored.item, cas, lease=stored.lease)
    return None

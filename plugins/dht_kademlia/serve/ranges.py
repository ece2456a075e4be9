"""Answering Reconcile: where two stores differ, and what the other side lacks of it.

Why nothing is kept between two questions: the other side plans, this side only compares, so a
peer that goes away in the middle leaves nothing behind, and one that asks for ever pays from its
byte budget as for any other answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import anyio.lowlevel

from dht_kademlia.core.messages import Held, ItemLease, Range, RangeReply, Ranges, Reconcile
from dht_kademlia.core.ranges import check_request, parts_of, print_bytes
from skycore.contracts.store import Fingerprint, Items
from skycore.model.items import Lease, MutableItem, StoredItem
from skycore.model.limits import ENTRY_BYTES, PAGE_BYTES_MAX, RANGE_ITEMS_MAX

__all__ = ["answer_ranges"]

AT_ONCE: Final = 32
"""Ranges or targets between two breaths of the event loop: a store in memory takes none itself."""


async def answer_ranges(items: Items, request: Reconcile) -> Ranges:
    """Return where we differ from what was asked, and what is held at the wanted targets.

    Raises `RemoteProtocolError` for a question that no honest node asks.
    """
    check_request(request)
    bounds = [(asked.low, asked.high) for asked in request.ranges]
    prints = await items.fingerprints(request.salt, bounds) if bounds else ()
    differing = [
        (index, asked, own)
        for index, (asked, own) in enumerate(zip(request.ranges, prints, strict=True))
        if (asked.items, asked.fingerprint) != (own.items, print_bytes(own))
    ]
    replies: list[RangeReply] = []
    for start in range(0, len(differing), AT_ONCE):
        replies += await _compare(items, request.salt, differing[start : start + AT_ONCE])
        await anyio.lowlevel.checkpoint()
    found, item_leases, served = await _wanted(items, request.salt, request.wanted)
    leases = await _leases(items, request.salt, request.leases_of)
    return Ranges(tuple(replies), found, item_leases, served, leases)


async def _compare(
    items: Items, salt: bytes | None, differing: Sequence[tuple[int, Range, Fingerprint]]
) -> list[RangeReply]:
    """List the ranges with few items, split those with many."""
    replies = {}
    split: list[tuple[int, Range]] = []
    for index, asked, own in differing:
        held: Sequence[StoredItem] = ()
        if own.items <= RANGE_ITEMS_MAX:
            held = await items.listing(salt, asked.low, asked.high, RANGE_ITEMS_MAX + 1)
        if max(own.items, len(held)) > RANGE_ITEMS_MAX:  # it may have grown in between
            split.append((index, asked))
        else:
            replies[index] = RangeReply(index, held=tuple(_held(stored) for stored in held))
    parts = [parts_of(asked.low, asked.high) for _, asked in split]
    prints = await items.fingerprints(salt, [part for many in parts for part in many])
    told = iter([(own.items, print_bytes(own)) for own in prints])
    for (index, _), many in zip(split, parts, strict=True):
        replies[index] = RangeReply(index, parts=tuple(next(told) for _ in many))
    return [replies[index] for index, _, _ in differing]


def _held(stored: StoredItem) -> Held:
    return Held(stored.target, stored.item_class, stored.rank, stored.until)


async def _at(items: Items, salt: bytes | None, target: bytes, turn: int) -> list[StoredItem]:
    if turn % AT_ONCE == AT_ONCE - 1:
        await anyio.lowlevel.checkpoint()
    return [s for s in await items.get(target) if salt is None or s.item.salt == salt]


async def _wanted(
    items: Items, salt: bytes | None, wanted: Sequence[bytes]
) -> tuple[tuple[MutableItem, ...], tuple[ItemLease, ...], int]:
    """Return what is held at as many targets as fit a page, one at least."""
    found: list[MutableItem] = []
    leases: list[ItemLease] = []
    served = size = 0
    for target in wanted:
        slots = await _at(items, salt, target, served)
        size += sum(len(stored.item.v) + ENTRY_BYTES for stored in slots)
        if served and size > PAGE_BYTES_MAX:
            break
        for stored in slots:
            if stored.lease:
                leases.append(ItemLease(len(found), stored.lease))
            found.append(stored.item)
        served += 1
    return tuple(found), tuple(leases), served


async def _leases(items: Items, salt: bytes | None, targets: Sequence[bytes]) -> tuple[Lease, ...]:
    slots = [s for at, t in enumerate(targets) for s in await _at(items, salt, t, at)]
    return tuple(stored.lease for stored in slots if stored.lease)

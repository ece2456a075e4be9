"""Bringing items that are held here to one node that may have them already: asking comes first.

How: an item with a lease is asked about by that lease (some 250 B, many to a frame, and it prolongs
what is there); a small item and a head without its blocks are sent themselves, because a question
would be as large; a large value is asked about with GetValue and the rank that is held here. So
64 KiB or a tree of blocks go only where they are missing. A node that turns out to hold something
better is where we get it from.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

from dht_kademlia.carry.fetch import admit_from
from dht_kademlia.carry.push import PASSING, push
from dht_kademlia.client import Meter
from dht_kademlia.core.holders import FAR_S, REFUSED_S, version_of
from dht_kademlia.core.messages import (
    ErrorCode,
    GetValue,
    PutValue,
    Stored,
    Value,
    known_rank,
    lease_of,
)
from dht_kademlia.node import Kademlia
from skycore.contracts.store import ItemKey, Outcome
from skycore.errors import NotClosestError, ProtocolError, SeqTooLowError, TransportError
from skycore.model.addresses import Contact
from skycore.model.items import StoredItem
from skycore.model.keys import short
from skycore.model.numbers import DhtMethod

__all__ = ["ASKED_FROM", "CONTACT_S", "Brought", "bring"]

log = logging.getLogger(__name__)

ASKED_FROM: Final = 2_048
"""Bytes of a value from which it is asked about first: an answer's contacts are some 1.5 KB."""
CONTACT_S: Final = 120.0
"""How long one node may take for what is brought to it: others wait for the next turn."""


class Brought(NamedTuple):
    """What came of it."""

    held: int
    """Items that the node holds now, whether it did before or not."""
    answered: bool
    """Whether the node answered to the end."""


async def bring(
    node: Kademlia, contact: Contact, items: Sequence[StoredItem], meter: Meter = lambda count: None
) -> Brought:
    """Bring items to one node, and note what it holds then. Raises nothing remote."""
    held = 0
    left: list[StoredItem] = []
    loads: list[PutValue] = []
    for stored in items:
        if _is_expecting(node, stored):
            continue
        if stored.lease is not None:
            load = PutValue(None, lease=stored.lease)
        else:
            load = PutValue(stored.item)
            if len(stored.item.v) > ASKED_FROM:
                try:
                    lacks = await _ask(node, contact, stored, meter)
                except (TransportError, ProtocolError) as failed:
                    log.debug("not asked peer=%s error=%r", short(contact.public), str(failed))
                    return Brought(held, answered=False)
                if not lacks:
                    held += 1
                    continue
        left.append(stored)
        loads.append(load)
    said = await push(node, contact, loads, lean=True, meter=meter) if loads else ()
    answered = True
    for stored, answer in zip(left, said, strict=True):
        held += answer.code <= Outcome.HELD
        answered = answered and answer.code not in (ErrorCode.NO_ANSWER, ErrorCode.BUSY)
        await _note(node, contact, stored, answer, meter)
    return Brought(held, answered)


def _is_expecting(node: Kademlia, stored: StoredItem) -> bool:
    """Tell whether an item waits for its first node with a `cas`: only `put.puts` may send that."""
    waits = node.waiting.find(ItemKey(stored.target, stored.item_class))
    return waits is not None and waits.cas is not None


async def _note(
    node: Kademlia, contact: Contact, stored: StoredItem, said: Stored, meter: Meter
) -> None:
    now, version = node.clock.now(), version_of(stored.item)
    if said.code <= Outcome.HELD:
        node.stats.repaired += 1
        node.holders.took(version, contact.public, now)
    elif said.code not in PASSING:  # such a refusal is remembered
        again_s = FAR_S if said.code == NotClosestError.code else REFUSED_S
        node.holders.refused(version, contact.public, now, again_s)
    if said.code == SeqTooLowError.code:
        try:
            await _ask(node, contact, stored, meter)
        except (TransportError, ProtocolError) as failed:
            log.debug("not fetched peer=%s error=%r", short(contact.public), str(failed))


async def _ask(node: Kademlia, contact: Contact, stored: StoredItem, meter: Meter) -> bool:
    """Ask whether a node holds an item, and take in what it holds that is better.

    Returns whether the item has to be sent. Raises as `Kademlia.send`.
    """
    known = known_rank(stored.item_class, stored.rank)
    frame = node.client.frame(DhtMethod.GET_VALUE, GetValue(stored.target, known))
    reply = await node.send(contact, DhtMethod.GET_VALUE, frame, meter=meter)
    assert isinstance(reply, Value)
    now, version = node.clock.now(), version_of(stored.item)
    if reply.held:
        node.stats.repaired += 1
        node.holders.took(version, contact.public, now)
    elif reply.items:
        node.holders.refused(version, contact.public, now)
    if reply.items:
        leases = lease_of(reply.leases, len(reply.items))
        sent = list(zip(reply.items, leases, strict=True))
        await admit_from(node, contact, sent, meter=meter)
    return not (reply.held or reply.items)

"""Seeing to it that what this node is closest to has its k replicas, whoever came or went (C36).

Why two occasions: a change next to this node is looked into seconds later; a pass every
`repair_interval_s` finds what that missed, what a failed put left, and what a node said it stored
and did not take. What is sent to whom says `core.holders`, how, `carry.bring`. Everybody known,
a pass sends nothing.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio
import anyio.lowlevel

from dht_kademlia.carry.bring import CONTACT_S, Brought, bring
from dht_kademlia.core.holders import version_of
from dht_kademlia.core.routing_table import ID_BITS
from dht_kademlia.node import Kademlia
from dht_kademlia.put.hints import hand_over
from skycore.contracts.dht import DhtMode
from skycore.model.addresses import Contact
from skycore.model.items import StoredItem
from skycore.model.limits import ENTRY_BYTES
from skycore.tasks import each_of, every

__all__ = ["Pass", "Repair", "keep_replicas"]

log = logging.getLogger(__name__)

SOON_S: Final = 2.0
"""After a change: contacts come in groups, and one that starts is busy."""
REST: Final = 20
"""After a look at what is held it rests for so many times the time that this took."""
PORTION: Final = 64
"""Items read from the store at a time: 4 MiB of values at the most."""
WALKED_MAX: Final = 32_768
DELIVERIES_MAX: Final = 16_384
BYTES_MAX: Final = 32 * 1024 * 1024
"""Bounds of one pass: items looked at, items sent or asked about, bytes. The next one goes on."""
LOAD_MAX: Final = 1_024
LOAD_BYTES_MAX: Final = 4 * 1024 * 1024
"""Deliveries that are gathered, and bytes of their items, before they go out."""
PEERS_AT_ONCE: Final = 8
ALL: Final = (0, (1 << ID_BITS) - 1)


@dataclass
class _Load:
    """What goes to one contact."""

    contact: Contact
    items: list[StoredItem] = field(default_factory=list)


@dataclass
class Pass:
    """One walk over what is held, and what came of it."""

    walked: int = 0
    deliveries: int = 0
    """Items sent or asked about, once for each contact."""
    held: int = 0
    """How many of these the contact held after that."""
    moved: int = 0
    """Bytes, both ways."""
    goes_on: int | None = None
    """The target at which a bound ended it."""
    silent: set[bytes] = field(default_factory=set)
    """Contacts that did not answer: they are left alone until the next one."""

    def move(self, count: int) -> None:
        """Count bytes."""
        self.moved += count

    @property
    def is_full(self) -> bool:
        """Whether a bound is reached."""
        return (
            self.walked >= WALKED_MAX
            or self.deliveries >= DELIVERIES_MAX
            or self.moved >= BYTES_MAX
        )


class Repair:
    """The passes of one node, one at a time."""

    def __init__(self, node: Kademlia) -> None:
        self._node = node
        self._lock = anyio.Lock()
        self.goes_on = 0
        """Where the next periodic pass begins: a bound ended the last one."""
        self.rest_s = 0.0

    async def periodic(self) -> None:
        """Look at all that a regular node holds; a full node at what may be its duty."""
        node = self._node
        node.hints.expire(node.clock.now())
        full = node.mode is DhtMode.FULL
        low, high = node.holders.duties(node.table, node.clock.now()) if full else ALL
        start = self.goes_on if low < self.goes_on <= high else low
        self.goes_on = (await self.walk(start, high)).goes_on or 0

    async def after_change(self) -> None:
        """Wait until something stirs; hand over what is owed, and look at what is our duty."""
        node = self._node
        await node.stirred.wait()
        await anyio.sleep(SOON_S * node.dice.uniform(0.5, 1.5))
        node.stirred = anyio.Event()
        await hand_over(node)
        if node.settings.repair_interval_s:
            began = node.clock.now()
            await self.walk(*node.holders.duties(node.table, began))
            self.rest_s = REST * (node.clock.now() - began)

    async def walk(self, low: int, high: int) -> Pass:
        """Bring what lies between two targets, both included, to those that it lacks."""
        node, done = self._node, Pass()
        async with self._lock:
            node.holders.sync(node.table, node.clock.now())
            loads: dict[bytes, _Load] = {}
            waiting = size = 0
            async for portion in self._portions(low, high):
                for stored in portion:
                    contacts = [c for c in self._whom(stored) if c.public not in done.silent]
                    for contact in contacts:
                        loads.setdefault(contact.public, _Load(contact)).items.append(stored)
                    waiting += len(contacts)
                    size += (len(stored.item.v) + ENTRY_BYTES) * len(contacts)
                done.walked += len(portion)
                if waiting >= LOAD_MAX or size >= LOAD_BYTES_MAX:
                    await self._send(loads, done)
                    loads, waiting, size = {}, 0, 0
                if done.is_full:
                    done.goes_on = int.from_bytes(portion[-1].target, "big") + 1
                    break
            await self._send(loads, done)
        if done.deliveries:
            log.info(
                "repaired walked=%d deliveries=%d held=%d bytes=%d",
                done.walked,
                done.deliveries,
                done.held,
                done.moved,
            )
        return done

    async def _portions(self, low: int, high: int) -> AsyncIterator[Sequence[StoredItem]]:
        """Read what is held in portions; the slots of one target are never torn apart."""
        last = high.to_bytes(32, "big")
        while low <= high:
            found = await self._node.items.listing(None, low.to_bytes(32, "big"), last, PORTION)
            portion = list(found)
            if len(portion) == PORTION:
                torn = portion[-1].target
                portion = [s for s in portion if s.target != torn]
            if portion:
                yield portion
            if len(found) < PORTION:
                return
            low = int.from_bytes(torn, "big")
            await anyio.lowlevel.checkpoint()

    def _whom(self, stored: StoredItem) -> Sequence[Contact]:
        node, now = self._node, self._node.clock.now()
        target, version = int.from_bytes(stored.target, "big"), version_of(stored.item)
        if node.mode is DhtMode.REGULAR and node.holders.is_far(node.table, target):
            return node.holders.to_leave_it_to(node.table, target, version, now)
        age_s = (node.clock.wall_ns() - stored.stored_ns) / 1e9
        return node.holders.to_tell(node.table, target, version, now - age_s, now)

    async def _send(self, loads: dict[bytes, _Load], done: Pass) -> None:
        """Bring what was gathered to its nodes, some at a time."""
        limiter = anyio.Semaphore(PEERS_AT_ONCE)

        async def one(load: _Load) -> None:
            async with limiter:
                result = Brought(0, answered=False)
                with anyio.move_on_after(CONTACT_S):
                    result = await bring(self._node, load.contact, load.items, done.move)
            done.deliveries += len(load.items)
            done.held += result.held
            if not result.answered:
                done.silent.add(load.contact.public)

        await each_of(loads.values(), one)


async def keep_replicas(node: Kademlia) -> None:
    """Repair for ever: after each change next to this node, and every `repair_interval_s`."""
    repair = Repair(node)
    interval_s = node.settings.repair_interval_s

    def pause_s() -> float:
        return interval_s * node.dice.uniform(0.8, 1.0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(
            lambda: every(lambda: repair.rest_s, repair.after_change, name="dht repair")
        )
        if interval_s:
            tasks.start_soon(
                lambda: every(pause_s, repair.periodic, name="dht repair pass", at_once=False)
            )

"""Putting many items: grouped by node, a few frames to each, with a report for every item.

Why grouped by node: a batch of a thousand items goes to each of its nodes in a few frames, not in
a thousand calls, and one lookup serves many targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import anyio

from dht_kademlia.carry.push import Cargo, carry
from dht_kademlia.core.contacts import id_of
from dht_kademlia.core.messages import Stored
from dht_kademlia.core.routing_table import K
from dht_kademlia.node import SETTLE, Kademlia
from dht_kademlia.put.placing import SPARE, place, places, replica_of
from skycore.contracts.dht import Replica
from skycore.errors import NotClosestError
from skycore.model.addresses import Contact
from skycore.tasks import each_of

__all__ = ["REFUSED_FROM", "Progress", "send_out"]

Progress = Callable[[int], None]

REFUSED_FROM: Final = 200
LOOKUPS_AT_ONCE: Final = 8
PEERS_AT_ONCE: Final = 32
TOLD_EVERY: Final = 64
"""Items done between two words of progress."""
QUIET_LOOKUPS: Final = 16
"""After this many lookups in a row that met nobody new, a batch knows all there is to know."""


@dataclass
class _Batch:
    """A batch on its way: which item goes where, and what became of it."""

    cargo: Cargo
    targets: Sequence[bytes]
    replicas: list[list[Replica]]
    open_at: list[int]
    """For each item, how many nodes have not answered yet."""
    progress: Progress
    done: int = 0
    told: int = 0
    known: dict[bytes, Contact] = field(default_factory=dict)
    """Everybody met by this batch's lookups: they seed the next ones."""
    quiet: int = 0


async def send_out(
    node: Kademlia,
    cargo: Cargo,
    targets: Sequence[bytes],
    live: Sequence[int],
    progress: Progress,
) -> Sequence[Sequence[Replica]]:
    """Bring the live ones of a cargo's items each to its k closest nodes; say what these said."""
    batch = _Batch(cargo, targets, [[] for _ in targets], [0] * len(targets), progress)
    batch.done = len(targets) - len(live)
    plan = await _plan(node, batch, live)
    limiter = anyio.Semaphore(PEERS_AT_ONCE)
    await each_of(plan, lambda share: _send_all(batch, *share, limiter))
    for index in live:
        if _is_misplaced(batch, index):
            await _place_rest(node, batch, index)
    return batch.replicas


async def _plan(
    node: Kademlia, batch: _Batch, live: Sequence[int]
) -> list[tuple[Contact, list[int]]]:
    """Find out which node gets which items."""
    for entry in node.table:
        batch.known[entry.contact.public] = entry.contact
    targets = {i: int.from_bytes(batch.targets[i], "big") for i in live}
    order = live  # targets are hashes: their order is random, and so "nobody new" means something
    turn = count()

    async def worker() -> None:
        while (at := next(turn)) < len(order):
            if batch.quiet >= QUIET_LOOKUPS or (at and len(batch.known) < K):
                return
            await _learn(node, batch, targets[order[at]])

    async with anyio.create_task_group() as tasks:
        for _ in range(min(LOOKUPS_AT_ONCE, len(order))):
            tasks.start_soon(worker)
    groups: dict[bytes, list[int]] = {}
    met = [(id_of(public), public) for public in batch.known]
    for index in order:
        target = targets[index]
        for _, public in sorted(met, key=lambda pair: pair[0] ^ target)[:K]:
            groups.setdefault(public, []).append(index)
            batch.open_at[index] += 1
    return [(batch.known[public], indexes) for public, indexes in groups.items()]


async def _learn(node: Kademlia, batch: _Batch, target: int) -> None:
    nearest = sorted(batch.known.values(), key=lambda c: id_of(c.public) ^ target)[:K]
    lookup = await node.find_nodes(target, settle=SETTLE, also=nearest)
    before = len(batch.known)
    for contact in lookup.closest(SPARE):
        batch.known.setdefault(contact.public, contact)
    for public in lookup.dead():
        batch.known.pop(public, None)
    batch.quiet = batch.quiet + 1 if len(batch.known) <= before else 0


async def _send_all(
    batch: _Batch, contact: Contact, indexes: Sequence[int], limiter: anyio.Semaphore
) -> None:
    """Send one node its share."""

    def told(index: int, said: Stored) -> None:
        batch.replicas[index].append(replica_of(contact, said))
        batch.open_at[index] -= 1
        batch.done += not batch.open_at[index]
        if batch.done >= batch.told + TOLD_EVERY:
            batch.told = batch.done
            batch.progress(batch.done)

    async with limiter:
        await carry(batch.cargo, contact, indexes, told)


def _is_misplaced(batch: _Batch, index: int) -> bool:
    """Tell whether most of an item's nodes said that they are not the nearest."""
    said = batch.replicas[index]
    accepted = sum(r.code < REFUSED_FROM for r in said)
    far = sum(r.code == NotClosestError.code for r in said)
    return far > 0 and 2 * accepted <= len(said)


async def _place_rest(node: Kademlia, batch: _Batch, index: int) -> None:
    """Look up one item's own place, where the batch's common knowledge did not reach."""
    contacts = await places(node, int.from_bytes(batch.targets[index], "big"))
    said = {r.peer: r for r in batch.replicas[index]}
    rest = [c for c in contacts[:K] if c.public not in said]
    more = await place(node, batch.cargo, index, rest, K)
    accepted = [r for r in said.values() if r.code != NotClosestError.code]
    batch.replicas[index] = [*accepted, *more]

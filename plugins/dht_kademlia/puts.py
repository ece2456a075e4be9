"""Putting items at the nodes closest to their targets: in parallel, by quorum, with a true report.

Why grouped by node: a batch of a thousand items goes to each of its nodes in a few frames, not in
a thousand calls, and one lookup serves many targets. Why a report per replica: "stored" with no
peer at all was the original's answer (C15), and a put that waits for every dead node takes minutes
(C44). `cas` goes to every replica, and who holds something newer is handed back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import anyio
import anyio.lowlevel

from dht_kademlia.core.contacts import id_of
from dht_kademlia.core.messages import (
    BATCH_ITEMS_MAX,
    Batch,
    ErrorCode,
    Outcomes,
    PutValue,
    Stored,
)
from dht_kademlia.core.placement import Placement
from dht_kademlia.core.routing_table import K
from dht_kademlia.node import SETTLE, Kademlia
from dht_kademlia.resend import due_loads, note
from skycore.contracts.dht import PutReport, Replica
from skycore.contracts.store import PutOutcome
from skycore.errors import ItemError, NotClosestError, ProtocolError, ReplyError, TransportError
from skycore.model.addresses import Contact
from skycore.model.items import Lease, MutableItem
from skycore.model.limits import CALL_TIMEOUT_S, ENTRY_BYTES, PAGE_TIMEOUT_S
from skycore.model.numbers import DhtMethod

__all__ = ["hand_out", "put_many"]

log = logging.getLogger(__name__)

SPARE: Final = K
"""How many next-closest nodes may stand in for those that fail."""
REFUSED_FROM: Final = 200
BATCH_BYTES_MAX: Final = 512 * 1024
LOOKUPS_AT_ONCE: Final = 8
PEERS_AT_ONCE: Final = 32
COUNTED_AT_ONCE: Final = 64
"""Reports between two breaths: one of a put that reached nobody costs a signature's check."""
QUIET_LOOKUPS: Final = 16
"""After this many lookups in a row that met nobody new, a batch knows all there is to know."""


def _is_final(own: PutOutcome) -> bool:
    """Tell whether our own store's word ends it: refused, and not for being far away."""
    return own.code >= REFUSED_FROM and own.code != NotClosestError.code


def _target(load: PutValue) -> bytes:
    if load.item is not None:
        return load.item.target
    assert load.lease is not None
    return load.lease.target


def _counted(node: Kademlia, load: PutValue, report: PutReport) -> PutReport:
    node.stats.puts += 1
    node.stats.replicas += report.stored
    if not _is_final(report.outcome):
        note(node, load, report)
    return report


async def hand_out(node: Kademlia) -> None:
    """Put again what reached nobody, batch after batch, while that gets somewhere."""
    before = len(node.waiting)
    while loads := await due_loads(node, BATCH_ITEMS_MAX):
        left = len(node.waiting)
        await put_many(node, loads)
        if len(node.waiting) >= left:
            break
    if len(node.waiting) < before:
        log.info("puts handed out waited=%d left=%d", before, len(node.waiting))


async def _admit(node: Kademlia, loads: Sequence[PutValue]) -> Sequence[PutOutcome]:
    """Judge every item, and store those that this node keeps; prolong what it holds."""
    outcomes: list[PutOutcome | None] = [None] * len(loads)
    kept: list[int] = []
    leases: list[Lease] = []
    for index, load in enumerate(loads):
        if load.item is None:
            leases += [load.lease] if load.lease else []
        elif node.keeps(load.item.target):
            kept.append(index)
        else:
            outcomes[index] = _judge(node, load.item, load.lease)
    own = node.identity.public
    admitted = await node.items.admit(
        [item for index in kept if (item := loads[index].item)],
        sender=own,
        cas=[loads[index].cas for index in kept],
        leases=[loads[index].lease for index in kept],
    )
    for index, outcome in zip(kept, admitted, strict=True):
        outcomes[index] = outcome
    renewed = iter(await node.items.renew(leases, sender=own) if leases else ())
    return [o if o is not None else next(renewed) for o in outcomes]


def _judge(node: Kademlia, item: MutableItem, lease: Lease | None) -> PutOutcome:
    try:
        node.items.judge(item, lease)
    except ItemError as bad:
        return PutOutcome(bad.code, text=str(bad))
    return PutOutcome(NotClosestError.code, text="kept by nearer nodes only")


async def _put(node: Kademlia, load: PutValue) -> PutReport:
    own = (await _admit(node, [load]))[0]
    if _is_final(own):
        return PutReport(own)
    number = int.from_bytes(_target(load), "big")
    contacts = await _places(node, number)
    if own.accepted and len(contacts) >= K:
        # this node may be one of the k closest itself
        mine = node.table.own_id ^ number
        if mine < id_of(contacts[K - 1].public) ^ number:
            contacts = [c for c in contacts if c is not contacts[K - 1]]
            return _counted(node, load, PutReport(own, await _place(node, load, contacts, K - 1)))
    return _counted(node, load, PutReport(own, await _place(node, load, contacts, K)))


async def _places(node: Kademlia, target: int, also: Sequence[Contact] = ()) -> list[Contact]:
    """Return the k closest nodes, and spare ones behind them.

    Whoever knows fewer than k nodes in all sends to all of them: there is nothing to look for
    that the next refresh would not bring.
    """
    lookup = await node.find_nodes(target, settle=SETTLE, also=also)
    return lookup.closest(SPARE)


async def _place(
    node: Kademlia, load: PutValue, contacts: Sequence[Contact], wanted: int
) -> tuple[Replica, ...]:
    """Send one item to its nodes, all at once, and return when enough of them answered."""
    frame = node.client.frame(DhtMethod.PUT_VALUE, load)
    again = load.cas is None
    placement = Placement(contacts, now=node.clock.now(), limit_s=CALL_TIMEOUT_S, k=wanted)
    wake = anyio.Event()

    async def one(contact: Contact) -> None:
        try:
            reply = await node.send(contact, DhtMethod.PUT_VALUE, frame, again=again)
            assert isinstance(reply, Stored)
            replica = Replica(contact.public, reply.code, reply.seq, reply.text[:200])
            placement.answered(replica, node.clock.now())
        except ReplyError as refused:
            replica = Replica(contact.public, refused.code, 0, str(refused)[:200])
            placement.answered(replica, node.clock.now())
        except (TransportError, ProtocolError) as failed:
            placement.failed(contact.public, str(failed)[:200])
        launch()

    def launch() -> None:
        """Send to whom it may concern; wake the waiter when its time changed or all is done."""
        for contact in placement.next():
            if not node.later(one, contact):
                placement.failed(contact.public, "this node is too busy")
        if placement.wake_s() != until or placement.done(node.clock.now()):
            wake.set()

    until = placement.wake_s()
    launch()
    while not placement.done(now := node.clock.now()):
        until = placement.wake_s()
        with anyio.move_on_after(max(0.0, until - now) + 0.001):
            await wake.wait()
            wake = anyio.Event()
    return placement.replicas()


# --- batches -------------------------------------------------------------------------------------


@dataclass
class _Batch:
    """A batch on its way: which item goes where, and what became of it."""

    loads: Sequence[PutValue]
    targets: Sequence[bytes]
    replicas: list[list[Replica]]
    open_at: list[int]
    """For each item, how many nodes have not answered yet."""
    done: int = 0
    known: dict[bytes, Contact] = field(default_factory=dict)
    """Everybody met by this batch's lookups: they seed the next ones."""
    quiet: int = 0


async def put_many(
    node: Kademlia,
    loads: Sequence[PutValue],
    progress: Callable[[int], None] | None = None,
    *,
    blocks: Mapping[bytes, bytes] | None = None,
) -> Sequence[PutReport]:
    """Store items (or prolong them, where there is only a lease), each at its k closest nodes."""
    if len(loads) == 1:
        report = await _put(node, loads[0])
        if progress:
            progress(1)
        return [report]
    own = await _admit(node, loads)
    batch = _Batch(loads, [_target(load) for load in loads], [[] for _ in loads], [0] * len(loads))
    live = [index for index, outcome in enumerate(own) if not _is_final(outcome)]
    batch.done = len(loads) - len(live)
    plan = await _plan(node, batch, live)
    limiter = anyio.Semaphore(PEERS_AT_ONCE)
    async with anyio.create_task_group() as tasks:
        for contact, indexes in plan:
            tasks.start_soon(_send_all, node, batch, contact, indexes, progress, limiter)
    for index in live:
        if _is_misplaced(batch, index):
            await _place_rest(node, batch, index)
    if progress:
        progress(len(loads))
    reports = []
    for index, load in enumerate(loads):
        report = PutReport(own[index], tuple(batch.replicas[index]))
        reports.append(_counted(node, load, report))
        if index % COUNTED_AT_ONCE == COUNTED_AT_ONCE - 1:
            await anyio.lowlevel.checkpoint()
    return reports


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
    node: Kademlia,
    batch: _Batch,
    contact: Contact,
    indexes: Sequence[int],
    progress: Callable[[int], None] | None,
    limiter: anyio.Semaphore,
) -> None:
    """Send one node its share, frame after frame; a node that fails once gets no more of them."""
    async with limiter:
        trouble = ""
        for some in _frames(batch.loads, indexes):
            if not trouble:
                trouble = await _send(node, batch, contact, some)
            if trouble:
                for index in some:
                    replica = Replica(contact.public, ErrorCode.NO_ANSWER, 0, trouble)
                    batch.replicas[index].append(replica)
            for index in some:
                batch.open_at[index] -= 1
                batch.done += not batch.open_at[index]
            if progress:
                progress(batch.done)


def _is_misplaced(batch: _Batch, index: int) -> bool:
    """Tell whether most of an item's nodes said that they are not the nearest."""
    said = batch.replicas[index]
    accepted = sum(r.code < REFUSED_FROM for r in said)
    far = sum(r.code == NotClosestError.code for r in said)
    return far > 0 and 2 * accepted <= len(said)


async def _place_rest(node: Kademlia, batch: _Batch, index: int) -> None:
    """Look up one item's own place, where the batch's common knowledge did not reach."""
    contacts = await _places(node, int.from_bytes(batch.targets[index], "big"))
    said = {r.peer: r for r in batch.replicas[index]}
    rest = [c for c in contacts[:K] if c.public not in said]
    more = await _place(node, batch.loads[index], rest, K)
    accepted = [r for r in said.values() if r.code != NotClosestError.code]
    batch.replicas[index] = [*accepted, *more]


def _frames(loads: Sequence[PutValue], indexes: Sequence[int]) -> Sequence[list[int]]:
    """Cut a share into what fits a frame, by bytes and by count."""
    frames: list[list[int]] = [[]]
    size = 0
    for index in indexes:
        item = loads[index].item
        more = 2 * ENTRY_BYTES + (len(item.v) if item else 0)
        if frames[-1] and (size + more > BATCH_BYTES_MAX or len(frames[-1]) == BATCH_ITEMS_MAX):
            frames.append([])
            size = 0
        frames[-1].append(index)
        size += more
    return frames


async def _send(node: Kademlia, batch: _Batch, contact: Contact, some: Sequence[int]) -> str:
    """Send one frame and note each outcome; returns what went wrong, if anything."""
    request = Batch(tuple(batch.loads[index] for index in some))
    try:
        reply = await node.ask(contact, DhtMethod.PUT_BATCH, request, PAGE_TIMEOUT_S)
    except (TransportError, ProtocolError) as failed:
        return str(failed)[:200] or "failed"
    assert isinstance(reply, Outcomes)
    if len(reply.outcomes) != len(some):
        return f"{len(reply.outcomes)} outcomes for {len(some)} items"
    for index, said in zip(some, reply.outcomes, strict=True):
        replica = Replica(contact.public, said.code, said.seq, said.text[:200])
        batch.replicas[index].append(replica)
    return ""

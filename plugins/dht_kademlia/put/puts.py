"""Putting items at the nodes closest to their targets: in parallel, by quorum, with a true report.

Why a report per replica: "stored" with no peer at all was the original's answer (C15), and a put
that waits for every dead node takes minutes (C44). Why `cas` is decided at one place, the node
closest to the target: of two writers that expect the same, each could win at half of the nodes, and
then the higher rank would take all in the end, whatever its writer had been told (C10).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final

import anyio
import anyio.lowlevel
import msgspec

from dht_kademlia.carry.push import Cargo, carry
from dht_kademlia.core.contacts import id_of
from dht_kademlia.core.messages import BATCH_ITEMS_MAX, ErrorCode, PutValue, Stored
from dht_kademlia.core.routing_table import K
from dht_kademlia.node import Kademlia
from dht_kademlia.put.bulk import REFUSED_FROM, Progress, send_out
from dht_kademlia.put.hints import note_report
from dht_kademlia.put.placing import place, places, replica_of
from dht_kademlia.put.resend import due_loads, note, undo
from skycore.contracts.dht import PutEnded, PutReport, Replica
from skycore.contracts.store import Outcome, PutOutcome
from skycore.errors import CasMismatchError, ItemError, NotClosestError
from skycore.model.addresses import Contact
from skycore.model.items import Kind, Lease, MutableItem
from skycore.tasks import each_of

__all__ = ["hand_out", "put_many"]

log = logging.getLogger(__name__)

COUNTED_AT_ONCE: Final = 64
"""Reports between two breaths: one of a put that reached nobody costs a signature's check."""
EXPECTING_AT_ONCE: Final = 8
DECIDERS_MAX: Final = 5
"""How many of the closest may fail to answer before a put with `cas` is given up."""
UNDECIDED: Final = frozenset(
    {
        Outcome.MISSING_BLOCKS,
        Outcome.NOT_HELD,
        ErrorCode.GENERIC,
        ErrorCode.SERVER,
        ErrorCode.PROTOCOL,
        ErrorCode.METHOD_UNKNOWN,
        ErrorCode.NO_ANSWER,
        NotClosestError.code,
    }
)
"""Who says so has decided nothing: the next closest is asked."""


def _is_final(own: PutOutcome) -> bool:
    """Tell whether our own store's word ends it: refused, and not for being far away."""
    if own.code == Outcome.MISSING_BLOCKS:
        return True
    return own.code >= REFUSED_FROM and own.code != NotClosestError.code


def _target(load: PutValue) -> bytes:
    if load.item is not None:
        return load.item.target
    assert load.lease is not None
    return load.lease.target


def _counted(node: Kademlia, load: PutValue, report: PutReport) -> PutReport:
    node.stats.puts += 1
    node.stats.replicas += report.stored
    node.publish(PutEnded(report.stored))
    if report.replicas or not _is_final(report.outcome):
        note(node, load, report)
    note_report(node, load, report)
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


async def put_many(
    node: Kademlia,
    loads: Sequence[PutValue],
    progress: Progress | None = None,
    *,
    blocks: Mapping[bytes, bytes] | None = None,
) -> Sequence[PutReport]:
    """Store items (or prolong them, where there is only a lease), each at its k closest nodes.

    `blocks` are those of the items' manifests, by hash; what is not in it is in our own store.
    """
    cargo = Cargo(node, loads, blocks)
    told = progress or _nobody
    if len(loads) == 1:
        report = await _put(node, cargo) if loads[0].cas is None else await _expecting(cargo, 0)
        told(1)
        return [_counted(node, loads[0], report)]
    reports = await _put_batch(node, cargo, told)
    told(len(loads))
    for index, (load, report) in enumerate(zip(loads, reports, strict=True)):
        _counted(node, load, report)
        if index % COUNTED_AT_ONCE == COUNTED_AT_ONCE - 1:
            await anyio.lowlevel.checkpoint()
    return reports


def _nobody(done: int) -> None:
    """Most callers need no progress."""


async def _put(node: Kademlia, cargo: Cargo) -> PutReport:
    own = (await _admit(cargo, (0,)))[0]
    if _is_final(own):
        return PutReport(own)
    number = int.from_bytes(_target(cargo.loads[0]), "big")
    contacts = await places(node, number)
    contacts, wanted = _without_self(node, number, contacts, own)
    return PutReport(own, await place(node, cargo, 0, contacts, wanted))


def _without_self(
    node: Kademlia, number: int, contacts: list[Contact], own: PutOutcome
) -> tuple[list[Contact], int]:
    """Return whom to send to, and how many: this node may be one of the k closest itself."""
    if own.accepted and len(contacts) >= K:
        last = contacts[K - 1]
        if node.table.own_id ^ number < id_of(last.public) ^ number:
            return [c for c in contacts if c is not last], K - 1
    return contacts, K


async def _put_batch(node: Kademlia, cargo: Cargo, progress: Progress) -> list[PutReport]:
    """Put what expects nothing together, and what does one by one."""
    loads = cargo.loads
    plain = [index for index, load in enumerate(loads) if load.cas is None]
    own = dict(zip(plain, await _admit(cargo, plain), strict=True))
    live = [index for index in plain if not _is_final(own[index])]
    replicas = await send_out(node, cargo, [_target(load) for load in loads], live, progress)
    reports = {index: PutReport(own[index], tuple(replicas[index])) for index in plain}
    limiter = anyio.Semaphore(EXPECTING_AT_ONCE)

    async def one(index: int) -> None:
        async with limiter:
            reports[index] = await _expecting(cargo, index)

    await each_of([index for index, load in enumerate(loads) if load.cas is not None], one)
    return [reports[index] for index in range(len(loads))]


# --- our own store -------------------------------------------------------------------------------


async def _admit(cargo: Cargo, indexes: Sequence[int]) -> Sequence[PutOutcome]:
    """Judge every item, and store those that this node keeps; prolong what it holds."""
    node, loads, own = cargo.node, cargo.loads, cargo.node.identity.public
    outcomes: dict[int, PutOutcome] = {}
    kept: list[int] = []
    leases: list[tuple[int, Lease]] = []
    blocks: dict[bytes, bytes] = {}
    for index in indexes:
        item, lease = loads[index].item, loads[index].lease
        if item is None:
            leases += [(index, lease)] if lease else []
        elif item.signer == own or node.keeps(item.target):
            kept.append(index)
            if item.kind == Kind.MANIFEST:
                await cargo.note_before(item)
                blocks |= cargo.given(item)
        else:
            outcomes[index] = await _judge(cargo, index, item, lease)
    if kept:
        admitted = await node.items.admit(
            [item for index in kept if (item := loads[index].item)],
            sender=own,
            cas=[loads[index].cas for index in kept],
            blocks=list(blocks.values()),
            leases=[loads[index].lease for index in kept],
        )
        outcomes |= dict(zip(kept, admitted, strict=True))
    if leases:
        renewed = await node.items.renew([lease for _, lease in leases], sender=own)
        outcomes |= {index: said for (index, _), said in zip(leases, renewed, strict=True)}
    return [outcomes[index] for index in indexes]


async def _judge(
    cargo: Cargo, index: int, item: MutableItem, lease: Lease | None = None
) -> PutOutcome:
    """Say what our own store would, were the item near."""
    try:
        cargo.node.items.judge(item, lease)
        await cargo.tree(index)
    except ItemError as bad:
        return PutOutcome(bad.code, text=str(bad))
    return PutOutcome(NotClosestError.code, text="kept by nearer nodes only")


# --- puts that expect something ------------------------------------------------------------------


async def _expecting(cargo: Cargo, index: int) -> PutReport:
    """Let the closest node that answers decide; if it stored, bring the item to the others."""
    node, load = cargo.node, cargo.loads[index]
    item = load.item
    if item is None:
        return PutReport(PutOutcome(ErrorCode.GENERIC, text="a lease expects nothing"))
    verdict = await _judge(cargo, index, item, load.lease)
    if _is_final(verdict):
        return PutReport(verdict)
    number = int.from_bytes(item.target, "big")
    contacts = await places(node, number, patient=True)
    own, asked = await _decide(cargo, index, number, contacts)
    if own is None or _is_final(own):
        if own and own.code == CasMismatchError.code:
            await undo(node, load)
        return PutReport(own or verdict, tuple(asked.values()))
    bare = msgspec.structs.replace(load, cas=None)
    rest = Cargo(node, [bare], cargo.given(item))
    own = own if own.accepted else (await _admit(rest, (0,)))[0]
    contacts, wanted = _without_self(node, number, contacts, own)
    more = [contact for contact in contacts if contact.public not in asked]
    wanted -= sum(replica.code not in UNDECIDED for replica in asked.values())
    return PutReport(own, (*asked.values(), *await place(node, rest, 0, more, wanted)))


def _deciders(
    cargo: Cargo, index: int, number: int, contacts: Sequence[Contact]
) -> list[Contact | None]:
    """Return who is asked to decide, in order; None is this node, in its place among the closest.

    The item's own signer comes last, however near it is: it may run twice under its key, and each
    of the two would be the closest in its own eyes.
    """
    node, item = cargo.node, cargo.loads[index].item
    signer = item.signer if item is not None else b""
    order: list[Contact | None] = [*contacts[:DECIDERS_MAX]]
    own_distance = node.table.own_id ^ number
    order.insert(sum(id_of(c.public) ^ number < own_distance for c in order if c), None)

    def is_signer(contact: Contact | None) -> bool:
        return (contact.public if contact else node.identity.public) == signer

    return sorted(order, key=is_signer)


async def _decide(
    cargo: Cargo, index: int, number: int, contacts: Sequence[Contact]
) -> tuple[PutOutcome | None, dict[bytes, Replica]]:
    """Ask one after the other, from the closest on, this node in its place among them.

    Returns our own store's word where it decided, the refusal of who else did, a code that is not
    final where somebody else stored it, None where nobody decided; and what the others said. Our
    own store holding exactly this decides nothing: it took it when nobody else was there.
    """
    asked = dict[bytes, Replica]()
    order = _deciders(cargo, index, number, contacts)
    held: PutOutcome | None = None
    for contact in order:
        if contact is None:
            own = (await _admit(cargo, (index,)))[0]
            if own.code == Outcome.HELD:
                held = own
            elif own.code not in UNDECIDED:
                return own, asked
            continue
        said = dict[int, Stored]()
        await carry(cargo, contact, (index,), said.__setitem__)
        replica = asked[contact.public] = replica_of(contact, said[index])
        if replica.code in UNDECIDED:
            continue
        if replica.code < REFUSED_FROM:
            return held or PutOutcome(NotClosestError.code), asked
        return PutOutcome(replica.code, replica.seq, text=replica.text), asked
    return held, asked

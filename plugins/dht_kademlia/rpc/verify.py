"""Is what this node holds what another one holds, or what a recording says? (C46, L23)

Why beside reconcile: whoever asks which one is right wants names and no repair. Fingerprints find
the slots that differ; which of these differ in content and not only in a lease that is still on its
way, and of whom the records are that only the other side holds, its own items say.
"""

from __future__ import annotations

from collections.abc import Sequence

from dht_kademlia.core.messages import Ranges, Reconcile
from dht_kademlia.node import Kademlia
from dht_kademlia.rpc.live_models import (
    CompareParams,
    CompareResult,
    DifferenceView,
    UnequalFact,
    VerifyResult,
)
from dht_kademlia.status import salt_text
from skycore.contracts.dht import Difference, ReconcileReport
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Fact
from skycore.contracts.store import Items
from skycore.errors import ProtocolError, TransportError
from skycore.jsonrpc.facts import fact_of
from skycore.model.addresses import Contact
from skycore.model.items import ItemClass, Kind, MutableItem, mutable_item_target
from skycore.model.keys import PubKey
from skycore.model.limits import PAGE_TIMEOUT_S, WANTED_MAX
from skycore.model.numbers import DhtMethod

__all__ = ["compare_facts", "describe_differences", "verified"]

ASKS_MAX = 16
"""Calls to learn what the other side holds; each brings a megabyte, or all that is left."""


def describe_differences(
    report: ReconcileReport, there: dict[bytes, list[MutableItem]], same: set[tuple[bytes, int]]
) -> list[DifferenceView]:
    """Return the differences for people; `there` holds items of the other side, by target."""
    return [_view(d, there.get(d.target, []), same) for d in report.differences]


def _view(
    d: Difference, there: Sequence[MutableItem], same: set[tuple[bytes, int]]
) -> DifferenceView:
    salt, subject = d.salt, d.subject
    if not subject and there:
        salt, subject = there[0].salt, there[0].subject
    if not d.seq_here:
        what = "missing"
    elif not d.seq_there:
        what = "extra"
    else:
        what = "lease" if (d.target, d.item_class) in same else "different"
    return DifferenceView(
        what,
        d.target.hex(),
        ItemClass(d.item_class).name.lower(),
        salt_text(salt),
        subject.hex(),
        str(d.seq_here),
        str(d.seq_there),
    )


async def verified(node: Kademlia, report: ReconcileReport, salt: bytes | None) -> VerifyResult:
    """Return what a comparison found (a dry run), with names, and leases told from contents."""
    contact = Contact(PubKey(report.peer), node.transports.addresses.find(report.peer))
    there = await _held_there(node, contact, salt, report.differences)
    same = {
        (d.target, d.item_class)
        for d in report.differences
        if d.seq_here == d.seq_there and await _is_same(node.items, d, there.get(d.target, []))
    }
    found = describe_differences(report, there, same)
    different = report.different - len(same)
    return VerifyResult(
        report.peer.hex(),
        report.complete and not different,
        different,
        len(same),
        report.complete,
        [view for view in found if view.what != "lease"],
        list(report.reasons),
    )


async def _held_there(
    node: Kademlia, contact: Contact, salt: bytes | None, differences: Sequence[Difference]
) -> dict[bytes, list[MutableItem]]:
    """Return what the other side holds of the differences, by target, as far as it tells.

    Nothing of it is believed: a target is the hash of subject and salt, so it proves the names,
    and an item is only compared with our own.
    """
    wanted = list(
        dict.fromkeys(d.target for d in differences if not d.subject or d.seq_here == d.seq_there)
    )
    found: dict[bytes, list[MutableItem]] = {}
    for _ in range(ASKS_MAX):
        if not wanted:
            break
        request = Reconcile(salt, (), tuple(wanted[:WANTED_MAX]))
        frame = node.client.frame(DhtMethod.RECONCILE, request)
        try:
            reply = await node.send(contact, DhtMethod.RECONCILE, frame, timeout_s=PAGE_TIMEOUT_S)
        except (TransportError, ProtocolError):
            break  # the names are a courtesy; that they differ is known
        assert isinstance(reply, Ranges)
        asked = set(request.wanted)
        for item in reply.items:
            target = mutable_item_target(item.subject, item.salt)
            if target in asked:
                found.setdefault(target, []).append(item)
        if reply.served < 1:
            break
        wanted = wanted[reply.served :]
    return found


async def _is_same(items: Items, d: Difference, there: Sequence[MutableItem]) -> bool:
    own = [s.item for s in await items.get(d.target) if s.item_class == d.item_class]
    return bool(own) and any(item == own[0] for item in there)


async def compare_facts(
    items: Items, namespaces: Namespaces, own: bytes, params: CompareParams
) -> CompareResult:
    """Return which facts are not what a reader gets: contents count, whoever signed them.

    Raises `RpcError` for a fact that is none.
    """
    unequal = []
    facts = [fact_of(namespaces, row) for row in params.facts]
    for fact in facts:
        subject = fact.subject or own
        what = await _compared(items, fact, mutable_item_target(subject, fact.salt))
        if what:
            unequal.append(UnequalFact(what, salt_text(fact.salt), subject.hex()))
    return CompareResult(len(facts) - len(unequal), unequal)


async def _compared(items: Items, fact: Fact, target: bytes) -> str:
    held = await items.get(target)
    if not held:
        return "" if fact.v is None else "missing"
    if held[0].item.kind == Kind.TOMBSTONE:
        return "" if fact.v is None else "deleted"
    return "" if fact.v == await items.value(held[0]) else "different"

"""What the DHT says of itself: how many it knows, what it holds, how lookups end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from dht_kademlia.node import Kademlia
from dht_kademlia.standing import Followed
from skycore.contracts.dht import DhtMode
from skycore.contracts.status import Health, Status
from skycore.contracts.store import Usage
from skycore.errors import StoreError

__all__ = ["DhtStatus", "describe", "salt_text"]


def salt_text(salt: bytes) -> str:
    """Return a salt as people write it: its text, or hex: and its digits."""
    try:
        text = salt.decode()
    except UnicodeDecodeError:
        return "hex:" + salt.hex()
    return text if text.isprintable() and not text.startswith("hex:") else "hex:" + salt.hex()


async def describe(node: Kademlia) -> dict[str, Any]:
    """Return the facts, as plain data with stable names; what is held only where it is known."""
    stats = node.stats
    usage, trouble = await _usage(node)
    sync: dict[str, Any] | None = None
    if stats.last_sync:
        sync = msgspec.to_builtins(msgspec.structs.replace(stats.last_sync, peer=b""))
        sync["peer"] = stats.last_sync.peer.hex()
        sync["seconds_ago"] = round(node.clock.now() - stats.last_sync_s, 1)
    return {
        "mode": node.mode.value,
        **describe_live(node),
        "node_id": f"{node.table.own_id:064x}",
        "peers": len(node.table),
        "bootstrap_nodes": len(node.seeds),
        "items": {salt_text(salt): used.items for salt, used in sorted(usage.items())},
        "bytes": sum(used.bytes for used in usage.values()),
        "store_trouble": trouble,
        "lookups": dict(sorted(stats.lookups.items())),
        "reads": dict(sorted(stats.reads.items())),
        "answers": dict(sorted(stats.answers.items())),
        "puts": stats.puts,
        "replicas_per_put": round(stats.replicas / stats.puts, 1) if stats.puts else 0.0,
        "waiting": len(node.waiting),
        "waiting_dropped": node.waiting.dropped,
        "repaired": stats.repaired,
        "hints": len(node.hints),
        "hints_dropped": node.hints.dropped,
        "calls_served": stats.calls_served,
        "calls_failed": stats.calls_failed,
        "malformed": stats.malformed,
        "refused": {str(code): count for code, count in sorted(stats.refused.items())},
        "contacts_left": stats.contacts_left,
        "sync_bytes": dict(sorted(stats.sync_bytes.items())),
        "last_sync": sync,
    }


async def _usage(node: Kademlia) -> tuple[Mapping[bytes, Usage], str]:
    """Return what is held, or why nobody can say: a store that others share may be away."""
    try:
        return await node.items.usage(), ""
    except StoreError as trouble:
        return {}, str(trouble)


def describe_live(node: Kademlia) -> dict[str, Any]:
    """Return how this node keeps in step with the others."""
    standing, now = node.standing, node.clock.now()
    reconcile: dict[str, Any] | None = None
    if standing.last_reconcile:
        report = msgspec.structs.replace(standing.last_reconcile, peer=b"", differences=())
        reconcile = msgspec.to_builtins(report)
        reconcile["peer"] = standing.last_reconcile.peer.hex()
        reconcile["seconds_ago"] = round(now - standing.last_reconcile_s, 1)
        del reconcile["differences"]
    return {
        "complete": standing.is_complete,
        "advertised": standing.is_advertised,
        "refuses_new_items": standing.is_refusing,
        "full_nodes": standing.full_nodes
        if node.mode is DhtMode.FULL
        else sum(entry.mode == "full" for entry in node.table),
        "watching": [_watching(followed, now) for followed in standing.followed],
        "last_reconcile": reconcile,
    }


def _watching(followed: Followed, now: float) -> dict[str, Any]:
    lag_s = followed.lag_s(now)
    return {
        "peer": followed.peer.hex(),
        "salt": None if followed.salt is None else salt_text(followed.salt),
        "live": followed.is_live,
        "lag_s": None if lag_s is None else round(lag_s, 1),
        "items": followed.items,
        "trouble": followed.trouble,
    }


class DhtStatus:
    """`contracts.status.StatusSource` of the DHT."""

    name = "dht"

    def __init__(self, node: Kademlia, more: Callable[[], Mapping[str, Any]] = dict) -> None:
        self._node = node
        self._more = more

    async def status(self) -> Status:
        """Return the truth now. Knowing nobody is degraded, unless there is nobody to ask."""
        fields = {**await describe(self._node), **self._more()}
        items = sum(fields["items"].values())
        troubles = []
        if fields["store_trouble"]:
            troubles.append(f"the store is away: {fields['store_trouble']}")
        held = "" if troubles else f", {items} items"
        summary = f"{fields['mode']} node, {fields['peers']} peers{held}"
        if self._node.seeds and not fields["peers"]:
            troubles.append("no bootstrap node answers")
        if self._node.mode is DhtMode.FULL and self._node.standing.is_refusing:
            troubles.append("refuses new items: full")
        health = Health.DEGRADED if troubles else Health.OK
        return Status(health, "; ".join([summary, *troubles]), fields)

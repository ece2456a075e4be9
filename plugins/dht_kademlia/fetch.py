"""Taking in what another node told us of: items, and the blocks that they stand on.

Why one place: sync, watch, reconcile and reads all pull heads from one peer, and each must fetch
the blocks from the same peer, hand them to the gate, and let a peer that sends wrong blocks or none
spoil that item only (C16, C18).
"""

from __future__ import annotations

from collections.abc import Sequence

from dht_kademlia.client import Meter
from dht_kademlia.node import Kademlia
from skycore.contracts.store import PutOutcome
from skycore.model.addresses import Contact
from skycore.model.items import Lease, MutableItem

__all__ = ["admit_from"]


async def admit_from(
    node: Kademlia,
    contact: Contact,
    items: Sequence[MutableItem],
    leases: Sequence[Lease | None] | None = None,
    *,
    meter: Meter = lambda count: None,
) -> Sequence[PutOutcome]:
    """Admit what one peer sent, and the blocks that it names; one outcome each, in order.

    `leases` are those that came with the items. Raises `TransportError` where the peer is lost
    before all blocks are here: what was whole by then is stored.
    """
    return await node.items.admit(items, sender=contact.public, leases=leases)

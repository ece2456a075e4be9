"""Placing one item: whom to bring it to, all at once, and the truth about each of them.

Who those are is the lookup's answer, when it is over is `core.placement`'s; how it gets to one of
them is `carry.push`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import anyio

from dht_kademlia.carry.push import Cargo, carry
from dht_kademlia.core.messages import ErrorCode, Stored
from dht_kademlia.core.placement import Placement
from dht_kademlia.core.routing_table import K
from dht_kademlia.node import SETTLE, Kademlia
from skycore.contracts.dht import Replica
from skycore.model.addresses import Contact
from skycore.model.limits import BLOCKS_BYTES_MAX, CALL_TIMEOUT_S, PAGE_TIMEOUT_S

__all__ = ["SPARE", "place", "places", "replica_of"]

SPARE: Final = K
"""How many next-closest nodes may stand in for those that fail."""


def replica_of(contact: Contact, said: Stored) -> Replica:
    """Return what a node said, for the report."""
    return Replica(contact.public, said.code, said.seq, said.text)


async def places(node: Kademlia, target: int, *, patient: bool = False) -> list[Contact]:
    """Return the k closest nodes, and spare ones behind them.

    Whoever knows fewer than k nodes in all sends to all of them: there is nothing to look for
    that the next refresh would not bring. `patient`: the closest are among them, slow or not.
    """
    lookup = await node.find_nodes(target, settle=SETTLE, patient=patient)
    return lookup.closest(SPARE)


async def place(
    node: Kademlia, cargo: Cargo, index: int, contacts: Sequence[Contact], wanted: int
) -> tuple[Replica, ...]:
    """Bring one item to its nodes, all at once, and return when enough of them answered."""
    limit_s = CALL_TIMEOUT_S + _blocks_s(await cargo.bytes_below(index))
    placement = Placement(contacts, now=node.clock.now(), limit_s=limit_s, k=wanted)
    wake = anyio.Event()
    load = cargo.loads[index]
    held = load.item or load.lease
    target = held.target if held else b""

    async def one(contact: Contact) -> None:
        def told(_: int, said: Stored) -> None:
            if said.code == ErrorCode.NO_ANSWER:
                placement.failed(contact.public, said.text)
            else:
                placement.answered(replica_of(contact, said), node.clock.now())
                node.hints.settled(contact.public, target)

        await carry(cargo, contact, (index,), told)
        launch()

    def launch() -> None:
        """Send to whom it may concern; wake the waiter when its time changed or all is done."""
        while chosen := placement.next():  # who fails at once is stood in for at once
            for contact in chosen:
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


def _blocks_s(size: int) -> float:
    """Return how long the blocks of a value may take besides, in seconds."""
    return PAGE_TIMEOUT_S * -(-size // BLOCKS_BYTES_MAX)

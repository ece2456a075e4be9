"""The DHT side: the node's own record is published, and read back from full nodes.

Why read back one by one: a put that most nodes accepted proves nothing about those from which the
network reads, and one reachable peer proves nothing about copies (L12).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final, NamedTuple

import anyio

from discovery_transport.client.core.entries import TP
from skycore.contracts.dht import Dht
from skycore.contracts.namespace import Namespace
from skycore.contracts.publish import Fact, Publisher
from skycore.errors import SkycoreError
from skycore.model.entries import TransportEntry
from skycore.model.items import ItemClass, Kind, StoredItem
from skycore.model.keys import PubKey

__all__ = ["Publication", "ReadBack"]

ASKED_AT_ONCE: Final = 3
ASKED_MAX: Final = 12


class ReadBack(NamedTuple):
    """Which full nodes hold the record as it was published."""

    holders: int
    until_s: int
    """When it ends where it ends first, Unix seconds; 0 where nobody holds it."""
    asked: int


class Publication:
    """This node's record of its transports, under the salt tp."""

    def __init__(
        self,
        publisher: Publisher,
        namespace: Namespace,
        dht: Dht | None,
        public: PubKey,
        dice: random.Random,
    ) -> None:
        self._publisher, self._namespace, self._dht = publisher, namespace, dht
        self._public, self._dice = public, dice
        self._is_out = False
        self.rounds = 0

    async def publish(self, entries: Sequence[TransportEntry]) -> int:
        """Publish the list; return the record's seq, 0 where there is nothing to publish.

        What has not changed is only let live longer. Raises a SkycoreError.
        """
        if not entries:
            await self.withdraw()
            return 0
        self.rounds += 1
        self._is_out = True  # before: after a failure nobody knows
        published = await self._publisher.publish(Fact(TP, self._namespace.encode(list(entries))))
        return published.seq

    async def withdraw(self) -> None:
        """Delete the record, if this run published one."""
        if self._is_out:
            await self._publisher.publish(Fact(TP, None))
            self._is_out = False

    async def read_back(self, seq: int, wanted: int) -> ReadBack:
        """Ask full nodes, other than this one, until `wanted` of them hold exactly this record.

        Who cannot be asked holds nothing. Raises nothing that a peer can cause.
        """
        if self._dht is None:
            return ReadBack(0, 0, 0)
        peers = [p for p in await self._dht.find_full_nodes() if p != self._public][:ASKED_MAX]
        self._dice.shuffle(peers)
        ends: list[int] = []
        asked = 0
        while peers and len(ends) < wanted:
            now, peers = peers[:ASKED_AT_ONCE], peers[ASKED_AT_ONCE:]
            asked += len(now)
            async with anyio.create_task_group() as tasks:
                for peer in now:
                    tasks.start_soon(self._ask, self._dht, peer, seq, ends)
        best = sorted(ends, reverse=True)[:wanted]
        return ReadBack(len(ends), min(best, default=0), asked)

    async def _ask(self, dht: Dht, peer: PubKey, seq: int, ends: list[int]) -> None:
        try:
            held = await dht.ask(peer, self._public, TP)
        except SkycoreError:
            return
        ours = [stored.until for stored in held if self._is_ours(stored, seq)]
        if ours:  # once, however often it says so: one peer is one copy
            ends.append(max(ours))

    def _is_ours(self, stored: StoredItem, seq: int) -> bool:
        item = stored.item
        is_own = stored.item_class == ItemClass.OWNER and item.signer == self._public
        return is_own and item.seq == seq and item.kind != Kind.TOMBSTONE

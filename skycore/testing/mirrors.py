"""A mirror that is another node's gate: the shortest way from a publisher to a peer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from skycore.contracts.dht import PutReport, Replica
from skycore.contracts.store import Items, Outcome, PutOutcome
from skycore.model.items import Lease, MutableItem

__all__ = ["PeersMirror"]


class PeersMirror:
    """`contracts.dht.RenewingMirror` over the gates of some peers; none of them is our own store.

    `outcome` of a report sums up the replicas: the best code and the highest seq among them.
    """

    def __init__(self, name: str, peers: Sequence[Items], sender: bytes) -> None:
        self.name = name
        self.items_sent = 0
        self.leases_sent = 0
        self.blocks_sent = 0
        self._peers = peers
        self._sender = sender

    async def mirror(
        self,
        items: Sequence[MutableItem],
        *,
        cas: int | None = None,
        progress: Callable[[int], None] | None = None,
        blocks: Mapping[bytes, bytes] | None = None,
    ) -> Sequence[PutReport]:
        """Bring items and their blocks to every peer."""
        self.items_sent += len(items)
        given = tuple((blocks or {}).values())
        self.blocks_sent += len(given)
        answers = [
            await peer.admit(items, sender=self._sender, cas=[cas] * len(items), blocks=given)
            for peer in self._peers
        ]
        if progress is not None:
            progress(len(items))
        return _reports(answers)

    async def renew(self, leases: Sequence[Lease]) -> Sequence[PutReport]:
        """Bring leases to every peer."""
        self.leases_sent += len(leases)
        return _reports([await peer.renew(leases, sender=self._sender) for peer in self._peers])


def _reports(answers: Sequence[Sequence[PutOutcome]]) -> list[PutReport]:
    reports = []
    for row in zip(*answers, strict=True):
        replicas = tuple(
            Replica(b"peer%d" % number, outcome.code, outcome.seq, outcome.text)
            for number, outcome in enumerate(row)
        )
        best = min(row, key=lambda outcome: outcome.code)
        if best.accepted:  # our own store has none of it: only replicas count
            best = msgspec.structs.replace(best, code=int(Outcome.NOT_HELD))
        reports.append(PutReport(best, replicas))
    return reports

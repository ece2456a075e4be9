"""The mirror of a node that has none: its own store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from skycore.contracts.dht import PutReport
from skycore.contracts.store import Items, PutOutcome
from skycore.model.items import Lease, MutableItem

__all__ = ["LOCALLY", "OwnStore"]

LOCALLY = "stored locally: no mirror is up"


class OwnStore:
    """Admit what is published, as any other mirror would. `contracts.dht.RenewingMirror`."""

    name = ""

    def __init__(self, items: Items, own: bytes) -> None:
        self._items = items
        self._own = own

    async def mirror(
        self,
        items: Sequence[MutableItem],
        *,
        cas: int | None = None,
        progress: Callable[[int], None] | None = None,
        blocks: Mapping[bytes, bytes] | None = None,
    ) -> Sequence[PutReport]:
        """Admit items with the blocks that they stand on."""
        given = tuple((blocks or {}).values())
        outcomes = await self._items.admit(
            items, sender=self._own, cas=[cas] * len(items), blocks=given
        )
        if progress is not None:
            progress(len(items))
        return [PutReport(_said_locally(outcome)) for outcome in outcomes]

    async def renew(self, leases: Sequence[Lease]) -> Sequence[PutReport]:
        """Apply leases."""
        outcomes = await self._items.renew(leases, sender=self._own)
        return [PutReport(_said_locally(outcome)) for outcome in outcomes]


def _said_locally(outcome: PutOutcome) -> PutOutcome:
    if not outcome.accepted:
        return outcome
    return PutOutcome(outcome.code, outcome.seq, outcome.missing, LOCALLY)

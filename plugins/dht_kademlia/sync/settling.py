"""Bringing over what a comparison found: pulls, pushes and leases, and what became of each.

Why apart from comparing: here is all that changes a store, ours through the gate and theirs through
their own, and every item that was sent has its outcome counted (O25: a dropped batch that nobody
hears of). What a peer sends without being asked for is dropped, before it costs a signature.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from dht_kademlia.carry.fetch import admit_from
from dht_kademlia.carry.push import push
from dht_kademlia.client import Meter
from dht_kademlia.core.messages import ErrorCode, PutValue, Ranges, Reconcile, lease_of
from dht_kademlia.core.ranges import Effort, check_served
from dht_kademlia.node import Kademlia
from skycore.contracts.store import Outcome
from skycore.errors import SeqTooLowError, StreamError
from skycore.model.addresses import Contact
from skycore.model.items import Kind, StoredItem
from skycore.model.limits import PAGE_BYTES_MAX, WANTED_MAX

__all__ = ["Settling"]

REASONS_MAX: Final = 5
VAIN: Final = frozenset({int(Outcome.HELD), int(Outcome.NOT_HELD), SeqTooLowError.code})
"""What comes of two nodes that others write to meanwhile: nobody's fault, and nothing refused."""


class Settling:
    """Repairs both sides of one comparison. The four counts are slots, of both sides together."""

    def __init__(
        self,
        node: Kademlia,
        contact: Contact,
        salt: bytes | None,
        ask: Callable[[Reconcile], Awaitable[Ranges]],
        meter: Meter,
    ) -> None:
        self._node = node
        self._contact = contact
        self._salt = salt
        self._ask = ask
        self._meter = meter
        self._targets: dict[bytes, None] = {}
        self._leases: dict[bytes, None] = {}
        self._loads: list[PutValue] = []
        self._newer: list[PutValue] = []
        """Items of which an older version is held there, and with it most of their blocks."""
        self._size = 0
        self.effort = Effort()
        self.pulled = 0
        self.pushed = 0
        self.renewed = 0
        self.refused = 0
        self.reasons: list[str] = []

    # --- collecting ------------------------------------------------------------------------------

    def pull(self, target: bytes) -> None:
        """Note a target that is better there."""
        self._targets[target] = None

    def pull_lease(self, target: bytes) -> None:
        """Note a target whose item lives longer there."""
        self._leases[target] = None

    def push(self, stored: StoredItem, *, is_newer: bool = False) -> None:
        """Note an item that is better here; `is_newer`: than another one that is held there."""
        loads = self._newer if is_newer and stored.item.kind == Kind.MANIFEST else self._loads
        loads.append(PutValue(stored.item, lease=stored.lease))
        self._size += len(stored.item.v)

    def push_lease(self, stored: StoredItem) -> None:
        """Note an item that lives longer here."""
        self._loads.append(PutValue(None, lease=stored.lease))

    @property
    def is_much(self) -> bool:
        """Whether it is time to bring over what was collected."""
        loads = len(self._loads) + len(self._newer)
        waiting = max(loads, len(self._targets), len(self._leases))
        return waiting >= WANTED_MAX or self._size >= PAGE_BYTES_MAX

    def reason(self, text: str) -> None:
        """Note why something was not done: the first few reasons, each once."""
        if len(self.reasons) < REASONS_MAX and text not in self.reasons:
            self.reasons.append(text)

    # --- bringing over ---------------------------------------------------------------------------

    async def bring(self) -> None:
        """Bring over all that was collected, ours first.

        Raises `TransportError`, `RemoteProtocolError`; what was done until then stays, and is
        counted.
        """
        loads, newer = self._loads, self._newer
        self._loads, self._newer, self._size = [], [], 0
        await self._push(loads, lean=False)
        await self._push(newer, lean=True)
        leases, self._leases = list(self._leases), {}
        for start in range(0, len(leases), WANTED_MAX):
            await self._pull_leases(leases[start : start + WANTED_MAX])
        targets, self._targets = list(self._targets), {}
        while targets:
            served = await self._pull(targets[:WANTED_MAX])
            targets = targets[served:]

    async def _push(self, loads: Sequence[PutValue], *, lean: bool) -> None:
        if not loads:
            return
        self.effort.spend(len(loads))
        said = await push(self._node, self._contact, loads, lean=lean, meter=self._meter)
        stored = renewed = vain = 0
        lost = ""
        for load, answer in zip(loads, said, strict=True):
            stored += answer.code == Outcome.STORED
            renewed += answer.code == Outcome.RENEWED
            vain += answer.code in VAIN
            if answer.code == SeqTooLowError.code and load.item is not None:
                self.pull(load.item.target)  # it became newer there in the meantime
            elif answer.code == ErrorCode.NO_ANSWER:
                lost = answer.text or "no answer to a push"
            elif answer.code > Outcome.RENEWED and answer.code not in VAIN:
                self._refuse(answer.code, answer.text, "there")
        self.pushed += stored
        self.renewed += renewed
        self.effort.earn(stored + renewed, vain)
        if lost:
            raise StreamError(lost)

    async def _pull_leases(self, targets: Sequence[bytes]) -> None:
        self.effort.spend(len(targets))
        reply = await self._ask(Reconcile(self._salt, (), (), tuple(targets)))
        wanted = frozenset(targets)
        leases = [lease for lease in reply.leases if lease.target in wanted]
        self._unasked(len(reply.leases) - len(leases))
        outcomes = await self._node.items.renew(leases, sender=self._contact.public)
        self._count([(o.code, o.text) for o in outcomes], len(targets))

    async def _pull(self, targets: Sequence[bytes]) -> int:
        """Pull what fits one answer; return how many targets that were."""
        self.effort.spend(len(targets))
        reply = await self._ask(Reconcile(self._salt, (), tuple(targets)))
        check_served(len(targets), reply)
        self.effort.earn(0, len(targets) - reply.served)  # they are asked for again
        wanted = frozenset(targets[: reply.served])
        leases = lease_of(reply.item_leases, len(reply.items))
        kept = [
            (item, lease)
            for item, lease in zip(reply.items, leases, strict=True)
            if self._salt in (None, item.salt) and item.target in wanted
        ]
        self._unasked(len(reply.items) - len(kept))
        gone = len(wanted) - len({item.target for item, _ in kept})
        if gone:  # it ended or was dropped there; or it never was
            self.reason(f"{gone} listed targets were gone when they were asked for")
        if kept:
            outcomes = await admit_from(self._node, self._contact, kept, meter=self._meter)
            self._count([(o.code, o.text) for o in outcomes], reply.served)
        return reply.served

    def _count(self, outcomes: Sequence[tuple[int, str]], asked: int) -> None:
        codes = [code for code, _ in outcomes]
        stored, renewed = codes.count(Outcome.STORED), codes.count(Outcome.RENEWED)
        vain = sum(code in VAIN for code in codes)
        for code, text in outcomes:
            if code > Outcome.RENEWED and code not in VAIN:
                self._refuse(code, text, "here")
        self.pulled += stored
        self.renewed += renewed
        self.effort.earn(stored + renewed, min(vain, asked))

    def _refuse(self, code: int, text: str, where: str) -> None:
        self.refused += 1
        self.reason(f"refused {where}: {text or f'code {code}'}"[:300])

    def _unasked(self, count: int) -> None:
        if count:
            self.refused += count
            self.reason(f"{count} items or leases that were not asked for")

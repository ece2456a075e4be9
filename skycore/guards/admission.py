"""One item's way through the gate, and the proving of many without stopping the event loop.

Why slices in threads: a signature check takes some 40 µs, so a page of 512 items would hold the
loop for 20 ms and more. libsodium lets go of the interpreter while it checks, so two slices at a
time use what cores there are, and the loop goes on in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import anyio

from skycore.contracts.runtime import Workers
from skycore.contracts.store import Outcome, PutOutcome
from skycore.errors import InvalidSignatureError, ItemError
from skycore.guards.judge import Claim, Judge
from skycore.model.items import Kind, Lease, MutableItem, RankedItem, StoredItem

__all__ = ["Candidate", "Prover", "outcome_name"]

INLINE_ITEMS_MAX = 64
INLINE_BYTES_MAX = 256 * 1024
SLICE_ITEMS = 64
SLICES_AT_ONCE = 2


class Candidate:
    """An item (or a lease for one that is held) and what is known of it so far."""

    __slots__ = ("cas", "claim", "is_held", "item", "lease", "old", "outcome", "ranked")

    def __init__(self, item: MutableItem, cas: int | None, lease: Lease | None) -> None:
        self.item = item
        self.cas = cas
        self.lease = lease
        self.claim: Claim | None = None
        self.old: StoredItem | None = None
        """What its slot holds now, live or not."""
        self.is_held = False
        """The store has exactly this item: only a lease is new, if that."""
        self.ranked: RankedItem | None = None
        self.outcome: PutOutcome | None = None

    @property
    def is_open(self) -> bool:
        """Whether nothing has decided it yet."""
        return self.outcome is None

    @property
    def bytes(self) -> int:
        """Roughly what it costs to check."""
        return len(self.item.v)

    def refuse(self, error: ItemError) -> None:
        """Decide it: no. The outcome says why, and what is there instead."""
        self.outcome = PutOutcome(error.code, seq_of(self.old), text=str(error))


def seq_of(stored: StoredItem | None) -> int:
    """Return what an outcome says is there: 0 for nothing and for a tombstone."""
    if stored is None or stored.item.kind == Kind.TOMBSTONE:
        return 0
    return stored.item.seq


_ERRORS: Sequence[type[ItemError]] = (ItemError, *ItemError.__subclasses__())
_ERROR_NAMES = {error.code: error.__name__ for error in _ERRORS}
_OUTCOME_NAMES = {int(outcome): outcome.name.lower() for outcome in Outcome}


def outcome_name(code: int) -> str:
    """Return how a code is called in counters and log lines."""
    return _OUTCOME_NAMES.get(code) or _ERROR_NAMES.get(code, "ItemError")


class Prover:
    """Check values and signatures of candidates: a few at once, many in threads."""

    def __init__(self, judge: Judge, workers: Workers) -> None:
        self._judge = judge
        self._workers = workers
        self._turns = anyio.Semaphore(SLICES_AT_ONCE)

    async def prove(self, candidates: Sequence[Candidate], sender: bytes, now_ns: int) -> None:
        """Give each candidate its `ranked`, or its refusal."""
        size = sum(candidate.bytes for candidate in candidates)
        if len(candidates) <= INLINE_ITEMS_MAX and size <= INLINE_BYTES_MAX:
            self._prove_slice(candidates, sender, now_ns)
            return
        async with anyio.create_task_group() as tasks:
            for start in range(0, len(candidates), SLICE_ITEMS):
                part = candidates[start : start + SLICE_ITEMS]
                await self._turns.acquire()
                tasks.start_soon(self._prove_in_thread, part, sender, now_ns)

    async def _prove_in_thread(self, part: Sequence[Candidate], sender: bytes, now_ns: int) -> None:
        try:
            await self._workers.run(partial(self._prove_slice, part, sender, now_ns))
        finally:
            self._turns.release()

    def _prove_slice(self, part: Sequence[Candidate], sender: bytes, now_ns: int) -> None:
        for candidate in part:
            try:
                self._prove_one(candidate, sender, now_ns)
            except ItemError as error:
                candidate.refuse(error)

    def _prove_one(self, candidate: Candidate, sender: bytes, now_ns: int) -> None:
        claim, old = candidate.claim, candidate.old
        if claim is None:
            return
        if candidate.is_held and old is not None:
            if claim.lease is None:
                return
            if claim.lease.digest != old.digest:
                raise InvalidSignatureError("the lease is for another item")
            self._judge.prove_lease(old.item.signer, claim.lease)
            return
        candidate.ranked = self._judge.prove(claim, sender, now_ns, candidate.cas)

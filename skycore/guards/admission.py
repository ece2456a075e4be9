"""One item's way through the gate, and the proving of many without stopping the event loop.

Why slices in threads: a signature check takes some 40 µs, so a page of 512 items would hold the
loop for 20 ms and more. libsodium lets go of the interpreter while it checks, so two slices at a
time use what cores there are, and the loop goes on in between. Only the checks go there: threads
that also run Python wait for each other longer than they save (measured: 0.53 of the plain rate).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import anyio
import anyio.lowlevel

from skycore.contracts.runtime import Workers
from skycore.contracts.store import Outcome, PutOutcome
from skycore.errors import InvalidSignatureError, ItemError
from skycore.guards.judge import Check, Claim, Evidence, Judge
from skycore.guards.quota import Growth
from skycore.model.items import Kind, Lease, MutableItem, RankedItem, StoredItem

__all__ = ["Candidate", "Prover", "outcome_name", "seq_of"]

TEXT_MAX = 300
"""A schema's words may quote what a stranger wrote."""
INLINE_ITEMS_MAX = 64
SLICE_ITEMS = 128
THREADS_AT_ONCE = 2
PREPARE_BYTES_MAX = 128 * 1024
"""Bytes to prepare between two breaths of the event loop; an item counts a little more."""
PREPARE_ITEM_BYTES = 1_024


class Candidate:
    """An item (or a lease for one that is held) and what is known of it so far."""

    __slots__ = (
        "blocks", "cas", "checks", "claim", "evidence", "growth", "is_held",
        "item", "lease", "old", "outcome", "ranked",
    )  # fmt: skip

    def __init__(self, item: MutableItem, cas: int | None, lease: Lease | None) -> None:
        self.item = item
        self.cas = cas
        self.lease = lease
        self.claim: Claim | None = None
        self.old: StoredItem | None = None
        """What its slot holds now, live or not."""
        self.is_held = False
        """The store has exactly this item: only a lease is new, if that."""
        self.evidence: Evidence | None = None
        self.checks: tuple[Check, ...] = ()
        self.ranked: RankedItem | None = None
        self.growth: Growth | None = None
        """What the node will hold more; `Heads` knows it of a manifest."""
        self.blocks: Mapping[bytes, bytes] | None = None
        """Of a manifest that is complete: those of its blocks that are in hand."""
        self.outcome: PutOutcome | None = None

    @property
    def is_open(self) -> bool:
        """Whether nothing has decided it yet."""
        return self.outcome is None

    def refuse(self, error: ItemError) -> None:
        """Decide it: no. The outcome says why, and what is there instead."""
        self.outcome = PutOutcome(error.code, seq_of(self.old), text=str(error)[:TEXT_MAX])


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
        self._turns = anyio.Semaphore(THREADS_AT_ONCE)

    async def prove(self, candidates: Sequence[Candidate], sender: bytes, now_ns: int) -> None:
        """Give each candidate its `ranked`, or its refusal."""
        if len(candidates) <= INLINE_ITEMS_MAX:
            await self._prepare(candidates)
            verdicts = self._judge.verify([check for c in candidates for check in c.checks])
            self._conclude(candidates, verdicts, sender, now_ns)
            return

        async def verify(part: Sequence[Candidate]) -> None:
            checks = [check for c in part for check in c.checks]
            async with self._turns:
                verdicts = await self._workers.run(partial(self._judge.verify, checks))
            self._conclude(part, verdicts, sender, now_ns)

        async with anyio.create_task_group() as tasks:
            for start in range(0, len(candidates), SLICE_ITEMS):
                part = candidates[start : start + SLICE_ITEMS]
                await self._prepare(part)  # while the slice before it is in its thread
                tasks.start_soon(verify, part)

    async def _prepare(self, candidates: Sequence[Candidate]) -> None:
        done = 0
        for candidate in candidates:
            try:
                self._prepare_one(candidate)
            except ItemError as error:
                candidate.refuse(error)
            done += PREPARE_ITEM_BYTES + len(candidate.item.v)
            if done > PREPARE_BYTES_MAX:
                done = 0
                await anyio.lowlevel.checkpoint()

    def _prepare_one(self, candidate: Candidate) -> None:
        claim, old = candidate.claim, candidate.old
        if claim is None:
            return
        if candidate.is_held and old is not None:
            if claim.lease is not None:
                check = self._judge.lease_check(old.item.signer, old.digest, claim.lease)
                candidate.checks = (check,)
            return
        candidate.evidence = self._judge.prepare(claim)
        candidate.checks = candidate.evidence.checks

    def _conclude(
        self, part: Sequence[Candidate], verdicts: Sequence[bool], sender: bytes, now_ns: int
    ) -> None:
        at = 0
        for candidate in part:
            end = at + len(candidate.checks)
            try:
                self._conclude_one(candidate, verdicts[at:end], sender, now_ns)
            except ItemError as error:
                candidate.refuse(error)
            at = end

    def _conclude_one(
        self, candidate: Candidate, verdicts: Sequence[bool], sender: bytes, now_ns: int
    ) -> None:
        if candidate.evidence is not None:
            candidate.ranked = self._judge.rank(
                candidate.evidence, verdicts, sender, now_ns, candidate.cas
            )
        elif not all(verdicts):
            raise InvalidSignatureError("the lease is not signed by the item's signer")

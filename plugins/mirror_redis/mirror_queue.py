"""What waits to be written into Redis: one place for each slot, the newest version in it.

Why by slot: a service that changes one entry thirty times a second while Redis is away must bring
the last one, and must not keep the others (L22). Why bounded in bytes without losing any: a job
that does not fit forgets its bytes and is read from the node's own store when its turn comes. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from anyio import Event

from skycore.contracts.store import ItemKey, PutOutcome
from skycore.model.items import Lease, RankedItem
from skycore.model.limits import ENTRY_BYTES

__all__ = ["Job", "Queue", "Ticket"]


class Ticket:
    """Somebody who waits, for a moment, for what becomes of some jobs."""

    def __init__(self) -> None:
        self.outcomes: dict[ItemKey, PutOutcome] = {}
        self._open: set[ItemKey] = set()
        self.done = Event()

    def expect(self, key: ItemKey) -> None:
        """Wait for this one too."""
        self._open.add(key)

    def settle(self, key: ItemKey, outcome: PutOutcome | None) -> None:
        """Take note of an outcome; None: nothing is known of this version, a newer one waits."""
        if outcome is not None:
            self.outcomes[key] = outcome
        self._open.discard(key)
        if not self._open:
            self.done.set()


@dataclass
class Job:
    """One slot to bring up to date. Without item and lease: whatever our own store has by then."""

    key: ItemKey
    since: float
    """When Redis began to be behind here, by the monotonic clock."""
    ranked: RankedItem | None = None
    blocks: Mapping[bytes, bytes] = field(default_factory=dict)
    """All blocks that the item stands on."""
    lease: Lease | None = None
    tickets: tuple[Ticket, ...] = ()
    is_done: bool = False

    @property
    def size(self) -> int:
        """Bytes held in memory, about."""
        if self.ranked is None:
            return 0
        return ENTRY_BYTES + len(self.ranked.item.v) + sum(map(len, self.blocks.values()))

    def settle(self, outcome: PutOutcome | None) -> None:
        """Tell those who wait; nothing is left to do."""
        self.is_done = True
        for ticket in self.tickets:
            ticket.settle(self.key, outcome)

    def release(self) -> None:
        """Let nobody wait for it any longer: it will take its time."""
        for ticket in self.tickets:
            ticket.settle(self.key, None)
        self.tickets = ()

    def forget_bytes(self) -> None:
        """Keep nothing but the name."""
        self.ranked, self.blocks, self.lease = None, {}, None


class Queue:
    """Jobs by slot, the one that waits longest first."""

    def __init__(self, bytes_max: int, jobs_max: int) -> None:
        self._jobs: OrderedDict[ItemKey, Job] = OrderedDict()
        self._bytes_max = bytes_max
        self._jobs_max = jobs_max
        self.bytes = 0
        self.coalesced = 0
        """Versions that a newer one overtook while they waited."""
        self.dropped = 0
        """Jobs that made room for others: an audit finds them again."""
        self.news = Event()

    def __len__(self) -> int:
        return len(self._jobs)

    def holds(self, key: ItemKey) -> bool:
        """Tell whether something waits for a slot."""
        return key in self._jobs

    @property
    def waiting_since(self) -> float | None:
        """When the one began to wait that waits longest; None where none does."""
        return min((job.since for job in self._jobs.values()), default=None) if self._jobs else None

    def put(self, job: Job) -> None:
        """Take in a job, newer than what waits for its slot."""
        old = self._jobs.get(job.key)
        if old is not None:
            self.bytes -= old.size
            job = self._merged(old, job)
        self._hold(job)
        if len(self._jobs) > self._jobs_max:
            _, gone = self._jobs.popitem(last=False)
            self.bytes -= gone.size
            self.dropped += 1
            gone.settle(None)
        self.news.set()

    def _merged(self, old: Job, new: Job) -> Job:
        """Return the newer job in the older one's place; a lease for what waits joins it."""
        new.since = old.since
        if old.ranked is not None and new.ranked is None and new.lease is not None:
            is_for_it = old.ranked.digest == new.lease.digest
            old.lease = new.lease if is_for_it else old.lease
            old.tickets = (*old.tickets, *new.tickets)
            return old  # a lease for another version is for one that is there no more
        self.coalesced += 1
        old.settle(None)
        return new

    def _hold(self, job: Job) -> None:
        if self.bytes + job.size > self._bytes_max:
            job.forget_bytes()
        self._jobs[job.key] = job
        self.bytes += job.size

    def take(self, jobs_max: int, bytes_max: int) -> list[Job]:
        """Take out jobs, those that wait longest first; at least one where there are any."""
        taken: list[Job] = []
        size = 0
        while self._jobs and len(taken) < jobs_max:
            job = next(iter(self._jobs.values()))
            if taken and size + job.size > bytes_max:
                break
            del self._jobs[job.key]
            self.bytes -= job.size
            size += job.size
            taken.append(job)
        if not self._jobs:
            self.news = Event()
        return taken

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Put jobs back in front, where nothing newer has come for their slots."""
        for job in reversed(jobs):
            newer = self._jobs.get(job.key)
            if newer is not None:
                self.bytes -= newer.size
                job = self._merged(job, newer)
            self._hold(job)
            self._jobs.move_to_end(job.key, last=False)
        self.news.set()

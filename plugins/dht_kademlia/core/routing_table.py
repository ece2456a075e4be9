"""The routing table: k-buckets with a replacement cache, and ping-then-evict really done.

Why live peers can enter and dead ones leave: in the original network a full bucket was frozen for
ever (C39, O08). Here a newcomer to a full bucket waits in the replacement cache while the contact
seen longest ago is pinged; if that fails, the newcomer takes its place. Source: Maymounkov and
Mazières, "Kademlia" (2002), sections 2.2 and 4.1. Pure: time comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from dht_kademlia.core.contacts import id_of
from skycore.model.addresses import Address, Contact

__all__ = ["ALPHA", "FAILURES_MAX", "FRESH_S", "ID_BITS", "SLACK", "Entry", "K", "RoutingTable"]

K: Final = 20
ALPHA: Final = 3
ID_BITS: Final = 256
FAILURES_MAX: Final = 2
"""A contact that failed this often in a row leaves; with a replacement waiting, one is enough."""
FRESH_S: Final = 30.0
"""Whoever spoke to us this lately is not pinged for a newcomer's sake."""
SLACK: Final = 4
"""A regular node keeps a target's item until it knows k + SLACK live peers that are closer."""


@dataclass(eq=False, slots=True)
class Entry:
    """A contact that has answered, or called, over an authenticated stream."""

    contact: Contact
    id: int
    seen_s: float
    failures: int = 0
    pinging: bool = False
    mode: str = ""
    """What it last said of itself: "full", "regular", or nothing yet."""


@dataclass(eq=False, slots=True)
class _Bucket:
    entries: dict[bytes, Entry] = field(default_factory=dict)
    """Longest unseen first."""
    waiting: dict[bytes, Entry] = field(default_factory=dict)
    """The replacement cache, newest last."""


class RoutingTable:
    """At most 256 buckets of k contacts and k replacements, by the distance's highest bit."""

    def __init__(self, own: bytes, k: int = K) -> None:
        self.own_id = id_of(own)
        self._own = own
        self._k = k
        self._buckets: dict[int, _Bucket] = {}
        self._refreshed: dict[int, float] = {}
        self._size = 0
        self._live: dict[int, int] | None = None
        """By bucket, how many are not failing; None where that changed. Asked at every put."""
        self._full: set[bytes] = set()
        """Entries that said they are full nodes."""

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Entry]:
        for index in sorted(self._buckets):
            yield from self._buckets[index].entries.values()

    def __contains__(self, public: bytes) -> bool:
        return self.find(public) is not None

    def bucket_of(self, public: bytes) -> int:
        """Return the index of the bucket for a key: the highest bit in which the ids differ."""
        return (id_of(public) ^ self.own_id).bit_length() - 1

    def find(self, public: bytes) -> Entry | None:
        """Return the entry of a key."""
        bucket = self._buckets.get(self.bucket_of(public))
        return bucket.entries.get(public) if bucket else None

    def full_nodes(self) -> list[Entry]:
        """Return the full nodes that are not failing. Few: reads ask for them each time."""
        found = (self.find(public) for public in self._full)
        return [entry for entry in found if entry and entry.mode == "full" and not entry.failures]

    def seen(
        self, public: bytes, addresses: Sequence[Address], now: float, mode: str = ""
    ) -> Entry | None:
        """Note that a key spoke to us, authenticated. Returns whom to ping, if anybody.

        Whoever is to be pinged is the longest unseen of a full bucket; tell `seen` or `failed`
        what came of it. Without addresses a stranger does not enter: nobody could call it back.
        """
        if public == self._own:
            return None
        index = self.bucket_of(public)
        bucket = self._buckets.setdefault(index, _Bucket())
        entry = bucket.entries.pop(public, None)
        if entry is not None:
            self._touch(entry, addresses, now, mode)
            bucket.entries[public] = entry
            return None
        if not addresses:
            return None
        self._live = None
        newcomer = Entry(Contact(public, tuple(addresses)), id_of(public), now, mode=mode)
        if len(bucket.entries) < self._k:
            bucket.waiting.pop(public, None)
            bucket.entries[public] = newcomer
            self._size += 1
            if mode == "full":
                self._full.add(public)
            return None
        return self._queue(bucket, newcomer)

    def _touch(self, entry: Entry, addresses: Sequence[Address], now: float, mode: str) -> None:
        if entry.failures:
            self._live = None
        entry.seen_s, entry.failures, entry.pinging = now, 0, False
        entry.mode = mode or entry.mode
        if mode == "full":
            self._full.add(entry.contact.public)
        if addresses and tuple(addresses) != entry.contact.addresses:
            entry.contact = Contact(entry.contact.public, tuple(addresses))

    def _queue(self, bucket: _Bucket, newcomer: Entry) -> Entry | None:
        for public, entry in bucket.entries.items():
            if entry.failures:  # it failed already: no need to ask again
                del bucket.entries[public]
                bucket.entries[newcomer.contact.public] = newcomer
                return None
        bucket.waiting.pop(newcomer.contact.public, None)
        bucket.waiting[newcomer.contact.public] = newcomer
        if len(bucket.waiting) > self._k:
            del bucket.waiting[next(iter(bucket.waiting))]
        oldest = next(iter(bucket.entries.values()))
        if oldest.pinging or newcomer.seen_s - oldest.seen_s < FRESH_S:
            return None
        oldest.pinging = True
        return oldest

    def failed(self, public: bytes) -> bool:
        """Note that a key did not answer. Returns whether it has left the table."""
        index = self.bucket_of(public)
        bucket = self._buckets.get(index)
        if bucket is None:
            return False
        bucket.waiting.pop(public, None)
        entry = bucket.entries.get(public)
        if entry is None:
            return False
        self._live = None
        entry.failures += 1
        entry.pinging = False
        if not bucket.waiting and entry.failures < FAILURES_MAX:
            return False
        self.remove(public)
        return True

    def remove(self, public: bytes) -> None:
        """Take a key out; the newest replacement moves in."""
        index = self.bucket_of(public)
        bucket = self._buckets.get(index)
        if bucket is None or bucket.entries.pop(public, None) is None:
            return
        self._live = None
        self._full.discard(public)
        if bucket.waiting:
            key, entry = bucket.waiting.popitem()
            bucket.entries[key] = entry
            return
        self._size -= 1
        if not bucket.entries:
            del self._buckets[index]

    def closest(self, target: int, count: int = K, *, live: bool = False) -> list[Entry]:
        """Return the entries closest to a target, nearest first; `live`: none that failed last.

        Buckets are visited in the order of their distance, so only a few are sorted: where bit i
        of (own id xor target) is set, bucket i is closer than everything of lower buckets.
        """
        found: list[Entry] = []
        for index in self._order(target):
            near = [e for e in self._buckets[index].entries.values() if not (live and e.failures)]
            near.sort(key=lambda e: e.id ^ target)
            found += near
            if len(found) >= count:
                break
        return found[:count]

    def waiting(self) -> Iterator[Entry]:
        """Yield the replacement caches: who spoke to us and found its bucket full."""
        for bucket in self._buckets.values():
            yield from bucket.waiting.values()

    def _order(self, target: int) -> Iterator[int]:
        distance = self.own_id ^ target
        indexes = sorted(self._buckets)
        yield from (i for i in reversed(indexes) if distance >> i & 1)
        yield from (i for i in indexes if not distance >> i & 1)

    def closer_than_self(self, target: int) -> int:
        """Count live contacts nearer to the target than this node."""
        distance = self.own_id ^ target
        return sum(n for index, n in self._counts().items() if distance >> index & 1)

    def nearer_to_self(self, public: bytes) -> int:
        """Count the live contacts of lower buckets than a key's: all are nearer to this node."""
        own = self.bucket_of(public)
        return sum(n for index, n in self._counts().items() if index < own)

    def _counts(self) -> dict[int, int]:
        if self._live is None:
            self._live = {
                index: sum(not e.failures for e in bucket.entries.values())
                for index, bucket in self._buckets.items()
            }
        return self._live

    def is_near(self, target: int) -> bool:
        """Tell whether this node should keep what lies at a target (C26)."""
        return self.closer_than_self(target) < self._k + SLACK

    def unseen(self, before_s: float, count: int) -> list[Entry]:
        """Return who was last seen before a moment, longest ago first."""
        late = [e for e in self if e.seen_s < before_s]
        late.sort(key=lambda e: e.seen_s)
        return late[:count]

    def refreshed(self, target: int, now: float) -> None:
        """Note a lookup near a target, which refreshes that bucket."""
        self._refreshed[(target ^ self.own_id).bit_length() - 1] = now

    def stale(self, before_s: float) -> list[int]:
        """Return the buckets without a lookup since a moment, never asked ones first.

        From the nearest neighbour's bucket outwards, empty ones too: one that is empty by mistake
        hides a whole region of the network from everybody who asks here.
        """
        nearest = min(self._buckets, default=ID_BITS)
        looked = [(self._refreshed.get(i, -1.0), i) for i in range(nearest, ID_BITS)]
        return [i for at, i in sorted(looked) if at < before_s]

    def is_empty(self, bucket: int) -> bool:
        """Tell whether nobody is known in a bucket."""
        return bucket not in self._buckets

    def overdue(self, joined_s: float, now: float) -> list[int]:
        """Return the empty buckets from the nearest neighbour's outwards to look into again.

        Each at the pace of our own time in the network: after 1, 2, 4 … times the first pause.
        """
        nearest = min(self._buckets, default=ID_BITS)
        found = []
        for index in range(nearest, ID_BITS):
            looked = self._refreshed.get(index, joined_s)
            if index not in self._buckets and now - looked >= looked - joined_s:
                found.append(index)
        return found

    def beyond(self, bucket: int) -> Iterator[Entry]:
        """Yield who is further away than a bucket, the nearest bucket first.

        For those of the next one, this bucket and all that is nearer to us is one bucket.
        """
        for index in sorted(i for i in self._buckets if i > bucket):
            yield from self._buckets[index].entries.values()

    def target_in(self, bucket: int, noise: int) -> int:
        """Return an id that falls into a bucket; `noise` (256 random bits) picks which."""
        return self.own_id ^ (1 << bucket) ^ (noise & ((1 << bucket) - 1))

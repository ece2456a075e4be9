"""A store that others write too: what they wrote passes the gate before anybody sees it.

Why a face before the store and not a rule in each reader: get, changes, listing and history are
four ways to the same rows, and none may show what was not proven (O22b, M10). What this node stored
itself, and what it proved once, is remembered by a hash over all that counts, so that a row which
was altered afterwards is a new row. A store of one's own is not wrapped, and pays nothing.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import msgspec

from skycore.contracts.runtime import Clock
from skycore.contracts.store import (
    ChangeFilter,
    ChangePage,
    Fingerprint,
    ItemKey,
    ItemStore,
    Outcome,
    PutOutcome,
    Usage,
)
from skycore.errors import InvalidSignatureError, ItemError
from skycore.guards.admission import Candidate, Prover
from skycore.guards.heads import Heads
from skycore.guards.judge import Judge
from skycore.model.items import Cursor, Kind, Lease, RankedItem, StoredItem
from skycore.model.keys import short

__all__ = ["SharedStore"]

log = logging.getLogger(__name__)
PROVEN_MAX = 100_000
"""Rows and leases remembered as proven: some 15 MB."""
REFUSED_MAX = 10_000
REFUSED_S = 10.0
"""For so long a row that was refused is not looked at again."""
_NS = 10**9
_encode = msgspec.msgpack.Encoder().encode


def _item_hash(row: StoredItem | RankedItem) -> bytes:
    data = _encode((row.target, row.item_class, row.rank, row.digest, row.item))
    return hashlib.blake2b(data, digest_size=16).digest()


def _lease_hash(lease: Lease) -> bytes:
    return hashlib.blake2b(_encode(lease), digest_size=16, person=b"lease").digest()


class _Remembered:
    """Hashes in two generations: what is used stays, and the whole is bounded."""

    def __init__(self, limit: int) -> None:
        self._limit = limit // 2
        self._young: set[bytes] = set()
        self._old: set[bytes] = set()

    def add(self, name: bytes) -> None:
        if len(self._young) >= self._limit:
            self._young, self._old = set(), self._young
        self._young.add(name)

    def __contains__(self, name: bytes) -> bool:
        if name in self._young:
            return True
        if name not in self._old:
            return False
        self.add(name)
        return True


class SharedStore:
    """An ItemStore over one that others write too."""

    def __init__(
        self, store: ItemStore, judge: Judge, prover: Prover, heads: Heads, clock: Clock
    ) -> None:
        self._store = store
        self._judge = judge
        self._prover = prover
        self._heads = heads
        self._clock = clock
        self._proven = _Remembered(PROVEN_MAX)
        self._refused: dict[bytes, float] = {}
        self.counters: Counter[str] = Counter()
        """Rows of others: `proven`, `unproven` (not shown), `tampered` (dropped)."""

    @property
    def store_id(self) -> bytes:
        """The store's id."""
        return self._store.store_id

    # --- reading: only what is proven ------------------------------------------------------------

    async def get(self, targets: Sequence[bytes]) -> Sequence[tuple[StoredItem, ...]]:
        """Return what the slots of each target hold."""
        rows = await self._store.get(targets)
        shown = await self._shown([row for slots in rows for row in slots])
        return [tuple(row for row in slots if id(row) in shown) for slots in rows]

    async def changes(
        self, after: Cursor | None, wanted: ChangeFilter, limit: int, bytes_max: int
    ) -> ChangePage:
        """Return a stretch of the change log, without what is not shown."""
        page = await self._store.changes(after, wanted, limit, bytes_max)
        return ChangePage(await self._only(page.entries), page.cursor, page.has_more)

    async def listing(
        self, salt: bytes | None, low: bytes, high: bytes, limit: int
    ) -> Sequence[StoredItem]:
        """Return items by target; fewer than `limit` only where there are no more."""
        found: dict[ItemKey, StoredItem] = {}
        while True:
            page = await self._store.listing(salt, low, high, limit)
            found |= {ItemKey(s.target, s.item_class): s for s in await self._only(page)}
            if len(page) < limit or len(found) >= limit or page[-1].target == low:
                return tuple(found.values())[:limit]
            low = page[-1].target

    async def history(self, target: bytes, limit: int) -> Sequence[StoredItem]:
        """Return replaced items. Their blocks are checked when they are put together."""
        return await self._only(await self._store.history(target, limit), is_past=True)

    async def _only(
        self, rows: Sequence[StoredItem], *, is_past: bool = False
    ) -> tuple[StoredItem, ...]:
        shown = await self._shown(rows, is_past=is_past)
        return tuple(row for row in rows if id(row) in shown)

    async def _shown(self, rows: Sequence[StoredItem], *, is_past: bool = False) -> set[int]:
        """Return which of these rows may be seen, by their ids as objects."""
        new = [row for row in rows if not self._is_proven(row)]
        if not new:
            return set(map(id, rows))
        refused = await self._prove(new, is_past=is_past)
        return {id(row) for row in rows if id(row) not in refused}

    def _is_proven(self, row: StoredItem) -> bool:
        if _item_hash(row) not in self._proven:
            return False
        return row.lease is None or _lease_hash(row.lease) in self._proven

    async def _prove(self, rows: Sequence[StoredItem], *, is_past: bool) -> set[int]:
        """Judge rows as if they came from a peer; return the ids of those that may not be seen."""
        now = self._clock.now()
        self._refused = {name: until for name, until in self._refused.items() if until > now}
        chunk = [(row, self._candidate(row)) for row in rows if _name(row) not in self._refused]
        open_ones = [c for _, c in chunk if c.is_open]
        await self._prover.prove(open_ones, b"", self._clock.wall_ns())
        for row, candidate in chunk:
            if candidate.is_open and not _is_what_it_says(row, candidate.ranked):
                candidate.refuse(InvalidSignatureError("target, rank or digest are not the item's"))
        heads = [c for _, c in chunk if c.is_open and c.item.kind == Kind.MANIFEST]
        if heads and not is_past:
            await self._heads.complete(heads, {}, b"")
        await self._settle(chunk, now, is_past=is_past)
        good = {id(row) for row, candidate in chunk if candidate.is_open}
        return {id(row) for row in rows if id(row) not in good}

    def _candidate(self, row: StoredItem) -> Candidate:
        """Look at a row as of now, or of its last second: what is over was right once."""
        candidate = Candidate(row.item, None, row.lease)
        at_ns = min(self._clock.wall_ns(), (row.until - 1) * _NS)
        try:
            candidate.claim = self._judge.look(row.item, row.lease, at_ns)
        except ItemError as error:
            candidate.refuse(error)
        return candidate

    async def _settle(
        self, chunk: Sequence[tuple[StoredItem, Candidate]], now: float, *, is_past: bool
    ) -> None:
        tampered = []
        for row, candidate in chunk:
            outcome = candidate.outcome
            if outcome is None:
                self.counters["proven"] += 1
                self._trust(row, row.lease)
            elif outcome.code == InvalidSignatureError.code and not is_past:
                tampered.append((row, outcome))
            else:
                self.counters["unproven"] += 1
                if len(self._refused) < REFUSED_MAX:
                    self._refused[_name(row)] = now + REFUSED_S
        if tampered:
            await self._drop(tampered)

    async def _drop(self, tampered: Sequence[tuple[StoredItem, PutOutcome]]) -> None:
        """Drop rows that nobody can have signed, unless they changed since they were read."""
        self.counters["tampered"] += len(tampered)
        row, outcome = tampered[0]
        log.error(
            "rows with wrong signatures are dropped from the shared store rows=%d first=%s"
            " signer=%s reason=%r",
            len(tampered), row.target.hex()[:8], short(row.item.signer), outcome.text,
        )  # fmt: skip
        keys = [ItemKey(row.target, row.item_class) for row, _ in tampered]
        await self._store.drop(keys, [row.position for row, _ in tampered])

    def _trust(self, row: StoredItem | RankedItem, lease: Lease | None) -> None:
        self._proven.add(_item_hash(row))
        if lease is not None:
            self._proven.add(_lease_hash(lease))

    # --- writing: what this node stored is proven ------------------------------------------------

    async def put_many(
        self, items: Sequence[RankedItem], blocks: Mapping[bytes, bytes] | None = None
    ) -> Sequence[PutOutcome]:
        """Compare-and-set by rank."""
        outcomes = await self._store.put_many(items, blocks)
        for item, outcome in zip(items, outcomes, strict=True):
            if outcome.code == Outcome.STORED:
                self._trust(item, None)
        return outcomes

    async def renew(self, leases: Sequence[Lease], now_ns: int) -> Sequence[PutOutcome]:
        """Set leases."""
        outcomes = await self._store.renew(leases, now_ns)
        for lease, outcome in zip(leases, outcomes, strict=True):
            if outcome.code == Outcome.RENEWED:
                self._proven.add(_lease_hash(lease))
        return outcomes

    # --- as it is --------------------------------------------------------------------------------

    async def fingerprints(
        self, salt: bytes | None, ranges: Sequence[tuple[bytes, bytes]]
    ) -> Sequence[Fingerprint]:
        """Return a fingerprint for each range."""
        return await self._store.fingerprints(salt, ranges)

    async def blocks(self, hashes: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return blocks: their names prove them."""
        return await self._store.blocks(hashes)

    async def drop(self, keys: Sequence[ItemKey], positions: Sequence[int] | None = None) -> int:
        """Forget slots."""
        return await self._store.drop(keys, positions)

    async def sweep(self, now_s: int) -> int:
        """Drop what has ended."""
        return await self._store.sweep(now_s)

    async def usage(self) -> Mapping[bytes, Usage]:
        """Return what is held under each salt."""
        return await self._store.usage()

    async def signer_usage(self, signers: Sequence[bytes]) -> Sequence[Usage]:
        """Return what is held of each signer."""
        return await self._store.signer_usage(signers)

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[None]] | None:
        """Return how to learn of what others change here."""
        return self._store.watch()


def _name(row: StoredItem) -> bytes:
    return _item_hash(row) + (_lease_hash(row.lease) if row.lease else b"")


def _is_what_it_says(row: StoredItem, proven: RankedItem | None) -> bool:
    return proven is not None and (row.target, row.item_class, row.rank, row.digest) == (
        proven.target,
        proven.item_class,
        proven.rank,
        proven.digest,
    )

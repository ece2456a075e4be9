"""Items in memory: the plainest store, and the one to read first.

Every call runs to its end without waiting, so a call is a transaction by itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec

from skycore.contracts.runtime import Entropy
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
from skycore.errors import CasMismatchError, CursorInvalidError, SeqTooLowError
from skycore.model.items import (
    Cursor,
    ItemClass,
    Kind,
    Lease,
    RankedItem,
    StoredItem,
    account_of,
    mutable_item_target,
)
from skycore.model.limits import ENTRY_BYTES
from skycore.model.prints import Prints
from store_memory.blocks import Blocks
from store_memory.history import History
from store_memory.index import Ends, Log, Shelf
from store_memory.settings import MemoryStoreSettings

__all__ = ["MemoryStore", "open_memory_store"]

_CLASSES = sorted((int(c) for c in ItemClass), reverse=True)
_ENDS_SLACK = 1_024


class _Tree(NamedTuple):
    """What a head stands on."""

    refs: frozenset[bytes]
    bytes: int


_NO_TREE = _Tree(frozenset(), 0)


def _current(held: StoredItem | None) -> int:
    return 0 if held is None or held.item.kind == Kind.TOMBSTONE else held.item.seq


class MemoryStore:
    """An ItemStore in dictionaries."""

    def __init__(
        self, store_id: bytes, history_versions_max: int, history_bytes_max: int = 1 << 26
    ) -> None:
        self.store_id = store_id
        self._position = 0
        self._slots: dict[tuple[bytes, int], StoredItem] = {}
        self._live: dict[int, StoredItem] = {}
        """By position: what the change log holds."""
        self._logs: dict[bytes | None, Log] = {None: Log()}
        self._shelves: dict[bytes | None, Shelf] = {None: Shelf()}
        self._ends = Ends()
        self._history = History(history_versions_max, history_bytes_max)
        self._blocks = Blocks()
        self._trees: dict[tuple[bytes, int], _Tree] = {}
        self._salts: dict[bytes, list[int]] = {}
        self._signers: dict[bytes, list[int]] = {}
        self._prints = Prints()

    # --- reading --------------------------------------------------------------------------------

    async def get(self, targets: Sequence[bytes]) -> Sequence[tuple[StoredItem, ...]]:
        """Return what the slots of each target hold."""
        return [self._of(target) for target in targets]

    def _of(self, target: bytes) -> tuple[StoredItem, ...]:
        held = (self._slots.get((target, item_class)) for item_class in _CLASSES)
        return tuple(item for item in held if item is not None)

    async def changes(
        self, after: Cursor | None, wanted: ChangeFilter, limit: int, bytes_max: int
    ) -> ChangePage:
        """Return a stretch of the change log."""
        start = 0 if after is None else after.position
        if after is not None and (after.store_id != self.store_id or start > self._position):
            raise CursorInvalidError(hint="reconcile, then begin with a new cursor")
        entries: list[StoredItem] = []
        size = 0
        for item in self._after(start, wanted):
            size += len(item.item.v) + ENTRY_BYTES
            if entries and (len(entries) >= limit or size > bytes_max):
                place = Cursor(self.store_id, entries[-1].position)
                return ChangePage(tuple(entries), place, has_more=True)
            entries.append(item)
        return ChangePage(tuple(entries), Cursor(self.store_id, self._position), has_more=False)

    def _after(self, start: int, wanted: ChangeFilter) -> Iterator[StoredItem]:
        for item in self._candidates(start, wanted):
            value = item.item
            if (
                item.position > start
                and value.seq > wanted.since_seq
                and (wanted.salt is None or value.salt == wanted.salt)
                and (wanted.subject is None or value.subject == wanted.subject)
            ):
                yield item

    def _candidates(self, start: int, wanted: ChangeFilter) -> Iterable[StoredItem]:
        if wanted.salt is not None and wanted.subject is not None:
            found = self._of(mutable_item_target(wanted.subject, wanted.salt))
            return sorted(found, key=lambda item: item.position)
        log = self._logs.get(wanted.salt)
        live = self._live
        return (live[p] for p in log.after(start) if p in live) if log else ()

    async def fingerprints(
        self, salt: bytes | None, ranges: Sequence[tuple[bytes, bytes]]
    ) -> Sequence[Fingerprint]:
        """Return a fingerprint for each range."""

        def rows(low: bytes, high: bytes) -> Iterator[tuple[bytes, int, bytes, int]]:
            for item in self._between(salt, low, high):
                yield item.target, item.item_class, item.rank, item.until

        return [Fingerprint(*self._prints.over(salt, low, high, rows)) for low, high in ranges]

    def _between(self, salt: bytes | None, low: bytes, high: bytes) -> Iterator[StoredItem]:
        shelf = self._shelves.get(salt)
        return (self._slots[key] for key in shelf.between(low, high)) if shelf else iter(())

    async def listing(
        self, salt: bytes | None, low: bytes, high: bytes, limit: int
    ) -> Sequence[StoredItem]:
        """Return items by target."""
        return [item for _, item in zip(range(limit), self._between(salt, low, high), strict=False)]

    async def blocks(self, hashes: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return blocks."""
        return [self._blocks.get(name) for name in hashes]

    async def history(self, target: bytes, limit: int) -> Sequence[StoredItem]:
        """Return replaced items."""
        found = [old for c in _CLASSES for old in self._history.of((target, c))]
        return sorted(found, key=lambda old: old.item_position, reverse=True)[: max(limit, 0)]

    async def usage(self) -> Mapping[bytes, Usage]:
        """Return what is held under each salt."""
        return {salt: Usage(*held) for salt, held in self._salts.items()}

    async def signer_usage(self, accounts: Sequence[bytes]) -> Sequence[Usage]:
        """Return what is held on each account."""
        return [Usage(*self._signers.get(signer, (0, 0))) for signer in accounts]

    # --- writing --------------------------------------------------------------------------------

    async def put_many(
        self, items: Sequence[RankedItem], blocks: Mapping[bytes, bytes] | None = None
    ) -> Sequence[PutOutcome]:
        """Compare and set by rank."""
        given = blocks or {}
        return [self._put(item, given) for item in items]

    def _put(self, new: RankedItem, given: Mapping[bytes, bytes]) -> PutOutcome:
        key = (new.target, new.item_class)
        held = self._slots.get(key)
        old = self._trees.get(key, _NO_TREE)
        refs = frozenset(new.refs)
        added = refs - old.refs
        refused = self._refusal(new, held, added, given)
        if refused is not None:
            return refused
        if held is not None:
            self._forget(key, held)
        if refs or old.refs:
            self._grow(key, old, _Tree(refs, 0), added, given, new.admitted_ns // 10**9)
        if held is not None and self._history.is_kept:
            self._remember(key, held, old.refs - refs)
        self._position = position = self._position + 1
        stored = StoredItem(
            new.target, new.item_class, new.rank, new.digest, new.item, new.sender,
            new.admitted_ns, position, position,
        )  # fmt: skip
        self._place(key, stored)
        return PutOutcome(0, _current(stored))

    def _grow(
        self,
        key: tuple[bytes, int],
        old: _Tree,
        new: _Tree,
        added: Set[bytes],
        given: Mapping[bytes, bytes],
        now_s: int,
    ) -> None:
        """Put a tree in place of another; what both stand on is not touched."""
        removed = old.refs - new.refs
        self._blocks.hold(added, given)
        size = old.bytes + self._blocks.size(added) - self._blocks.size(removed)
        self._blocks.release(removed, now_s)
        if new.refs:
            self._trees[key] = _Tree(new.refs, size)
        else:
            del self._trees[key]

    def _refusal(
        self,
        new: RankedItem,
        held: StoredItem | None,
        added: Set[bytes],
        given: Mapping[bytes, bytes],
    ) -> PutOutcome | None:
        if held is not None and held.rank == new.rank:
            return PutOutcome(int(Outcome.HELD), _current(held))
        if new.cas is not None and new.cas != _current(held):
            return PutOutcome(CasMismatchError.code, _current(held))
        if held is not None and new.rank < held.rank:
            return PutOutcome(SeqTooLowError.code, held.item.seq)
        missing = self._blocks.missing(added, given) if added else ()
        if missing:
            lacking = set(missing)
            missing = tuple(name for name in dict.fromkeys(new.refs) if name in lacking)
            return PutOutcome(int(Outcome.MISSING_BLOCKS), _current(held), missing)
        return None

    async def renew(self, leases: Sequence[Lease], now_ns: int) -> Sequence[PutOutcome]:
        """Set leases."""
        return [self._renew(lease) for lease in leases]

    def _renew(self, lease: Lease) -> PutOutcome:
        key = (lease.target, lease.item_class)
        held = self._slots.get(key)
        if held is None or held.digest != lease.digest:
            return PutOutcome(int(Outcome.NOT_HELD), _current(held))
        if lease.until <= held.until:
            return PutOutcome(int(Outcome.HELD), _current(held))
        self._forget(key, held)
        self._position += 1
        self._place(key, msgspec.structs.replace(held, lease=lease, position=self._position))
        return PutOutcome(int(Outcome.RENEWED), _current(held))

    def _place(self, key: tuple[bytes, int], item: StoredItem) -> None:
        salt = item.item.salt
        self._slots[key] = item
        self._live[item.position] = item
        if salt not in self._logs:
            self._logs[salt], self._shelves[salt] = Log(), Shelf()
        for group in (None, salt):
            self._logs[group].append(item.position)
            self._shelves[group].add(key)
        self._ends.add(item.until, key)
        if len(self._ends) > 2 * len(self._slots) + _ENDS_SLACK:
            self._ends.rebuild({k: held.until for k, held in self._slots.items()})
        self._count(key, item, 1)

    def _forget(self, key: tuple[bytes, int], item: StoredItem) -> None:
        """Take an item out of every order."""
        salt = item.item.salt
        self._count(key, item, -1)
        del self._slots[key], self._live[item.position]
        for group in (None, salt):
            self._logs[group].remove_one(self._live)
            self._shelves[group].remove(key)
        if not self._logs[salt]:
            del self._logs[salt], self._shelves[salt]

    def _count(self, key: tuple[bytes, int], item: StoredItem, sign: int) -> None:
        value = item.item
        size = len(value.v) + self._trees.get(key, _NO_TREE).bytes
        account = account_of(value.signer, item.item_class)
        for counters, name in ((self._salts, value.salt), (self._signers, account)):
            held = counters.get(name)
            if held is None:
                counters[name] = [sign, sign * size]
                continue
            held[0] += sign
            held[1] += sign * size
            if not held[0]:
                del counters[name]
        if self._prints.watches(value.salt):
            row = (item.target, item.item_class, item.rank, item.until)
            self._prints.add(value.salt, row, sign)

    def _remember(self, key: tuple[bytes, int], old: StoredItem, blocks: Set[bytes]) -> None:
        self._blocks.remember(blocks)
        gone = self._history.add(key, old, tuple(blocks), self._blocks.size(blocks))
        self._blocks.forget(gone)

    async def drop(self, keys: Sequence[ItemKey], positions: Sequence[int] | None = None) -> int:
        """Forget slots."""
        if positions is not None:
            read = zip(keys, positions, strict=True)
            keys = [key for key, place in read if self._is_at(key, place)]
        return sum(self._drop(key, None) for key in keys)

    def _is_at(self, key: ItemKey, position: int) -> bool:
        held = self._slots.get(key)
        return held is not None and held.position == position

    def _drop(self, key: tuple[bytes, int], now_s: int | None) -> bool:
        held = self._slots.get(key)
        if held is None:
            return False
        self._forget(key, held)
        tree = self._trees.pop(key, _NO_TREE)
        self._blocks.release(tree.refs, now_s)
        self._blocks.forget(self._history.end(key))
        return True

    async def sweep(self, now_s: int) -> int:
        """Drop what has ended."""
        count = 0
        for until, key in self._ends.pop_before(now_s):
            held = self._slots.get(key)
            if held is not None and held.until == until:  # else a lease or a newer item lives on
                count += self._drop(key, now_s)
        self._blocks.sweep(now_s)
        return count

    def watch(self) -> None:
        """Nobody else can write here."""


@asynccontextmanager
async def open_memory_store(
    settings: MemoryStoreSettings, entropy: Entropy
) -> AsyncIterator[ItemStore]:
    """Keep items for as long as the node lives."""
    yield MemoryStore(entropy.bytes(16), settings.history_versions_max, settings.history_bytes_max)

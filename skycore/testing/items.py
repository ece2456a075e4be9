"""Items in a dict, really verified: the gate's face without gate and store, for tests above it.

Keeps one item a class and target, by rank, with a change log, and every block that some head led
to; judges signature, lifetime and the form of trees only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec
from anyio import Event

from skycore.contracts.runtime import Clock
from skycore.contracts.store import (
    ChangeFilter,
    ChangePage,
    Fingerprint,
    ItemKey,
    Outcome,
    PutOutcome,
    Usage,
)
from skycore.errors import (
    CasMismatchError,
    CursorInvalidError,
    ExpiredError,
    InvalidSignatureError,
    ItemError,
    MissingBlocksError,
    NotAuthorisedError,
    SeqTooLowError,
)
from skycore.model.items import (
    Cursor,
    ItemClass,
    Kind,
    Lease,
    MutableItem,
    RankedItem,
    StoredItem,
    item_digest,
    item_rank,
    item_signed_bytes,
)
from skycore.model.limits import MISSING_MAX
from skycore.model.network import NetworkConstants
from skycore.model.prints import range_print
from skycore.model.trie import block_id, harvest, reach, read_manifest

__all__ = ["DictItems"]

Slot = tuple[bytes, int]


class DictItems:
    """`contracts.store.Items` for tests."""

    def __init__(self, network: NetworkConstants, clock: Clock, *, name: str = "") -> None:
        self.store_id = hashlib.sha256(name.encode()).digest()[:16]
        self.held: dict[Slot, StoredItem] = {}
        self.judged = 0
        self.kept: dict[bytes, bytes] = {}
        """Blocks, those that wait for the rest of their head among them."""
        self.replaced: list[StoredItem] = []
        self._news = Event()
        self._network = network
        self._clock = clock
        self._position = 0

    async def get(self, target: bytes, *, age_max_s: float | None = None) -> tuple[StoredItem, ...]:
        """Return the live items of a target, highest class first."""
        now_s, now_ns = self._clock.wall_s(), self._clock.wall_ns()
        found = []
        for item_class in (3, 2, 1):
            stored = self.held.get((target, item_class))
            if stored is None or stored.until <= now_s:
                continue
            if age_max_s is None or (now_ns - stored.stored_ns) / 1e9 <= age_max_s:
                found.append(stored)
        return tuple(found)

    @property
    def counters(self) -> Mapping[str, int]:
        """Count nothing."""
        return {}

    def judge(self, item: MutableItem, lease: Lease | None = None) -> RankedItem:
        """Verify the signature and the lifetime."""
        self.judged += 1
        if item.signer != item.subject:
            raise NotAuthorisedError()
        signed = item_signed_bytes(self._network, item)
        if not self._network.suite.verify(item.signer, signed, item.sig):
            raise InvalidSignatureError()
        if max(item.until, lease.until if lease else 0) <= self._clock.wall_s():
            raise ExpiredError()
        return RankedItem(
            item.target,
            int(ItemClass.OWNER),
            item_rank(item.seq, signed, item.sig),
            item_digest(signed),
            item,
            item.signer,
            self._clock.wall_ns(),
        )

    async def admit(
        self,
        items: Sequence[MutableItem],
        *,
        sender: bytes,
        cas: Sequence[int | None] | None = None,
        blocks: Sequence[bytes] = (),
        leases: Sequence[Lease | None] | None = None,
    ) -> Sequence[PutOutcome]:
        """Judge and keep."""
        given = {block_id(block): block for block in blocks}
        expected = cas or [None] * len(items)
        with_them = leases or [None] * len(items)
        return [
            self._admit(i, sender, c, lease, given)
            for i, c, lease in zip(items, expected, with_them, strict=True)
        ]

    def _admit(
        self,
        item: MutableItem,
        sender: bytes,
        cas: int | None,
        lease: Lease | None,
        given: Mapping[bytes, bytes],
    ) -> PutOutcome:
        try:
            ranked = self.judge(item, lease)
        except ItemError as bad:
            return PutOutcome(bad.code, text=str(bad))
        slot = (ranked.target, ranked.item_class)
        old = self.held.get(slot)
        current = old.item.seq if old and old.item.kind != Kind.TOMBSTONE else 0
        if old and old.rank == ranked.rank:
            return PutOutcome(Outcome.HELD, current)
        if cas is not None and cas != current:
            return PutOutcome(CasMismatchError.code, current, text=str(CasMismatchError()))
        if old and old.rank > ranked.rank:
            return PutOutcome(SeqTooLowError.code, old.item.seq, text=str(SeqTooLowError()))
        try:
            if missing := self._missing(item, given):
                return PutOutcome(Outcome.MISSING_BLOCKS, current, missing)
        except ItemError as bad:
            return PutOutcome(bad.code, current, text=str(bad))
        self._position += 1
        if old := self.held.pop(slot, None):
            self.replaced.append(old)
        self.held[slot] = StoredItem(
            ranked.target,
            ranked.item_class,
            ranked.rank,
            ranked.digest,
            item,
            sender,
            self._clock.wall_ns(),
            self._position,
            self._position,
            lease,
        )
        self._touch()
        return PutOutcome(Outcome.STORED, item.seq)

    def _missing(self, item: MutableItem, given: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
        """Keep what a manifest leads to, and return what lacks; once it is whole, check it."""
        if item.kind != Kind.MANIFEST:
            return ()
        manifest = read_manifest(item.v)
        refs, missing = reach(manifest.root, {**self.kept, **given}.get, MISSING_MAX)
        self.kept.update((name, given[name]) for name in refs if name in given)
        if not missing:
            harvest(manifest, self.kept.get)
        return tuple(missing)

    def _touch(self) -> None:
        self._news.set()
        self._news = Event()

    def changed(self) -> Event:
        """Return an event that is set when something changes next."""
        return self._news

    async def renew(self, leases: Sequence[Lease], *, sender: bytes) -> Sequence[PutOutcome]:
        """Apply leases, unverified: enough for those who only carry them."""
        return [self._renew(lease) for lease in leases]

    def _renew(self, lease: Lease) -> PutOutcome:
        slot = (lease.target, lease.item_class)
        old = self.held.get(slot)
        if old is None or old.digest != lease.digest:
            return PutOutcome(Outcome.NOT_HELD)
        if lease.until <= old.until:
            return PutOutcome(Outcome.HELD, old.item.seq)
        self._position += 1
        del self.held[slot]
        self.held[slot] = msgspec.structs.replace(old, lease=lease, position=self._position)
        self._touch()
        return PutOutcome(Outcome.RENEWED, old.item.seq)

    async def changes(
        self, after: Cursor | None, wanted: ChangeFilter, limit: int, bytes_max: int
    ) -> ChangePage:
        """Return what changed; the dict's order is the log's."""
        if after and (after.store_id != self.store_id or after.position > self._position):
            raise CursorInvalidError()
        start = after.position if after else 0
        entries: list[StoredItem] = []
        size, position = 0, start
        for stored in self.held.values():
            if stored.position <= start:
                continue
            item = stored.item
            if wanted.salt not in (None, item.salt) or item.seq < wanted.since_seq:
                continue
            size += len(item.v) + 300
            if entries and (size > bytes_max or len(entries) == limit):
                return ChangePage(tuple(entries), Cursor(self.store_id, position), True)
            entries.append(stored)
            position = stored.position
        return ChangePage(tuple(entries), Cursor(self.store_id, self._position), False)

    async def listing(
        self, salt: bytes | None, low: bytes, high: bytes, limit: int
    ) -> Sequence[StoredItem]:
        """Return items by target."""
        found = [
            s for s in self.held.values() if low <= s.target <= high and salt in (None, s.item.salt)
        ]
        return sorted(found, key=lambda s: (s.target, s.item_class))[:limit]

    async def fingerprints(
        self, salt: bytes | None, ranges: Sequence[tuple[bytes, bytes]]
    ) -> Sequence[Fingerprint]:
        """Return a fingerprint of what is live in each range."""
        now_s = self._clock.wall_s()
        live = [s for s in self.held.values() if s.until > now_s and salt in (None, s.item.salt)]
        return [
            Fingerprint(
                *range_print(
                    (s.target, s.item_class, s.rank, s.until)
                    for s in live
                    if low <= s.target <= high
                )
            )
            for low, high in ranges
        ]

    async def history(self, target: bytes, limit: int) -> Sequence[StoredItem]:
        """Return replaced items, newest arrival first."""
        found = [s for s in self.replaced if s.target == target]
        return sorted(found, key=lambda s: -s.item_position)[:limit]

    async def blocks(self, hashes: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return blocks."""
        return [self.kept.get(name) for name in hashes]

    async def tree(self, item: MutableItem) -> Mapping[bytes, bytes]:
        """Return all blocks of a manifest."""
        if item.kind != Kind.MANIFEST:
            return {}
        refs, missing = reach(read_manifest(item.v).root, self.kept.get, 1)
        if missing:
            raise MissingBlocksError()
        return {name: self.kept[name] for name in refs}

    async def value(self, stored: StoredItem) -> bytes | None:
        """Return the whole value."""
        if stored.item.kind != Kind.MANIFEST:
            return stored.value
        return self.assemble(stored.item, self.kept)

    def assemble(self, item: MutableItem, blocks: Mapping[bytes, bytes]) -> bytes:
        """Put a value together; there is no schema to check it by."""
        return harvest(read_manifest(item.v), blocks.get)

    async def drop(self, keys: Sequence[ItemKey]) -> int:
        """Forget slots."""
        dropped = sum(self.held.pop((k.target, k.item_class), None) is not None for k in keys)
        if dropped:
            self._touch()
        return dropped

    async def usage(self) -> Mapping[bytes, Usage]:
        """Count by salt."""
        counted: dict[bytes, Usage] = {}
        for stored in self.held.values():
            had = counted.get(stored.item.salt, Usage(0, 0))
            counted[stored.item.salt] = Usage(had.items + 1, had.bytes + len(stored.item.v))
        return counted

"""Where items rest (ItemStore), and the gate before it (Items).

Why two: a store keeps and never judges; the gate judges, once, for every path and every backend.
Only the gate is ever given an ItemStore; wiring refuses everybody else by name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import IntEnum
from typing import NamedTuple, Protocol

import msgspec
from anyio import Event

from skycore.model.items import Cursor, Lease, MutableItem, RankedItem, StoredItem

__all__ = [
    "CapacityChanged",
    "ChangeFilter",
    "ChangePage",
    "Fingerprint",
    "ItemKey",
    "ItemStore",
    "Items",
    "Outcome",
    "PutOutcome",
    "Usage",
]


class Outcome(IntEnum):
    """What became of one put. Values from 200 on are the codes of errors.ItemError."""

    STORED = 0
    RENEWED = 1
    HELD = 2
    """Exactly this item was here already."""
    MISSING_BLOCKS = 3
    """Blocks it stands on are neither here nor in the put; nothing was changed."""
    NOT_HELD = 4
    """A lease for an item that is not here: send the item."""


class PutOutcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The truth about one put: an Outcome or an ItemError code, and what is there now."""

    code: int
    seq: int = 0
    """Seq of the item of this class that is stored now; 0 for none or deleted.

    With code 302 a tombstone's own seq stands here: its owner has to go beyond it.
    """
    missing: tuple[bytes, ...] = ()
    text: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the store now holds exactly what was put."""
        return self.code <= Outcome.HELD


class ItemKey(NamedTuple):
    """One slot: a target keeps at most one item of each class."""

    target: bytes
    item_class: int


class ChangeFilter(msgspec.Struct, frozen=True, gc=False):
    """Which changes a reader wants; None and 0 mean all."""

    salt: bytes | None = None
    subject: bytes | None = None
    since_seq: int = 0


class ChangePage(msgspec.Struct, frozen=True, gc=False):
    """A stretch of the change log, in order of position, each item once, as it is now."""

    entries: tuple[StoredItem, ...]
    cursor: Cursor
    """Ask with this next time; it moved even where the filter let nothing through."""
    has_more: bool


class Fingerprint(NamedTuple):
    """A range of targets in brief. Equal on two stores that hold the same there."""

    items: int
    value: int
    """Sum mod 2^256 of SHA256(target ‖ class u8 ‖ rank ‖ until u64) over the range.

    `until` is the one that counts, StoredItem.until. See `skycore.model.prints`.
    """


class Usage(NamedTuple):
    """What is held: items, and bytes of their values and of the blocks that those stand on.

    A block counts for each item that refers to it; replaced items (history) do not count.
    """

    items: int
    bytes: int


class CapacityChanged(NamedTuple):
    """An event: the gate has begun (or ceased) to refuse items for lack of room."""

    is_full: bool
    items: int
    bytes: int


class ItemStore(Protocol):
    """Keep signed items durably, in order, and tell what changed.

    Slots: (target, class). Within a slot the higher rank stays; a store compares nothing else and
    judges nothing. Every change (item or lease) takes the next position of the change log, one row
    per slot, rewritten on each change, so the log never needs trimming. Raises `StoreError` where
    the backend fails; then nothing of the call was changed. The suite to pass is
    `skycore.testing.contracts.StoreContract`.
    """

    @property
    def store_id(self) -> bytes:
        """16 bytes, made with the store and kept with it."""
        ...

    async def get(self, targets: Sequence[bytes]) -> Sequence[tuple[StoredItem, ...]]:
        """Return for each target what its slots hold, highest class first."""
        ...

    async def put_many(
        self, items: Sequence[RankedItem], blocks: Mapping[bytes, bytes] | None = None
    ) -> Sequence[PutOutcome]:
        """Compare-and-set by rank, in one transaction, in the order given; one outcome each.

        Asked in this order: the same rank is HELD, so a repeated put is told the truth; `cas` not
        equal to the slot's seq (0 where empty or a tombstone) is CasMismatch's code (301); a lower
        rank is SeqTooLow's code (302) with the current seq; a head whose `refs` are neither stored
        nor in `blocks` is MISSING_BLOCKS; a higher rank is STORED, without a lease, and the old
        item goes to history. Blocks are counted by reference in the same transaction; those that
        no accepted head refers to are not kept. `blocks` are by SHA256, checked by the caller. Of a
        head that replaces another only the blocks that differ are written.
        """
        ...

    async def renew(self, leases: Sequence[Lease], now_ns: int) -> Sequence[PutOutcome]:
        """Set a slot's lease where its digest matches and `until` grows: RENEWED.

        Another item or none there: NOT_HELD. An `until` not larger than now held: HELD. `now_ns`
        is the caller's clock; the age of an item (`stored_ns`) stays that of its admission.
        """
        ...

    async def changes(
        self, after: Cursor | None, wanted: ChangeFilter, limit: int, bytes_max: int
    ) -> ChangePage:
        """Return what changed after a cursor (None: from the start), at least one entry if any.

        An entry with `item_position` at or before the cursor changed by its lease alone. Sizes
        count len(v) + 300 an entry. The next page begins after `cursor`: the last entry's position
        where `has_more`, else the end of the log. Raises `CursorInvalidError` for a foreign or
        future cursor.
        """
        ...

    async def fingerprints(
        self, salt: bytes | None, ranges: Sequence[tuple[bytes, bytes]]
    ) -> Sequence[Fingerprint]:
        """Return a fingerprint for each range of targets, both bounds included."""
        ...

    async def listing(
        self, salt: bytes | None, low: bytes, high: bytes, limit: int
    ) -> Sequence[StoredItem]:
        """Return at most `limit` items with low ≤ target ≤ high, by target and class."""
        ...

    async def blocks(self, hashes: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return blocks by their SHA256, None for those not held."""
        ...

    async def history(self, target: bytes, limit: int) -> Sequence[StoredItem]:
        """Return replaced items of a target, newest arrival first, with all of their blocks.

        Bounded by the store's settings, in versions and in bytes; it ends with its slot.
        """
        ...

    async def drop(self, keys: Sequence[ItemKey], positions: Sequence[int] | None = None) -> int:
        """Forget slots here, as if never seen (no tombstone); return how many there were.

        With `positions` (StoredItem.position, as it was read) only those that did not change since.
        """
        ...

    async def sweep(self, now_s: int) -> int:
        """Drop the slots whose `until` < now_s, and blocks unreferenced for 120 s; count slots.

        The 120 s begin at the admission of the head that replaced the last one to refer to a
        block, or at the first sweep that finds it unreferenced; versions in the history refer to
        theirs. A store may do it in portions, each a transaction of its own.
        """
        ...

    async def usage(self) -> Mapping[bytes, Usage]:
        """Return what is held under each salt."""
        ...

    async def signer_usage(self, accounts: Sequence[bytes]) -> Sequence[Usage]:
        """Return what is held on each account (`model.items.account_of`): the quota counters."""
        ...

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[None]] | None:
        """Return how to learn of what others change here; None where nobody else can.

        Inside the context the iterator yields once for all changes since the last time, less than
        2 s after them. Where it is not None, the gate proves what it reads: others wrote it, and
        whoever gets at the place could alter it.
        """
        ...


class Items(Protocol):
    """The gate's face: what the DHT, sync, import and RPC use to read and to admit items.

    Every path goes through here: signature, authority, clock, namespace and quota are judged once.
    """

    async def get(self, target: bytes, *, age_max_s: float | None = None) -> tuple[StoredItem, ...]:
        """Return the live items of a target, highest class first, none older than asked."""
        ...

    async def admit(
        self,
        items: Sequence[MutableItem],
        *,
        sender: bytes,
        cas: Sequence[int | None] | None = None,
        blocks: Sequence[bytes] = (),
        leases: Sequence[Lease | None] | None = None,
    ) -> Sequence[PutOutcome]:
        """Judge and store; one outcome an item, in order. `sender` is the authenticated peer.

        `blocks` are pieces of the values of these items' manifests, in any order; what no verified
        head refers to is thrown away. Where some are neither here nor given, the outcome is
        MISSING_BLOCKS and names the next of them: hand in the same item with those. What came so
        far waits PENDING_HEAD_S on the sender's account; nobody reads it before it is whole.

        `leases` holds the lease that came with an item (sync, GetValue): an item whose own `until`
        is past lives by its lease, and is admitted only together with it.
        """
        ...

    async def renew(self, leases: Sequence[Lease], *, sender: bytes) -> Sequence[PutOutcome]:
        """Judge and apply leases."""
        ...

    def judge(self, item: MutableItem, lease: Lease | None = None) -> RankedItem:
        """Return the item with class and rank, or raise the `ItemError` that says why not.

        For candidates read from peers: verified before they are compared, together with the lease
        that came with them. Stores nothing.
        """
        ...

    async def changes(
        self, after: Cursor | None, wanted: ChangeFilter, limit: int, bytes_max: int
    ) -> ChangePage:
        """Return live changes; as ItemStore.changes."""
        ...

    def changed(self) -> Event:
        """Return an event that is set when the store changes next; take it before reading."""
        ...

    async def blocks(self, hashes: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return blocks of heads that are stored, or were until lately; None for others."""
        ...

    async def tree(self, item: MutableItem) -> Mapping[bytes, bytes]:
        """Return all blocks of a manifest, parents first; empty for any other kind.

        Raises `MissingBlocksError` where they are not all here (the head was replaced long ago).
        """
        ...

    async def value(self, stored: StoredItem) -> bytes | None:
        """Return the whole value, put together and checked; None of a tombstone.

        Raises `MissingBlocksError`.
        """
        ...

    def assemble(self, item: MutableItem, blocks: Mapping[bytes, bytes]) -> bytes:
        """Put a manifest's value together from these blocks alone, checking all of it.

        For readers that store nothing. Raises `MissingBlocksError`, `NamespaceError`.
        """
        ...

    async def history(self, target: bytes, limit: int) -> Sequence[StoredItem]:
        """Return replaced items of a target, newest arrival first; as ItemStore.history."""
        ...

    async def fingerprints(
        self, salt: bytes | None, ranges: Sequence[tuple[bytes, bytes]]
    ) -> Sequence[Fingerprint]:
        """Return a fingerprint of what is live in each range of targets, bounds included."""
        ...

    async def listing(
        self, salt: bytes | None, low: bytes, high: bytes, limit: int
    ) -> Sequence[StoredItem]:
        """Return live items by target; as ItemStore.listing."""
        ...

    async def drop(self, keys: Sequence[ItemKey]) -> int:
        """Forget slots here."""
        ...

    async def usage(self) -> Mapping[bytes, Usage]:
        """Return what is held under each salt."""
        ...

    @property
    def store_id(self) -> bytes:
        """The store's id, for cursors."""
        ...

    @property
    def counters(self) -> Mapping[str, int]:
        """How many puts and leases ended how, since the start: by outcome's or error's name.

        Also slots that left the store, as `expired` and `dropped`; of a shared one, rows of others
        as `proven`, `unproven` and `tampered`.
        """
        ...

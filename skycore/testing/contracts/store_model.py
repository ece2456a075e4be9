"""The plainest store that can be right, and random work to hold a real one against it.

Why a second implementation: it scans lists and does everything the slow way, so that nothing in it
can be wrong for being clever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from skycore.contracts.store import (
    ChangeFilter,
    ChangePage,
    ItemKey,
    ItemStore,
    Outcome,
    PutOutcome,
    Usage,
)
from skycore.errors import CasMismatchError, SeqTooLowError
from skycore.model.items import (
    Cursor,
    Delegation,
    Kind,
    Lease,
    MutableItem,
    RankedItem,
    StoredItem,
    account_of,
    item_digest,
    item_rank,
    item_signed_bytes,
)
from skycore.model.limits import ENTRY_BYTES
from skycore.model.prints import range_print
from skycore.testing.fakes import START_NS, TEST_NETWORK

__all__ = [
    "EVERYTHING",
    "EVERY_CHANGE",
    "START_S",
    "ModelStore",
    "Player",
    "Step",
    "lease_for",
    "ranked",
    "read_all",
    "read_pages",
    "steps",
    "targets_of",
]

START_S = START_NS // 10**9
EVERYTHING = (bytes(32), b"\xff" * 32)
EVERY_CHANGE = ChangeFilter()
_BIG = 1 << 30


def ranked(
    subject: bytes = b"alice",
    *,
    salt: bytes = b"tp",
    seq: int = 1,
    v: bytes = b"value",
    item_class: int = 3,
    kind: Kind = Kind.VALUE,
    until: int = START_S + 300,
    cas: int | None = None,
    refs: Sequence[bytes] = (),
    admitted_ns: int = START_NS,
    signer: bytes | None = None,
) -> RankedItem:
    """Return an item as the gate hands it to a store. A store judges nothing: no real signature."""
    signer = signer if signer is not None else hashlib.sha256(subject).digest()
    delegation = None if item_class == 3 else Delegation(b"i" * 32, signer, salt, until, b"d" * 64)
    item = MutableItem(signer, subject, salt, seq, int(kind), until, v, b"s" * 64, delegation)
    signed = item_signed_bytes(TEST_NETWORK, item)
    return RankedItem(
        item.target, item_class, item_rank(seq, signed, item.sig), item_digest(signed), item,
        b"sender", admitted_ns, cas, tuple(refs),
    )  # fmt: skip


def lease_for(item: RankedItem, until: int) -> Lease:
    """Return a lease for an item."""
    return Lease(item.target, item.item_class, item.digest, until, b"l" * 64)


def targets_of(items: Sequence[RankedItem | StoredItem]) -> list[bytes]:
    """Return the targets, each once, in order of appearance."""
    return list(dict.fromkeys(item.target for item in items))


async def read_all(store: ItemStore) -> list[StoredItem]:
    """Return everything a store holds, by target and class."""
    return list(await store.listing(None, *EVERYTHING, 1_000_000))


async def read_pages(
    store: ItemStore,
    wanted: ChangeFilter = EVERY_CHANGE,
    limit: int = 7,
    after: Cursor | None = None,
) -> list[ChangePage]:
    """Return all pages of the change log from a cursor to its end."""
    pages = []
    while True:
        pages.append(await store.changes(after, wanted, limit, _BIG))
        after = pages[-1].cursor
        if not pages[-1].has_more:
            return pages


class ModelStore:
    """An ItemStore's rules over one list, for comparison."""

    def __init__(self) -> None:
        self.held: list[StoredItem] = []
        self.position = 0

    def _at(self, key: tuple[bytes, int]) -> StoredItem | None:
        return next((s for s in self.held if (s.target, s.item_class) == key), None)

    def _set(self, item: StoredItem) -> None:
        self.held = [
            s for s in self.held if (s.target, s.item_class) != (item.target, item.item_class)
        ]
        self.held.append(item)

    def put(self, new: RankedItem) -> PutOutcome:
        """Compare and set one item (without blocks)."""
        held = self._at((new.target, new.item_class))
        current = held.item.seq if held and held.item.kind != Kind.TOMBSTONE else 0
        if held and held.rank == new.rank:
            return PutOutcome(int(Outcome.HELD), current)
        if new.cas is not None and new.cas != current:
            return PutOutcome(CasMismatchError.code, current)
        if held and new.rank < held.rank:
            return PutOutcome(SeqTooLowError.code, held.item.seq)
        self.position += 1
        self._set(
            StoredItem(
                new.target, new.item_class, new.rank, new.digest, new.item, new.sender,
                new.admitted_ns, self.position, self.position,
            )
        )  # fmt: skip
        is_gone = new.item.kind == Kind.TOMBSTONE
        return PutOutcome(int(Outcome.STORED), 0 if is_gone else new.item.seq)

    def renew(self, lease: Lease) -> PutOutcome:
        """Set one lease."""
        held = self._at((lease.target, lease.item_class))
        current = held.item.seq if held and held.item.kind != Kind.TOMBSTONE else 0
        if not held or held.digest != lease.digest:
            return PutOutcome(int(Outcome.NOT_HELD), current)
        if lease.until <= held.until:
            return PutOutcome(int(Outcome.HELD), current)
        self.position += 1
        self._set(msgspec.structs.replace(held, lease=lease, position=self.position))
        return PutOutcome(int(Outcome.RENEWED), current)

    def drop(self, keys: Sequence[ItemKey]) -> int:
        """Forget slots."""
        before = len(self.held)
        self.held = [s for s in self.held if (s.target, s.item_class) not in keys]
        return before - len(self.held)

    def sweep(self, now_s: int) -> int:
        """Drop what has ended."""
        before = len(self.held)
        self.held = [s for s in self.held if s.until >= now_s]
        return before - len(self.held)

    def listing(self) -> list[StoredItem]:
        """Return everything by target and class."""
        return sorted(self.held, key=lambda s: (s.target, s.item_class))

    def changes(self, after: int, salt: bytes | None) -> list[StoredItem]:
        """Return everything after a position."""
        found = [
            s for s in self.held if s.position > after and (salt is None or s.item.salt == salt)
        ]
        return sorted(found, key=lambda s: s.position)

    def usage(self) -> Mapping[bytes, Usage]:
        """Return usage by salt."""
        found: dict[bytes, Usage] = {}
        for s in self.held:
            items, size = found.get(s.item.salt, Usage(0, 0))
            found[s.item.salt] = Usage(items + 1, size + len(s.item.v))
        return found

    def signer_usage(self, account: bytes) -> Usage:
        """Return usage of a signer."""
        sizes = [
            len(s.item.v) for s in self.held if account_of(s.item.signer, s.item_class) == account
        ]
        return Usage(len(sizes), sum(sizes))

    def print(self, salt: bytes | None, low: bytes, high: bytes) -> tuple[int, int]:
        """Return a fingerprint."""
        return range_print(
            (s.target, s.item_class, s.rank, s.until)
            for s in self.held
            if low <= s.target <= high and (salt is None or s.item.salt == salt)
        )


class Step(msgspec.Struct, frozen=True):
    """One call of random work: its name, and what it is made with."""

    name: str
    data: Any


_SUBJECTS = [b"alice", b"bob", b"carol", b"dave"]
_SALTS = [b"tp", b"svc", b"", b"'; DROP TABLE items; --%_\x00"]
_items = st.builds(
    ranked,
    st.sampled_from(_SUBJECTS),
    salt=st.sampled_from(_SALTS),
    seq=st.integers(1, 4),
    v=st.sampled_from([b"", b"x", b"y" * 700]),
    item_class=st.integers(1, 3),
    kind=st.sampled_from([Kind.VALUE, Kind.VALUE, Kind.TOMBSTONE]),
    until=st.integers(START_S, START_S + 50),
    cas=st.sampled_from([None, None, None, 0, 1, 2]),
)
_leases = st.builds(lease_for, _items, st.integers(START_S, START_S + 100))
_keys = st.builds(lambda item: ItemKey(item.target, item.item_class), _items)
_bounds = st.tuples(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))


def steps() -> st.SearchStrategy[list[Step]]:
    """Return random work: puts, renewals, drops, sweeps, pages and fingerprints, interleaved."""
    step = st.one_of(
        st.builds(Step, st.just("put"), st.lists(_items, min_size=1, max_size=8)),
        st.builds(Step, st.just("put"), st.lists(_items, min_size=1, max_size=8)),
        st.builds(Step, st.just("renew"), st.lists(_leases, min_size=1, max_size=4)),
        st.builds(Step, st.just("drop"), st.lists(_keys, min_size=1, max_size=3)),
        st.builds(Step, st.just("sweep"), st.integers(START_S, START_S + 60)),
        st.builds(
            Step,
            st.just("page"),
            st.tuples(st.sampled_from([None, *_SALTS]), st.integers(1, 5), st.integers(1, 3_000)),
        ),
        st.builds(Step, st.just("print"), st.tuples(st.sampled_from([None, *_SALTS]), _bounds)),
    )
    return st.lists(step, max_size=30)


class Player:
    """Do random work on a store and on the model; a reader pages on the side."""

    def __init__(self, store: ItemStore) -> None:
        self._store = store
        self._model = ModelStore()
        self._cursors: dict[bytes | None, Cursor | None] = {}

    async def play(self, work: Sequence[Step]) -> None:
        """Do the work; after it, compare everything."""
        for step in work:
            await getattr(self, f"_{step.name}")(step.data)
        model, store = self._model, self._store
        held = await read_all(store)
        assert held == model.listing()
        assert await store.usage() == model.usage()
        accounts = sorted({account_of(s.item.signer, s.item_class) for s in held})
        assert list(await store.signer_usage(accounts)) == [model.signer_usage(a) for a in accounts]
        for salt in (None, b"tp", b""):
            found = [s for p in await read_pages(store, ChangeFilter(salt=salt)) for s in p.entries]
            assert found == model.changes(0, salt)

    async def _put(self, items: list[msgspec.Struct]) -> None:
        assert list(await self._store.put_many(items)) == [self._model.put(i) for i in items]  # type: ignore[arg-type]

    async def _renew(self, leases: list[msgspec.Struct]) -> None:
        assert list(await self._store.renew(leases, 0)) == [self._model.renew(x) for x in leases]  # type: ignore[arg-type]

    async def _drop(self, keys: list[ItemKey]) -> None:
        assert await self._store.drop(keys) == self._model.drop(keys)

    async def _sweep(self, now_s: int) -> None:
        assert await self._store.sweep(now_s) == self._model.sweep(now_s)

    async def _print(self, data: tuple[bytes | None, tuple[bytes, bytes]]) -> None:
        salt, (low, high) = data
        for bounds in (EVERYTHING, (low, high), (EVERYTHING[0], high)):
            [found] = await self._store.fingerprints(salt, [bounds])
            assert found == self._model.print(salt, *bounds)

    async def _page(self, data: tuple[bytes | None, int, int]) -> None:
        salt, limit, bytes_max = data
        after = self._cursors.get(salt)
        page = await self._store.changes(after, ChangeFilter(salt=salt), limit, bytes_max)
        rest = self._model.changes(0 if after is None else after.position, salt)
        count = len(page.entries)
        assert list(page.entries) == rest[:count]
        assert page.has_more == (count < len(rest))
        assert count <= limit
        if page.has_more:
            assert count >= 1
            fits = sum(len(s.item.v) + ENTRY_BYTES for s in rest[: count + 1]) <= bytes_max
            assert count == limit or not fits
            assert page.cursor.position == page.entries[-1].position
        else:
            assert page.cursor.position == self._model.position
        self._cursors[salt] = page.cursor

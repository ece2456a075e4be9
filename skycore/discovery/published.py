"""What is published for others under a salt and still stands, read from this node's own store.

Why the store and not a memory of what was sent: what counts is what readers get (C46), after a
restart too, and records that an earlier run published and nobody lists any more are found nowhere
else (L6). Why by the change log: a look costs what changed since the last one; now and then all of
it is read again, because what merely ended or was dropped stands in no log.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from hashlib import sha256
from typing import Final, NamedTuple

import anyio.lowlevel

from skycore.contracts.store import ChangeFilter, Items
from skycore.errors import CursorInvalidError, MissingBlocksError
from skycore.model.items import Cursor, ItemClass, Kind, StoredItem

__all__ = ["Gist", "PublishedSubjects", "digest_of", "whole"]

PAGE_ITEMS: Final = 512
PAGE_BYTES: Final = 1024 * 1024
WHOLE_EVERY: Final = 15
"""Looks from one reading of everything to the next."""


Gist = Callable[[bytes], bytes]
"""Return what a value says, as bytes: of two with one gist either may stand."""


def whole(value: bytes) -> bytes:
    """Return the gist of values in which every byte counts."""
    return value


def digest_of(value: bytes | None, gist: Gist = whole) -> bytes:
    """Return what values are compared by; empty: there is none."""
    return b"" if value is None else sha256(gist(value)).digest()


class _Row(NamedTuple):
    item_digest: bytes
    value_digest: bytes
    until_s: int
    is_ours: bool


class PublishedSubjects:
    """The mirrored records of other subjects: digest of the value, by subject.

    Another service's count, too: of two that share a registry and feed the same store, the record
    of whoever signed last stands, and it says the same. Bounded by the store's quotas.
    """

    def __init__(self, items: Items, salt: bytes, own: bytes, gist: Gist = whole) -> None:
        self._items = items
        self._gist = gist
        self._wanted = ChangeFilter(salt)
        self._own = own
        self._rows: dict[bytes, _Row] = {}
        self._cursor: Cursor | None = None
        self._looks = 0

    async def look(self) -> None:
        """Read what changed since the last look. Raises `StoreError`."""
        if self._looks % WHOLE_EVERY == 0:
            self._cursor = None
        try:
            await self._read()
        except CursorInvalidError:  # another store is in the place of the one before
            self._cursor = None
            await self._read()
        self._looks += 1

    async def _read(self) -> None:
        rows = {} if self._cursor is None else self._rows
        cursor = self._cursor
        while True:
            page = await self._items.changes(cursor, self._wanted, PAGE_ITEMS, PAGE_BYTES)
            for stored in page.entries:
                is_ours = stored.item.signer == self._own
                is_mirrored = is_ours or stored.item_class == ItemClass.MIRROR
                if is_mirrored and stored.item.subject != self._own:
                    rows[stored.item.subject] = await self._row(stored, is_ours=is_ours)
            cursor = page.cursor
            if not page.has_more:
                break
            await anyio.lowlevel.checkpoint()
        self._rows, self._cursor = rows, cursor

    async def _row(self, stored: StoredItem, *, is_ours: bool) -> _Row:
        known = self._rows.get(stored.item.subject)
        if known is not None and known.item_digest == stored.digest:
            return known._replace(until_s=stored.until)  # prolonged, that is all
        value = stored.item.v if stored.item.kind == Kind.VALUE else None
        if stored.item.kind == Kind.MANIFEST:
            try:
                value = await self._items.value(stored)
            except MissingBlocksError:  # nobody can read it: that is like no record
                value = None
        return _Row(stored.digest, digest_of(value, self._gist), stored.until, is_ours)

    def digest(self, subject: bytes, now_s: int) -> bytes:
        """Return the digest of what stands of a subject; empty: nothing, or it is deleted."""
        row = self._rows.get(subject)
        return row.value_digest if row is not None and row.until_s > now_s else b""

    def subjects(self, now_s: int) -> Collection[bytes]:
        """Return of whom a record or a deletion of ours stands, as of the last look."""
        return [
            subject for subject, row in self._rows.items() if row.is_ours and row.until_s > now_s
        ]

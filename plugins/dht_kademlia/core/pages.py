"""Judging the pages of a bulk sync: an honest server moves forward, a lying one is caught early.

Why: `has_more` for ever, the same page again, a cursor that runs in circles, pages larger than
asked (G4, G11) would each keep a reader busy for as long as the liar likes. Items under another
salt than asked are dropped and counted (G5); the bad item in a page costs that item alone (G6).
"""

from __future__ import annotations

import hashlib
from typing import Final

from dht_kademlia.core.messages import Page, lease_of
from skycore.errors import RemoteProtocolError
from skycore.model.items import Cursor, Lease, MutableItem
from skycore.model.limits import ENTRY_BYTES

__all__ = ["EMPTY_PAGES_MAX", "PAGES_MAX", "PageJudge"]

PAGES_MAX: Final = 20_000
EMPTY_PAGES_MAX: Final = 64


class PageJudge:
    """Follows one sync. Holds 16 bytes a page, PAGES_MAX pages at most."""

    def __init__(self, salt: bytes | None, limit: int, bytes_max: int) -> None:
        self._salt = salt
        self._limit = limit
        self._bytes_max = bytes_max
        self._seen: set[bytes] = set()
        self._cursor = b""
        self._empty = 0
        self.pages = 0
        self.dropped = 0

    def start(self, cursor: bytes) -> None:
        """Set where the reader starts."""
        self._cursor = cursor

    def admit(self, page: Page) -> list[tuple[MutableItem, Lease | None]]:
        """Return the items worth verifying, with the leases that came with them.

        Raises `RemoteProtocolError` for a lying server.
        """
        self.pages += 1
        size = self._size(page)
        entries = len(page.items) + len(page.leases)
        if len(page.items) > self._limit or (len(page.items) > 1 and size > self._bytes_max):
            raise RemoteProtocolError(
                f"a page of {entries} entries and {size} bytes; "
                f"{self._limit} and {self._bytes_max} were asked for"
            )
        self._progress(page, entries)
        leases = lease_of(page.item_leases, len(page.items))
        kept = list(zip(page.items, leases, strict=True))
        if self._salt is None:
            return kept
        kept = [entry for entry in kept if entry[0].salt == self._salt]
        self.dropped += len(page.items) - len(kept)
        return kept

    @staticmethod
    def _size(page: Page) -> int:
        return sum(len(item.v) for item in page.items) + ENTRY_BYTES * len(page.items)

    def _progress(self, page: Page, entries: int) -> None:
        if entries:
            self._empty = 0
            mark = hashlib.sha256(
                b"".join(
                    [i.sig for i in page.items]
                    + [e.sig for e in page.leases]
                    + [e.lease.sig for e in page.item_leases]
                )
            ).digest()[:16]
            if mark in self._seen:
                raise RemoteProtocolError("sync makes no progress: the same page came again")
            self._seen.add(mark)
        else:
            self._empty += 1
        if page.has_more:
            self._check_cursor(page.cursor)
        self._cursor = page.cursor

    def _check_cursor(self, data: bytes) -> None:
        cursor, before = Cursor.decode(data), Cursor.decode(self._cursor)
        if cursor is None:
            raise RemoteProtocolError("a page says there is more and has no cursor")
        if before and (cursor.store_id != before.store_id or cursor.position <= before.position):
            raise RemoteProtocolError("sync makes no progress: the cursor does not move forward")
        if self._empty > EMPTY_PAGES_MAX or self.pages >= PAGES_MAX:
            raise RemoteProtocolError(f"sync makes no progress after {self.pages} pages")

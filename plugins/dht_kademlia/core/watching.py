"""Judging the pages of a watch: an honest server moves forward, and is silent when nothing changes.

Why beside `core.pages`: a sync ends, a watch does not, so nothing may be remembered per page. What
is left of a liar's means: a cursor that goes back or belongs to another store, pages larger than
agreed, and pages without content without end. Items under another salt than asked for are dropped
and counted (G5).
"""

from __future__ import annotations

from typing import Final

from dht_kademlia.core.messages import WATCH_BEAT_S, Page, lease_of
from skycore.errors import RemoteProtocolError
from skycore.model.items import Cursor, Lease, MutableItem
from skycore.model.limits import ENTRY_BYTES, PAGE_BYTES_MAX, PAGE_ITEMS_MAX

__all__ = ["EMPTY_MAX", "SILENCE_S", "WatchJudge"]

SILENCE_S: Final = 2.5 * WATCH_BEAT_S
"""A stream that was silent for so long is dead."""
EMPTY_MAX: Final = 8
"""Pages without entries at once; beyond, one each quarter of a beat."""


class WatchJudge:
    """Follows one stream. `cursor` is empty for one that begins now."""

    def __init__(self, salt: bytes | None, cursor: bytes, now: float) -> None:
        self.dropped = 0
        self._salt = salt
        self._place = Cursor.decode(cursor)
        self._empties = float(EMPTY_MAX)
        self._then = now

    def admit(self, page: Page, now: float) -> list[tuple[MutableItem, Lease | None]]:
        """Return the items worth verifying, with their leases. Raises `RemoteProtocolError`."""
        size = sum(len(item.v) for item in page.items) + ENTRY_BYTES * len(page.items)
        if len(page.items) > 1 and (size > PAGE_BYTES_MAX or len(page.items) > PAGE_ITEMS_MAX):
            raise RemoteProtocolError(
                f"a page of {len(page.items)} items and {size} bytes; "
                f"{PAGE_ITEMS_MAX} and {PAGE_BYTES_MAX} are agreed"
            )
        self._move(page)
        self._pace(page, now)
        leases = lease_of(page.item_leases, len(page.items))
        whole = list(zip(page.items, leases, strict=True))
        kept = [e for e in whole if self._salt is None or e[0].salt == self._salt]
        self.dropped += len(whole) - len(kept)
        return kept

    def _move(self, page: Page) -> None:
        place, before = Cursor.decode(page.cursor), self._place
        if place is None:
            raise RemoteProtocolError("a page of a watch has no cursor")
        self._place = place
        if before is None:
            return
        if place.store_id != before.store_id:
            raise RemoteProtocolError("the cursor of a watch changed to another store's")
        least = before.position + bool(page.items or page.leases)
        if place.position < least:
            raise RemoteProtocolError("a watch makes no progress: its cursor does not move forward")

    def _pace(self, page: Page, now: float) -> None:
        earned = (now - self._then) * 4 / WATCH_BEAT_S
        self._then = now
        self._empties = min(float(EMPTY_MAX), self._empties + earned)
        if page.items or page.leases:
            return
        self._empties -= 1
        if self._empties < 0:
            raise RemoteProtocolError("a watch makes no progress: pages without content")

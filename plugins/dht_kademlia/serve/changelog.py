"""Reading our own store's change log as it grows: for peers that watch us, and for our own callers.

Why a cursor and no queue: a reader that falls behind costs nothing here, and finds the newest
version of each record when it comes back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import anyio

from skycore.contracts.store import ChangeFilter, ChangePage, Items
from skycore.model.items import Cursor, StoredItem
from skycore.model.limits import PAGE_BYTES_MAX, PAGE_ITEMS_MAX, SALT_MAX

__all__ = ["SETTLE_S", "changes_from", "log_end", "next_page"]

SETTLE_S: Final = 0.05
"""What changes within so long goes in one page."""
_NO_SALT: Final = b"\0" * (SALT_MAX + 1)


async def log_end(items: Items) -> Cursor:
    """Return where the change log ends now. Raises `StoreError`."""
    nothing = ChangeFilter(salt=_NO_SALT)  # longer than any salt: the store finds that out at once
    return (await items.changes(None, nothing, 1, 1)).cursor


async def next_page(
    items: Items, after: Cursor, salt: bytes | None, wait_s: float | None = None
) -> ChangePage:
    """Return what changed after a cursor, or an empty page where in `wait_s` nothing did.

    Raises `CursorInvalidError`, `StoreError`.
    """
    wanted = ChangeFilter(salt)
    until = anyio.current_time() + (float("inf") if wait_s is None else wait_s)
    while True:
        changed = items.changed()  # before reading: what comes in between is not slept over
        page = await items.changes(after, wanted, PAGE_ITEMS_MAX, PAGE_BYTES_MAX)
        if page.entries or page.has_more:
            return page
        after = page.cursor
        with anyio.move_on_after(until - anyio.current_time()) as limit:
            await changed.wait()
            await anyio.sleep(SETTLE_S)
        if limit.cancelled_caught:
            return page


async def changes_from(
    items: Items, after: Cursor, salt: bytes | None
) -> AsyncIterator[StoredItem]:
    """Yield what arrives after a cursor, for ever; prolonged lives are no change."""
    while True:
        page = await next_page(items, after, salt)
        for entry in page.entries:
            if entry.item_position > after.position:
                yield entry
        after = page.cursor

"""Reading along an index of Redis, a bounded stretch for each round trip."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from mirror_redis.rows import hex64, member_of, number, record, rows_of, stored_item
from skycore.contracts.store import ChangeFilter, ChangePage
from skycore.errors import CursorInvalidError, StoreError
from skycore.model.items import Cursor, ItemClass, StoredItem, mutable_item_target
from skycore.model.limits import ENTRY_BYTES

__all__ = ["Scans", "high_bound", "low_bound"]

LISTED_MAX = 512
LOOKED_MAX = 2_000
"""Rows of the log that one call looks at; 2 KiB of a reply count as one more."""
REPLY_BYTES = 2 * 1024 * 1024
_LOOK_ON = 2

Run = Callable[..., Awaitable[Any]]
Show = Callable[[Sequence[Any]], Awaitable[list[StoredItem]]]
Slots = Callable[[Sequence[bytes]], Awaitable[tuple[int, list[StoredItem]]]]


def low_bound(target: bytes) -> bytes:
    """Return the bound of members whose target is not below this one, which may be no target."""
    if len(target) > 32:  # `;` comes after the `:` that ends a member's target
        return b"(" + target[:32].hex().encode() + b";"
    return b"[" + target.hex().encode()


def high_bound(target: bytes) -> bytes:
    """Return the bound of members whose target is not above this one."""
    if len(target) >= 32:
        return b"(" + target[:32].hex().encode() + b";"
    return b"(" + target.hex().encode()


class Scans:
    """Pages of the log, listings and histories."""

    def __init__(self, run: Run, run_all: Run, show: Show) -> None:
        self._run = run
        self._run_all = run_all
        self._show = show

    async def changes(
        self,
        store_id: bytes,
        after: Cursor | None,
        wanted: ChangeFilter,
        limit: int,
        bytes_max: int,
    ) -> ChangePage:
        """Return a page of the log."""
        place = _start(store_id, after)
        found: dict[tuple[bytes, int], StoredItem] = {}
        size = 0
        while True:
            end, stopped, more, *packed = await self._run(
                "changes",
                record(
                    number(place),
                    b"1" if wanted.salt is not None else b"", wanted.salt or b"",
                    b"1" if wanted.subject is not None else b"", wanted.subject or b"",
                    hex64(wanted.since_seq), number(max(limit - len(found), 0)),
                    number(max(bytes_max - size, 0)), number(LOOKED_MAX),
                    b"1" if found else b"",
                ),
            )  # fmt: skip
            if after is not None and after.position > end:
                raise _invalid()
            for item in await self._show(rows_of(*packed)):
                size += len(item.item.v) + ENTRY_BYTES
                key = (item.target, item.item_class)
                found.pop(key, None)  # it changed while we read: once, as it is now
                found[key] = item
            place = _position(stopped)
            if more != _LOOK_ON:
                break
        entries = tuple(found.values())
        if more:
            return ChangePage(entries, Cursor(store_id, place), has_more=True)
        return ChangePage(entries, Cursor(store_id, end), has_more=False)

    async def changes_of_one(
        self,
        store_id: bytes,
        after: Cursor | None,
        wanted: ChangeFilter,
        limit: int,
        bytes_max: int,
        slots: Slots,
    ) -> ChangePage:
        """Return a page of what one subject has under one salt: its slots, not the log."""
        start = _start(store_id, after)
        target = mutable_item_target(wanted.subject or b"", wanted.salt or b"")
        end, items = await slots([target])
        if start > end:
            raise _invalid()
        entries: list[StoredItem] = []
        size = 0
        for item in sorted(items, key=lambda item: item.position):
            value = item.item
            is_it = (value.salt, value.subject) == (wanted.salt, wanted.subject)
            if not is_it or item.position <= start or value.seq <= wanted.since_seq:
                continue
            size += len(value.v) + ENTRY_BYTES
            if entries and (len(entries) >= limit or size > bytes_max):
                place = Cursor(store_id, entries[-1].position)
                return ChangePage(tuple(entries), place, has_more=True)
            entries.append(item)
        return ChangePage(tuple(entries), Cursor(store_id, end), has_more=False)

    async def listing(
        self, salt: bytes | None, low: bytes, high: bytes, limit: int
    ) -> list[StoredItem]:
        """Return items by target and class."""
        items: list[StoredItem] = []
        begin = low_bound(low)
        while limit > len(items):
            count = min(limit - len(items), LISTED_MAX)
            stopped, *packed = await self._run(
                "listing",
                record(
                    b"1" if salt is not None else b"", salt or b"", begin, high_bound(high),
                    number(count), number(REPLY_BYTES),
                ),
            )  # fmt: skip
            rows = rows_of(*packed)
            items += await self._show(rows)
            if len(rows) < count and not stopped:
                break
            begin = b"(" + bytes(rows[-1][-1])
        return items

    async def history(self, target: bytes, limit: int) -> list[StoredItem]:
        """Return replaced items, newest first."""
        items: list[StoredItem] = []
        seen = {member_of(target, item_class): 0 for item_class in ItemClass}
        while seen and limit > 0:
            replies = await self._run_all(
                "past",
                [
                    (record(member, number(first), number(limit - first), number(REPLY_BYTES)),)
                    for member, first in seen.items()
                ],
            )
            for (member, first), (stopped, *packed) in zip(
                list(seen.items()), replies, strict=True
            ):
                rows = rows_of(*packed)
                items += [item for item in map(stored_item, rows) if item is not None]
                seen[member] = first + len(rows)
                if not stopped or not rows or seen[member] >= limit:
                    del seen[member]
        items.sort(key=lambda item: item.item_position, reverse=True)
        return items[: max(limit, 0)]


def _position(score: bytes) -> int:
    """Return a place in the log. Raises `StoreError` for a score that is none of ours."""
    try:
        return int(float(score))
    except (ValueError, OverflowError):
        raise StoreError("the change log in Redis was changed by somebody else") from None


def _start(store_id: bytes, after: Cursor | None) -> int:
    if after is not None and after.store_id != store_id:
        raise _invalid()
    return 0 if after is None else after.position


def _invalid() -> CursorInvalidError:
    return CursorInvalidError(hint="reconcile, then begin with a new cursor")

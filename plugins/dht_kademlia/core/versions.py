"""Which version of a record was valid at some moment, of those that are still known.

Why by rank before life: a version ends when a better one of its class is signed, however long its
own lease would have let it live. Pure: the caller says which versions there are, and when.
"""

from __future__ import annotations

from collections.abc import Iterable

from skycore.model.items import StoredItem

__all__ = ["valid_at"]


def valid_at(versions: Iterable[StoredItem], at_ns: int) -> StoredItem | None:
    """Return what a reader got at a Unix nanosecond: of the highest class, the newest, if alive.

    A seq is the nanosecond of its signing, so a seq asks for that version. A tombstone is returned
    as what it is. None: nothing was there, or it is not known any more.
    """
    newest: dict[int, StoredItem] = {}
    for version in versions:
        if version.item.seq <= at_ns:
            known = newest.get(version.item_class)
            if known is None or version.rank > known.rank:
                newest[version.item_class] = version
    alive = [v for v in newest.values() if v.until * 10**9 > at_ns]
    return max(alive, key=lambda v: v.item_class, default=None)

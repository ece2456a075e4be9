"""Pages of a listing: whole targets only, bounded by count, by bytes and by what is looked at.

Why by bytes: a page is one answer of at most RPC_FRAME_MAX, and a thousand large values are more
(C23). Why whole targets: the next page begins after a target, so a target torn between two pages
would lose the rest of its items. Why by what is looked at: a filter that lets nothing through must
not make one call walk through a whole store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from skycore.model.items import StoredItem
from skycore.model.limits import RPC_FRAME_MAX

__all__ = ["CHUNK", "LOOKED_AT_MAX", "PageMaker", "after"]

CHUNK = 128
"""Items that are fetched at a time; a target has three at most."""
LOOKED_AT_MAX = 4_096
VIEW_BYTES = 1_024
EXPANSION = 8
"""JSON bytes for each byte of a value, at worst: as hex, and six for a control character."""
BYTES_MAX = RPC_FRAME_MAX // 2


def after(target: bytes) -> bytes | None:
    """Return the next target in order; None after the last one."""
    number = int.from_bytes(target, "big") + 1
    return number.to_bytes(32, "big") if number < 2**256 else None


class PageMaker:
    """Collects one page from chunks of a listing, in order of target."""

    def __init__(self, limit: int, wanted: Callable[[StoredItem], bool], *, brief: bool) -> None:
        self.page: list[StoredItem] = []
        self.last: bytes = b""
        """The last target that the page has done with."""
        self._limit = limit
        self._wanted = wanted
        self._brief = brief
        self._bytes = 0
        self._looked_at = 0

    def take(self, chunk: Sequence[StoredItem], *, is_last: bool) -> bool:
        """Take a chunk; tell whether the page is to end here, with more behind it.

        Of a chunk that is not the last, the items of its last target are left for the next one.
        """
        torn = None if is_last else chunk[-1].target
        for stored in chunk:
            if stored.target == torn:
                break
            if stored.target != self.last and self._is_full():
                return True
            self.last = stored.target
            self._looked_at += 1
            if self._wanted(stored):
                self.page.append(stored)
                size = 0 if self._brief else len(stored.item.v)
                self._bytes += VIEW_BYTES + EXPANSION * size
        return False

    def _is_full(self) -> bool:
        return (
            len(self.page) >= self._limit
            or self._bytes >= BYTES_MAX
            or self._looked_at >= LOOKED_AT_MAX
        )

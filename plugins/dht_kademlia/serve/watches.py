"""Serving Watch: a position in our change log that moves on, page by page, until the peer hangs up.

Why no queue: what a watcher has not read yet is in the store anyway. A slow reader costs one page;
when it reads again it gets the newest version of each record, and none twice. What the watcher
itself brought is left out, so that two nodes that watch each other do not talk in circles.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from dht_kademlia.core.messages import WATCH_BEAT_S, ItemLease, Page, Watch
from dht_kademlia.node import Kademlia
from dht_kademlia.serve.changelog import log_end, next_page
from skycore.contracts.store import ChangePage
from skycore.errors import CursorInvalidError, ItemError
from skycore.model.items import Cursor
from skycore.model.keys import short
from skycore.model.limits import SALT_MAX

__all__ = ["Watches"]

log = logging.getLogger(__name__)
STREAMS_SHARE: Final = 2
"""At most one in so many of the server's streams may be a watch."""


class Watches:
    """The watches that peers keep here: few of each peer, not too many in all."""

    def __init__(self, node: Kademlia) -> None:
        self._node = node
        self._by_peer: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return self._by_peer.total()

    @contextmanager
    def place(self, peer: bytes) -> Iterator[None]:
        """Take a place for one watch. Raises `ItemError` (busy) where there is none."""
        settings = self._node.settings
        most = min(settings.watches_max, settings.streams_max // STREAMS_SHARE)
        if self._by_peer[peer] >= settings.peer_watches_max or len(self) >= most:
            raise ItemError("this node has no room for one more watch; ask another")
        self._by_peer[peer] += 1
        log.debug("a watch begins peer=%s watches=%d", short(peer), len(self))
        try:
            yield
        finally:
            self._by_peer[peer] -= 1
            if not self._by_peer[peer]:
                del self._by_peer[peer]

    async def run(
        self, peer: bytes, request: Watch, send: Callable[[Page], Awaitable[None]]
    ) -> None:
        """Send pages for ever; the first at once, then what changes, and a beat where nothing does.

        Raises `CursorInvalidError`, `StoreError`, and what `send` raises.
        """
        if request.salt is not None and len(request.salt) > SALT_MAX:
            raise ItemError(f"a salt has {SALT_MAX} bytes at most")
        node, after = self._node, await self._start(request)
        due_s = node.clock.now()
        while True:
            wait_s = max(0.0, due_s - node.clock.now())
            found = await next_page(node.items, after, request.salt, wait_s)
            page = _page_for(peer, found, after)
            after = found.cursor
            if page.items or page.leases or node.clock.now() >= due_s:
                await send(page)
                due_s = node.clock.now() + WATCH_BEAT_S

    async def _start(self, request: Watch) -> Cursor:
        if not request.cursor:
            return await log_end(self._node.items)
        after = Cursor.decode(request.cursor)
        if after is None:
            raise CursorInvalidError("a cursor has 24 bytes")
        return after


def _page_for(peer: bytes, found: ChangePage, after: Cursor) -> Page:
    """Return a stretch of the log without what this peer brought itself; leases have no bringer."""
    seen = after.position
    fresh = [e for e in found.entries if e.item_position > seen and e.sender != peer]
    leased = [e for e in found.entries if e.item_position <= seen or e.sender == peer]
    return Page(
        tuple(e.item for e in fresh),
        tuple(e.lease for e in leased if e.lease),
        found.has_more,
        found.cursor.encode(),
        tuple(ItemLease(at, e.lease) for at, e in enumerate(fresh) if e.lease),
    )

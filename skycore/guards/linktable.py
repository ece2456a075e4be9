"""Which link is the live one: one per peer and type, and the same one on both sides.

The rule (wire section 3): from a new instance id the newest wins, for the peer was restarted and
its old link is dead. With the same instance id, of two links with different diallers that of the
smaller key wins, and of two with the same dialler the newest, for a dialler has one dial in flight.
A link whose type watches over it, and which stood for a while, keeps its place beside a newcomer of
the same instance: somebody dialled while it was silent, and its peer lives (U7).
Both sides see the same two links and know the same facts, so they choose alike in whatever order
the links arrive. The loser is not cut: it serves what was begun on it until it is idle, and takes
the place if the winner turns out to be dead.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from skycore.contracts.runtime import Clock
from skycore.errors import TransportError
from skycore.guards.links import LABELS, Link
from skycore.model.addresses import host_group
from skycore.model.keys import PubKey, short

__all__ = ["LinkTable"]

log = logging.getLogger(__name__)

DRAIN_IDLE_S = 2.0
SETTLED_S = 20.0
"""Age from which a watched link is no crossing dial's any more: those take 10 s at most."""
DRAINING_MAX = 4
"""Losers of one peer and type that drain at a time; the oldest goes at once beyond."""


class LinkTable:
    """All links of a node. Everything here is synchronous: no lock, so no order of locks."""

    def __init__(
        self,
        own: PubKey,
        kinds: Iterable[str],
        clock: Clock,
        *,
        live_max: int,
        ephemeral_idle_s: float,
        on_up: Callable[[Link], None],
    ) -> None:
        self._own = own
        self._kinds = list(kinds)
        self._clock = clock
        self._live_max = live_max
        self._ephemeral_idle_s = ephemeral_idle_s
        self._on_up = on_up
        self._live: dict[uuid.UUID, Link] = {}
        self._of_peer: dict[bytes, list[Link]] = {}
        self._draining: dict[uuid.UUID, list[Link]] = {}
        self._open: dict[Link, None] = {}
        """Every link that has not ended, closing ones too."""

    def live(self) -> Sequence[Link]:
        """Return the live links."""
        return list(self._live.values())

    def open(self) -> Sequence[Link]:
        """Return every link that has not ended."""
        return list(self._open)

    def get(self, link_id: uuid.UUID) -> Link | None:
        """Return the live link with this id."""
        return self._live.get(link_id)

    def find(self, remote: bytes, kinds: Sequence[str] | None = None) -> Link | None:
        """Return the best link to a key: of the type that comes first by its plugin's name.

        With `kinds`, one of those types alone.

        One that is silent is nobody's best. While it has its place, one that drains stands in.
        """
        links = [x for x in self._of_peer.get(remote, ()) if kinds is None or x.type in kinds]
        found = [link for link in links if not link.is_silent]
        if not found:
            drain = (one for link in links for one in self._draining.get(link.id, ()))
            found = [one for one in drain if not one.is_silent]
        if len(found) <= 1:
            return found[0] if found else None
        return min(found, key=lambda link: self._kinds.index(link.type))

    def admit(self, link: Link) -> None:
        """Give a new link its place. Raises `TransportError` where there is none."""
        rival = self._live.get(link.id)
        if rival is None:
            if len(self._live) >= self._live_max and not self._make_room():
                raise TransportError(
                    f"{self._live_max} transports are open",
                    hint="raise transports_max, or close some: skynode tp rm ID",
                )
            self._open[link] = None
            self._go_live(link)
            return
        self._open[link] = None
        if link.remote_hello.instance_id != rival.remote_hello.instance_id:
            for old in (*self._draining.get(link.id, ()), rival):
                old.close("the peer was restarted")
            self._go_live(link)
        elif self._beats(link, rival):
            self._leave(rival)
            self._go_live(link)
            link.strengthen(rival.label)
            self._drain(rival)
        else:
            rival.probe()  # if it is dead, the newcomer takes its place
            self._drain(link)

    def closed(self, link: Link) -> None:
        """Take a link that closes out of the tables; one that drains may take its place."""
        self._leave(link)
        drainers = self._draining.get(link.id)
        if drainers is None:
            return
        if link in drainers:
            drainers.remove(link)
        if drainers and link.id not in self._live:
            heir = drainers.pop()
            heir.drains_since = None
            self._go_live(heir)
        if not drainers:
            self._draining.pop(link.id, None)

    def ended(self, link: Link) -> None:
        """Forget a link whose task is over."""
        self._open.pop(link, None)

    def look_after(self) -> None:
        """Tick every link; end what has drained and what was opened for a lookup and is idle."""
        now = self._clock.now()
        for link in list(self._open):
            link.tick(now)
            if link.closed:
                continue
            idle_s = now - link.used_at
            if link.drains_since is not None:
                winner = self._live.get(link.id)
                proven = winner is not None and winner.heard_at >= link.drains_since
                if proven and min(idle_s, now - link.drains_since) >= DRAIN_IDLE_S:
                    link.close("another connection took its place")
            elif (
                link.label == LABELS[0] and not link.peer_keeps and idle_s >= self._ephemeral_idle_s
            ):
                link.close(f"idle for {idle_s:.0f} s")

    def _beats(self, new: Link, old: Link) -> bool:
        if old.is_watched and new.opened_at - old.opened_at >= SETTLED_S:
            return False
        if new.dialled == old.dialled:
            return True
        dialler = self._own if new.dialled else new.remote
        return dialler == min(self._own, new.remote)

    def _go_live(self, link: Link) -> None:
        self._live[link.id] = link
        self._of_peer.setdefault(link.remote, []).append(link)
        self._on_up(link)

    def _leave(self, link: Link) -> None:
        if self._live.get(link.id) is not link:
            return
        del self._live[link.id]
        links = self._of_peer[link.remote]
        links.remove(link)
        if not links:
            del self._of_peer[link.remote]

    def _drain(self, link: Link) -> None:
        link.drains_since = self._clock.now()
        drainers = self._draining.setdefault(link.id, [])
        drainers.append(link)
        log.debug("duplicate drains pk=%s type=%s", short(link.remote), link.type)
        if len(drainers) > DRAINING_MAX:
            drainers[0].close("too many connections of one peer")

    def _make_room(self) -> bool:
        """Close the weakest link: of the ephemeral ones of the host with most, that idle longest.

        Why by host: keys cost nothing, and the links of a flood are never idle. Whoever floods from
        one address pushes out his own, and no quiet one of somebody else's.
        """
        weak = [one for one in self._live.values() if one.label == LABELS[0]]
        if not weak:
            return False
        crowds = Counter(host_group(one.host) for one in weak)
        crowd = max(crowds.values())
        crowded = (one for one in weak if crowds[host_group(one.host)] == crowd)
        min(crowded, key=lambda link: link.used_at).close("this node has too many transports")
        return True

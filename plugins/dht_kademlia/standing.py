"""How a node stands with the others: whom it keeps in step with, and what it is as a full node.

Why one value: the loops that follow, the advert, the RPC methods and the status speak of the same
facts, and must not need each other to tell them. Time comes in as an argument.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from skycore.contracts.dht import ReconcileReport

__all__ = ["Followed", "Standing"]


@dataclass(eq=False, slots=True)
class Followed:
    """One peer that this node keeps in step with, under one salt (None: all)."""

    peer: bytes
    salt: bytes | None
    since_s: float
    """Since when the watch is as it is now: up, or down."""
    is_live: bool = False
    heard_s: float | None = None
    """When the last page or beat came."""
    caught_up_s: float | None = None
    """When the last page or beat came behind which there was no more."""
    pages: int = 0
    items: int = 0
    """Received, before the gate's word."""
    trouble: str = ""
    """Why the last connection ended."""
    is_dirty: bool = False
    """Its cursor moved since the cursors were last written down."""

    def up(self, now: float) -> None:
        """Note a page or a beat."""
        if not self.is_live:
            self.is_live, self.since_s, self.trouble = True, now, ""
        self.heard_s = now
        self.pages += 1

    def down(self, now: float, trouble: str) -> None:
        """Note that the connection ended, or was not to be had."""
        if self.is_live:
            self.is_live, self.since_s = False, now
        self.trouble = trouble[:200]

    def lag_s(self, now: float) -> float | None:
        """Return how long ago the peer was heard; None for never."""
        return None if self.heard_s is None else max(0.0, now - self.heard_s)

    def is_lost(self, now: float, limit_s: float) -> bool:
        """Tell whether nothing worked for longer than `limit_s`."""
        return not self.is_live and now - self.since_s > limit_s


@dataclass(eq=False, slots=True)
class Standing:
    """What this node is to the others. `is_complete` and `is_refusing` matter to full nodes."""

    followed: list[Followed] = field(default_factory=list)
    is_complete: bool = False
    """The first pull came to its end (or there was nobody to pull from)."""
    is_refusing: bool = False
    """The gate has no room for new items."""
    is_advertised: bool = False
    is_alone: bool = False
    """There is no other full node, by the word of all whom this node started from."""
    in_step_s: float = 0.0
    """When this node was last in step with somebody it follows no more; at first: its start."""
    full_nodes: int = 0
    """How many full nodes the last look found, this one not counted."""
    last_reconcile: ReconcileReport | None = None
    last_reconcile_s: float = 0.0
    changed: anyio.Event = field(default_factory=anyio.Event)
    """Set when mode, completeness or room change next."""

    def lag_s(self, now: float) -> float:
        """Return how long ago this node last had all that one of those followed has, seconds.

        0 where nobody is to be followed. Who merely finds nobody, or is still being told what he
        missed, is not in step (L18).
        """
        if self.is_alone and not self.followed:
            return 0.0
        caught_up = [one.caught_up_s for one in self.followed if one.caught_up_s is not None]
        return max(0.0, now - max([self.in_step_s, *caught_up]))

    def left(self, followed: Followed) -> None:
        """Note that one is followed no more."""
        self.followed.remove(followed)
        if followed.caught_up_s is not None:
            self.in_step_s = max(self.in_step_s, followed.caught_up_s)

    def change(self) -> None:
        """Tell those who wait that this node stands differently."""
        self.changed.set()
        self.changed = anyio.Event()

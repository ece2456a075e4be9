"""Which puts did not reach which node: kept for an hour, until that node is heard of again.

Why keys and no values: what goes out is the newest version that our store then holds, so a record
that was deleted, replaced or has ended in the meantime is not brought back. After Dynamo (2007),
section 4.6, where hinted replicas wait at another node. Pure: time comes in as an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

__all__ = ["HINTS_MAX", "HINTS_PEER_MAX", "HINT_S", "Hints"]

HINTS_MAX: Final = 16_384
"""Hints in all: some 4 MB."""
HINTS_PEER_MAX: Final = 1_024
HINT_S: Final = 3_600.0
PAUSE_S: Final = 5.0
"""A node that has just failed is given this long before it is believed to be back."""


@dataclass(eq=False, slots=True)
class _Peer:
    after_s: float = 0.0
    targets: OrderedDict[bytes, float] = field(default_factory=OrderedDict)
    """Until when each is remembered, oldest first."""


class Hints:
    """What is owed to whom. Bounded: over a bound, the oldest is forgotten."""

    def __init__(self, most: int = HINTS_MAX, peer_max: int = HINTS_PEER_MAX) -> None:
        self.dropped = 0
        """How many made room for newer ones."""
        self._most = most
        self._peer_max = peer_max
        self._count = 0
        self._peers: OrderedDict[bytes, _Peer] = OrderedDict()

    def __len__(self) -> int:
        return self._count

    def owe(self, public: bytes, target: bytes, now: float, until_s: float | None = None) -> None:
        """Note that a put of what lies at a target did not reach a node; for an hour from now.

        `until_s` is for what was owed before.
        """
        peer = self._peers.setdefault(public, _Peer())
        self._peers.move_to_end(public)
        peer.after_s = now + PAUSE_S
        if target in peer.targets:
            peer.targets.move_to_end(target)
        else:
            self._count += 1
        peer.targets[target] = now + HINT_S if until_s is None else until_s
        if len(peer.targets) > self._peer_max:
            self._drop(peer)
        while self._count > self._most:
            self._drop(next(iter(self._peers.values())))

    def _drop(self, peer: _Peer) -> None:
        peer.targets.popitem(last=False)
        self._count -= 1
        self.dropped += 1
        self._tidy()

    def _tidy(self) -> None:
        while self._peers and not next(iter(self._peers.values())).targets:
            self._peers.popitem(last=False)

    def settled(self, public: bytes, target: bytes) -> None:
        """Note that it reached the node after all."""
        peer = self._peers.get(public)
        if peer is not None and peer.targets.pop(target, None) is not None:
            self._count -= 1
            if not peer.targets:
                del self._peers[public]

    def is_due(self, public: bytes, now: float) -> bool:
        """Tell whether something is owed to a node that was just heard."""
        peer = self._peers.get(public)
        return peer is not None and now >= peer.after_s

    def due(self, public: bytes, now: float) -> Sequence[tuple[bytes, float]]:
        """Return what is owed to a node, each with its end, and owe it no longer."""
        if not self.is_due(public, now):
            return ()
        targets = self._peers.pop(public).targets
        self._count -= len(targets)
        return [owed for owed in targets.items() if now < owed[1]]

    def expire(self, now: float) -> None:
        """Forget what is an hour old."""
        for public, peer in list(self._peers.items()):
            while peer.targets and next(iter(peer.targets.values())) <= now:
                peer.targets.popitem(last=False)
                self._count -= 1
            if not peer.targets:
                del self._peers[public]

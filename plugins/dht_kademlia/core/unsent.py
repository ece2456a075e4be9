"""Answers that wait for their readers, bounded for the whole node.

Why not per peer alone: a page is a mebibyte, a peer has sixteen streams, and keys cost nothing.
Twenty deaf peers made a node hold a third of a gibibyte. Here the peer that holds most loses its
oldest answer when the node's share is used up, so who reads, however slowly, is the last to suffer.
"""

from __future__ import annotations

from collections import Counter
from typing import Generic, TypeVar

__all__ = ["Unsent"]

T = TypeVar("T")


class Unsent(Generic[T]):
    """Sizes of answers under way, by whoever sends them (`T`), and for which peer."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes = 0
        self._bytes_max = bytes_max
        self._held: dict[T, tuple[bytes, int]] = {}  # oldest first
        self._of_peer: Counter[bytes] = Counter()

    def add(self, sender: T, peer: bytes, size: int) -> list[T]:
        """Hold an answer; return the senders that must give up for it, never `sender` itself."""
        self._held[sender] = (peer, size)
        self._of_peer[peer] += size
        self.bytes += size
        losers: list[T] = []
        while self.bytes > self._bytes_max and (loser := self._worst(sender)) is not None:
            self.remove(loser)
            losers.append(loser)
        return losers

    def remove(self, sender: T) -> None:
        """Forget an answer that was sent, or given up. Twice is once."""
        peer, size = self._held.pop(sender, (b"", 0))
        if size:
            self.bytes -= size
            self._of_peer[peer] -= size
            if not self._of_peer[peer]:
                del self._of_peer[peer]

    def _worst(self, spared: T) -> T | None:
        others = [sender for sender in self._held if sender is not spared]
        return max(others, key=lambda sender: self._of_peer[self._held[sender][0]], default=None)

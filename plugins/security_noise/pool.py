"""A few ephemeral key pairs, made before they are needed.

Why small: a pair costs 12 µs of a handshake's 300, so a pool takes that much off the first reply
after a burst and no work off the node (measured: worth at most 13 %). Pairs are made in bursts with
a turn for everybody else between them, and are not checked again when taken: the suite made them.
"""

from __future__ import annotations

from collections import deque

import anyio
import anyio.lowlevel

from security_noise.core.handshake import Pair
from skycore.contracts.runtime import Entropy
from skycore.model.keys import KeySuite

__all__ = ["BURST", "KeyPairs"]

BURST = 8


class KeyPairs:
    """Pairs that nobody has used. Each is handed out once and not kept."""

    def __init__(self, suite: KeySuite, entropy: Entropy, pairs_max: int) -> None:
        self._suite = suite
        self._entropy = entropy
        self._pairs_max = pairs_max
        self._ready: deque[Pair] = deque()
        self._wanted = anyio.Event()

    def __repr__(self) -> str:
        return f"KeyPairs(ready={len(self._ready)})"

    def __len__(self) -> int:
        return len(self._ready)

    def take(self) -> Pair:
        """Return a pair nobody had before; makes a burst at once where none is ready."""
        if not self._ready:
            self._make()
        pair = self._ready.popleft()
        if len(self._ready) <= self._pairs_max - BURST:
            self._wanted.set()
        return pair

    def clear(self) -> None:
        """Forget all pairs."""
        self._ready.clear()

    async def refill(self) -> None:
        """Keep the pool full, for ever; a burst, then everybody else's turn."""
        while True:
            while len(self._ready) <= self._pairs_max - BURST:
                self._make()
                await anyio.lowlevel.checkpoint()
            self._wanted = anyio.Event()
            await self._wanted.wait()

    def _make(self) -> None:
        size = self._suite.seed_bytes
        seeds = self._entropy.bytes(size * BURST)
        for at in range(0, size * BURST, size):
            self._ready.append(Pair(*self._suite.dh_pair(seeds[at : at + size])))

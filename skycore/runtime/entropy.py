"""Real randomness."""

from __future__ import annotations

import os
import random

__all__ = ["RealEntropy"]


class RealEntropy:
    """The operating system's generator. `contracts.runtime.Entropy`."""

    def bytes(self, n: int) -> bytes:
        """Return n random bytes, fit for keys."""
        return os.urandom(n)

    def random(self) -> random.Random:
        """Return a generator for jitter and choices, seeded from the operating system."""
        return random.Random(int.from_bytes(os.urandom(16), "big"))

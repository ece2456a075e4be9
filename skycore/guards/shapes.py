"""How blocks hang together, remembered.

Why: a record of 5,000 entries of which one changed stands on hundreds of blocks that were here
before, and the head must name all of them. What is below a block never changes, so it is asked of
the store once, and a change costs what is new in it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from skycore.model.trie import children

__all__ = ["Shape", "Shapes"]


class Shape(NamedTuple):
    """What a block is to the tree that it stands in."""

    children: tuple[bytes, ...]
    bytes: int
    """Of the block itself."""


class Shapes:
    """Shapes of blocks by their ids, and sizes of whole trees by their roots'.

    Bounded: those longest unused are forgotten. Names count, of blocks and of what is below them
    (some 150 bytes each): a block may name 64 others that never come.
    """

    def __init__(self, names_max: int = 65_536, roots_max: int = 4_096) -> None:
        self._names_max = names_max
        self._names = 0
        self._roots_max = roots_max
        self._shapes: OrderedDict[bytes, Shape] = OrderedDict()
        self._totals: OrderedDict[bytes, int] = OrderedDict()

    def get(self, name: bytes) -> Shape | None:
        """Return the shape of a block that was seen lately."""
        found = self._shapes.get(name)
        if found is not None:
            self._shapes.move_to_end(name)
        return found

    def learn(self, name: bytes, block: bytes) -> Shape:
        """Return the shape of a block, which is what its name says. Raises `NamespaceError`."""
        found = self.get(name)
        if found is None:
            found = self._shapes[name] = Shape(children(block), len(block))
            self._names += 1 + len(found.children)
            while self._names > self._names_max:
                _, gone = self._shapes.popitem(last=False)
                self._names -= 1 + len(gone.children)
        return found

    def total(self, root: bytes) -> int | None:
        """Return the bytes of all blocks of a tree, each counted once, where that is known."""
        return self._totals.get(root)

    def learn_total(self, root: bytes, size: int) -> None:
        """Remember the bytes of all blocks of a tree."""
        self._totals[root] = size
        self._totals.move_to_end(root)
        if len(self._totals) > self._roots_max:
            self._totals.popitem(last=False)

    def __len__(self) -> int:
        return len(self._shapes)

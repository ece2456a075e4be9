"""Which blocks of a value go into the next message to a node, and what was sent before.

Why remembered: a hub that changes one of 5,000 transports must not send the other 4,999 again, and
what a node does have after all it need not name (C28). Why counted: a node that asks for the same
blocks again and again would draw megabytes for ever. Pure; nothing here is waited for.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from skycore.errors import NamespaceError, RemoteProtocolError
from skycore.model.trie import children

__all__ = ["SENT_BLOCKS_MAX", "Crate", "Sent", "below", "fill"]

TIMES_MAX: Final = 2
"""How often one block goes to one node in one exchange: what waits there may have made room."""
SENT_BLOCKS_MAX: Final = 65_536
"""Hashes remembered of what was sent, some 100 bytes each."""
BLOCK_HEAD: Final = 5
"""What a block costs in a message besides its bytes."""


def fill(
    tree: Mapping[bytes, bytes], known: Collection[bytes], bytes_max: int
) -> tuple[bytes, ...]:
    """Return the hashes of a tree's blocks, parents first, as far as they fit, but the known."""
    chosen, size = [], 0
    for name, block in tree.items():
        if name in known:
            continue
        size += len(block) + BLOCK_HEAD
        if size > bytes_max:
            break
        chosen.append(name)
    return tuple(chosen)


def below(block: bytes) -> tuple[bytes, ...]:
    """Return what a block leads to; nothing where it is none: whoever stores it will say so."""
    try:
        return children(block)
    except NamespaceError:
        return ()


class Crate:
    """The blocks of one value on their way to one node."""

    def __init__(
        self, tree: Mapping[bytes, bytes], sent: Collection[bytes] = (), *, lean: bool = False
    ) -> None:
        self._tree = tree
        self._lean = lean
        self._times: Counter[bytes] = Counter(sent)

    def next(self, missing: Sequence[bytes], bytes_max: int) -> list[bytes]:
        """Return the blocks that the node named, then what they lead to and did not go yet.

        Raises `RemoteProtocolError` where it names none, none of this value, or the same for ever.
        """
        if not missing:
            raise RemoteProtocolError("it does not say which blocks it lacks; it may be older")
        if any(name not in self._tree for name in missing):
            raise RemoteProtocolError("it asks for blocks that are not of this value")
        chosen: dict[bytes, bytes] = {}
        size = 0
        named = set(missing)
        row: list[bytes] = list(dict.fromkeys(missing))
        while row:
            following: list[bytes] = []
            for name in row:
                block = self._tree[name]
                times = self._times[name]
                if name not in chosen and times < (TIMES_MAX if name in named else 1):
                    size += len(block) + BLOCK_HEAD
                    if size > bytes_max:
                        return self._gone(chosen)
                    chosen[name] = block
                if not self._lean:
                    following += below(block)
            row = list(dict.fromkeys(following))
        return self._gone(chosen)

    def _gone(self, chosen: Mapping[bytes, bytes]) -> list[bytes]:
        if not chosen:
            raise RemoteProtocolError("it asks for the same blocks again and again")
        self._times.update(chosen.keys())
        return list(chosen.values())


class _Version(NamedTuple):
    sig: bytes
    before: frozenset[bytes]
    """What the version before it stood on."""
    refs: frozenset[bytes]


class Sent:
    """What this node last sent for each slot, by (target, signer); the longest unused goes."""

    def __init__(self, most: int = SENT_BLOCKS_MAX) -> None:
        self._most = most
        self._count = 0
        self._held: OrderedDict[tuple[bytes, bytes], _Version] = OrderedDict()

    def __len__(self) -> int:
        return self._count

    def known(self, slot: tuple[bytes, bytes], sig: bytes) -> frozenset[bytes] | None:
        """Return what a receiver of the version before this one has; None where none was sent."""
        held = self._held.get(slot)
        if held is None:
            return None
        return held.before if held.sig == sig else held.refs

    def note(
        self,
        slot: tuple[bytes, bytes],
        sig: bytes,
        before: frozenset[bytes],
        refs: frozenset[bytes],
    ) -> None:
        """Remember a version as sent, and what the one before it stood on."""
        self._forget(slot)
        if len(before) + len(refs) > self._most:
            return
        self._held[slot] = _Version(sig, before, refs)
        self._count += len(before) + len(refs)
        while self._count > self._most:
            self._forget(next(iter(self._held)))

    def _forget(self, slot: tuple[bytes, bytes]) -> None:
        held = self._held.pop(slot, None)
        if held is not None:
            self._count -= len(held.before) + len(held.refs)

"""Who is known to hold which version of what, and whom this node has to bring it to.

Why knowledge and not rounds: a node that sends everything to everybody once an hour, as the paper
has it, is silent when replicas are lost and loud when none are. Here a version is sent only to
those of the k closest that are not known to hold it, so that a pass over a network at rest costs
no byte, and one after churn costs what is missing.

Why two nodes and not all k: a node hands a pair to a newcomer only if its own id is closer to the
key than those of the other nodes, or else all k would send it (Maymounkov and Mazières, "Kademlia"
(2002), section 2.5). The second closest does it here too, because the closest may be broken.
As in that section, contacts that were there when an item came are taken to have got it too; but
only where it is asked who is the closest, never where it is asked who still needs the item.

Pure: time comes in as an argument.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

from dht_kademlia.core.routing_table import ID_BITS, SLACK, Entry, K, RoutingTable
from skycore.model.addresses import Contact
from skycore.model.items import MutableItem

__all__ = ["DUTY", "FAR_S", "RECHECK_S", "REFUSED_S", "VERSIONS_MAX", "Holders", "version_of"]

DUTY: Final = 2
"""How many of the holders nearest to an item see to its replicas."""
VERSIONS_MAX: Final = 65_536
"""Versions of which it is noted who holds them: some 25 MB with 300 contacts, if all are used."""
RECHECK_S: Final = 3_600.0
"""What is known is forgotten after this long, and asked again: finds what was lost in silence."""
REFUSED_S: Final = 600.0
"""A node that refused a version is asked again after this long,"""
FAR_S: Final = 30.0
"""one that says it is too far already at the next pass: it may have counted dead nodes."""
YOUNG_S: Final = 120.0
"""Whom a node meets in its own first two minutes was there before it."""
HANDED_ON: Final = 3
"""One of so many nearest nodes has to hold what a far node is about to let expire."""
SWEEP_AT: Final = 256


def version_of(item: MutableItem) -> bytes:
    """Return the name of an item's version: 16 bytes of its signature, which nothing else has."""
    return item.sig[:16]


class _Known:
    """Contacts, as bits."""

    __slots__ = ("again_s", "held", "refused", "since_s")

    def __init__(self, now: float) -> None:
        self.held = self.refused = 0
        self.again_s = self.since_s = now


class Holders:
    """What a node knows of its contacts' copies. Bounded; of contacts that left nothing is kept."""

    def __init__(
        self, born_s: float, *, settled_s: float = 240.0, most: int = VERSIONS_MAX
    ) -> None:
        self._born_s = born_s
        self._settled_s = settled_s
        self._most = most
        self._since: dict[bytes, float] = {}
        self._bits: dict[bytes, int] = {}
        self._free: list[int] = []
        self._dead = 0
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def contacts(self) -> int:
        """How many contacts it knows of."""
        return len(self._bits)

    # --- contacts --------------------------------------------------------------------------------

    def sync(self, table: RoutingTable, now: float) -> None:
        """Take over who is in the routing table."""
        there = {entry.contact.public for entry in chain(table, table.waiting())}
        for public in [p for p in self._bits if p not in there]:
            self.left(public)
        for public in there:
            self.entered(public, now)

    def entered(self, public: bytes, now: float) -> None:
        """Note a contact; of one that is known already, nothing changes."""
        if public in self._bits:
            return
        self._bits[public] = 1 << (self._free.pop() if self._free else self._next())
        self._since[public] = now

    def _next(self) -> int:
        return len(self._bits) + self._dead.bit_count()

    def left(self, public: bytes) -> None:
        """Forget a contact, and what it held: it may come back with an empty store."""
        bit = self._bits.pop(public, 0)
        self._since.pop(public, None)
        self._dead |= bit
        if self._dead.bit_count() >= SWEEP_AT:
            self._sweep()

    def _sweep(self) -> None:
        """Take the bits of those that left out of all that is known, and use them again."""
        alive = ~self._dead
        for known in self._known.values():
            known.held &= alive
            known.refused &= alive
        self._free += [i for i in range(self._dead.bit_length()) if self._dead >> i & 1]
        self._dead = 0

    # --- copies ----------------------------------------------------------------------------------

    def took(self, version: bytes, public: bytes, now: float) -> None:
        """Note that a contact holds a version: it said so, sent it, or showed it."""
        if bit := self._bits.get(public, 0):
            known = self._of(version, now)
            known.held |= bit
            known.refused &= ~bit

    def refused(
        self, version: bytes, public: bytes, now: float, again_s: float = REFUSED_S
    ) -> None:
        """Note that a contact will not have a version: too far, no room, or it holds a better.

        After `again_s` seconds all that refused this version may be asked again.
        """
        if bit := self._bits.get(public, 0):
            known = self._of(version, now)
            known.held &= ~bit
            first = not known.refused
            known.refused |= bit
            known.again_s = now + again_s if first else min(known.again_s, now + again_s)

    def lacks(self, version: bytes, public: bytes) -> None:
        """Note that a contact showed not to hold it, whatever it said before."""
        known = self._known.get(version)
        if known is not None:
            known.held &= ~self._bits.get(public, 0)

    def holds(self, version: bytes, public: bytes, now: float) -> bool:
        """Tell whether a contact is known to hold a version."""
        known = self._find(version, now)
        return known is not None and bool(known.held & self._bits.get(public, 0))

    def _find(self, version: bytes, now: float) -> _Known | None:
        known = self._known.get(version)
        if known is None:
            return None
        if now - known.since_s >= RECHECK_S:
            del self._known[version]
            return None
        self._known.move_to_end(version)
        if known.refused and now >= known.again_s:
            known.refused = 0
        return known

    def _of(self, version: bytes, now: float) -> _Known:
        known = self._find(version, now)
        if known is None:
            known = self._known[version] = _Known(now)
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        return known

    # --- whose duty it is ------------------------------------------------------------------------

    def to_tell(
        self, table: RoutingTable, target: int, version: bytes, stored_s: float, now: float
    ) -> Sequence[Contact]:
        """Return whom to bring a version to that came here at `stored_s`; nobody, mostly.

        Those of the k closest (this node may be one of them) that are not known to hold it, if
        this node is one of the DUTY nearest holders. Where a bucket is full, the k closest may
        be in its replacement cache: those are told as well.
        """
        close = table.closest(target, K, live=True)
        own = table.own_id ^ target
        nearer = [entry for entry in close if entry.id ^ target < own]
        known = self._find(version, now)
        ahead = 0
        for entry in nearer:
            ahead += self._has(entry, known, stored_s, now)
            if ahead == DUTY:
                return ()
        if len(nearer) < K:
            close = close[: K - 1]
        furthest = close[-1].id ^ target if close else 0
        also = (entry for entry in table.waiting() if entry.id ^ target < furthest)
        return self._unaware(chain(close, also), known)

    def to_leave_it_to(
        self, table: RoutingTable, target: int, version: bytes, now: float
    ) -> Sequence[Contact]:
        """Return whom to bring a version to that is no longer this node's to keep.

        Nobody if one of the nearest is known to hold it; else the nearest that does not refuse it.
        """
        close = table.closest(target, HANDED_ON, live=True)
        known = self._find(version, now)
        if known and any(known.held & self._bits.get(e.contact.public, 0) for e in close):
            return ()
        return self._unaware(close, known)[:1]

    def is_far(self, table: RoutingTable, target: int) -> bool:
        """Tell whether a regular node is so far from a target that others are to keep it."""
        return table.closer_than_self(target) >= K + SLACK

    def _unaware(self, entries: Iterable[Entry], known: _Known | None) -> Sequence[Contact]:
        aware = known.held | known.refused if known else 0
        contacts = [entry.contact for entry in entries]
        return [c for c in contacts if not aware & self._bits.get(c.public, 0)]

    def _has(self, entry: Entry, known: _Known | None, stored_s: float, now: float) -> bool:
        """Tell whether a nearer contact is taken to hold an item, and to see to it."""
        public = entry.contact.public
        bit = self._bits.get(public, 0)
        if known and bit & known.held:
            return True
        if not bit or (known and bit & known.refused):
            return False
        since = self._since[public]
        if since <= max(stored_s, now - self._settled_s):
            return True
        return stored_s < self._born_s and since <= self._born_s + YOUNG_S

    def duties(self, table: RoutingTable, now: float) -> tuple[int, int]:
        """Return the bounds of the range of targets outside of which nothing is this node's duty.

        Where DUTY settled contacts are on the side of a bucket, they are nearer to all of it.
        """
        late = now - self._settled_s
        counted = Counter(
            (entry.id ^ table.own_id).bit_length() - 1
            for entry in table
            if not entry.failures and self._since.get(entry.contact.public, now) <= late
        )
        bits = ID_BITS
        while bits and counted[bits - 1] >= DUTY:
            bits -= 1
        beyond = (1 << bits) - 1
        return table.own_id & ~beyond, table.own_id | beyond

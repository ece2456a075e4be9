"""Lists of transports: a node's own, and everybody's with how many sides each has."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from skycore.model.entries import TransportEntry

__all__ = ["TP", "Seen", "bare", "both_sides", "own_entry", "plain"]

TP: Final = b"tp"
UNKNOWN_MS: Final = 0.0


class Seen(msgspec.Struct, frozen=True):
    """A transport, and which of its edges list it."""

    entry: TransportEntry
    listed_by: frozenset[str]

    @property
    def sides(self) -> int:
        """Return how many of its edges list it: 2 is a transport that is there."""
        return 2 if len(set(self.entry.edges)) == 1 else len(self.listed_by)


def own_entry(own: str, remote: str, t_id: uuid.UUID, kind: str, label: str) -> TransportEntry:
    """Return the entry of one of our transports: edges in order, so both sides write the same."""
    one, other = sorted((own, remote))
    return TransportEntry(t_id, (one, other), kind, label)


def bare(entry: TransportEntry) -> TransportEntry:
    """Return an entry without what changes all the time: latency is never published (L9)."""
    return msgspec.structs.replace(entry, latency=UNKNOWN_MS) if entry.latency else entry


def both_sides(lists: Iterable[tuple[str, Iterable[TransportEntry]]]) -> Mapping[uuid.UUID, Seen]:
    """Return each transport once, by id, from lists of (who lists them, entries).

    An entry that its lister is no edge of does not count. Of two entries with one id and different
    edges or type, the one whose lister comes first in order counts: nobody takes a transport away
    from its edges by naming its id.
    """
    found: dict[uuid.UUID, tuple[TransportEntry, set[str]]] = {}
    for lister, entries in sorted(lists, key=lambda one: one[0]):
        for entry in entries:
            if lister not in entry.edges:
                continue
            held = found.get(entry.t_id)
            if held is None:
                found[entry.t_id] = (entry, {lister})
            elif _same(held[0], entry):
                held[1].add(lister)
    return {t_id: Seen(entry, frozenset(by)) for t_id, (entry, by) in found.items()}


def _same(one: TransportEntry, other: TransportEntry) -> bool:
    return one.type == other.type and set(one.edges) == set(other.edges)


def plain(entry: TransportEntry) -> Any:
    """Return an entry as the HTTP services write it."""
    return msgspec.to_builtins(entry)

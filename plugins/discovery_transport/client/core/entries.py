"""Lists of transports: a node's own, and everybody's with how many sides each has."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from skycore.model.entries import TransportEntry
from skycore.model.packets import transport_id

__all__ = ["TP", "Seen", "both_sides", "is_sound", "own_entry"]

TP: Final = b"tp"


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


def both_sides(lists: Iterable[tuple[str, Iterable[TransportEntry]]]) -> Mapping[uuid.UUID, Seen]:
    """Return each transport once, by id, from lists of (who lists them, sound entries).

    An entry that its lister is no edge of does not count. The word of the smaller key is shown.
    """
    found: dict[uuid.UUID, tuple[TransportEntry, list[str]]] = {}
    for lister, entries in sorted(lists, key=lambda one: one[0]):
        for entry in entries:
            if lister not in entry.edges:
                continue
            held = found.get(entry.t_id)
            if held is None:
                found[entry.t_id] = (entry, [lister])
            elif lister != held[1][0]:
                held[1].append(lister)
    return {t_id: Seen(entry, frozenset(by)) for t_id, (entry, by) in found.items()}


def is_sound(entry: TransportEntry) -> bool:
    """Tell whether an entry's id is that of a transport of its type between its edges.

    Only such entries count: nobody takes a transport away from its edges by naming its id.
    """
    try:
        one, other = (bytes.fromhex(edge) for edge in entry.edges)
    except ValueError:
        return False
    return transport_id(one, other, entry.type) == entry.t_id

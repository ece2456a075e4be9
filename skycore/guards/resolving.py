"""Resolving: who is asked where a key can be dialled, once all that is known leads nowhere.

The rule: a dial looks an address up at most once, only for a caller who did not forbid it, and
those who answer lookups forbid it for their own dials (`Service.looks_up`). So a lookup never leads
to another one. All sources are asked together and for a bounded time (C21): "no address is known"
stays an answer within two seconds, and a source that is slow, down or lying hides no other. What is
found is a hint like any other: forgotten when it fails, and who is there is proven by the handshake
(docs/protocols/discovery.md).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Final, NamedTuple

import anyio
import msgspec

from skycore.contracts.discovery import EntrySource, Record
from skycore.contracts.runtime import Clock
from skycore.discovery.binds import KINDS, addresses_of, listens_nearby
from skycore.discovery.sources import find_all
from skycore.model.addresses import Address
from skycore.model.entries import AddressEntry
from skycore.model.keys import PubKey, short
from skycore.model.limits import HELLO_ADDRESSES_MAX
from skycore.wiring import Live

__all__ = ["Resolved", "Resolver"]

log = logging.getLogger(__name__)
SALT: Final = b"addr"
AT_ONCE: Final = 8
"""Lookups at once: a source that answers one question after the other (a resolver, whose signed
requests are in order) must come to the last of them within the time that each has."""


class Resolved(NamedTuple):
    """What the sources said."""

    addresses: tuple[Address, ...]
    """Those of the record to believe first, then one by one of the others: no source's many
    addresses leave no room for another's."""
    said: str
    """For people, where nothing was found: who could not be asked, or that nobody knows."""


class Resolver:
    """Asks all sources of `addr` records."""

    def __init__(
        self,
        sources: Live[EntrySource],
        clock: Clock,
        counters: Counter[str],
        listening: Callable[[], Iterable[Address]] = tuple,
        *,
        wait_s: float,
    ) -> None:
        """`listening` tells where this node is, and so whom it can be sent to."""
        self._listening = listening
        self._turns = anyio.Semaphore(AT_ONCE)
        self._sources = sources
        self._clock = clock
        self._counters = counters
        self._wait_s = wait_s

    @property
    def has_sources(self) -> bool:
        """Whether there is anybody to ask."""
        return any(s.salts is None or SALT in s.salts for s in self._sources)

    async def look_up(self, remote: PubKey, *, is_urgent: bool = False) -> Resolved:
        """Ask, for `wait_s` at most, once it is this lookup's turn. Raises nothing.

        What a person waits for is urgent, and does not wait for other lookups.
        """
        async with nullcontext() if is_urgent else self._turns:
            self._counters["lookups"] += 1
            found = await find_all(
                tuple(self._sources), SALT, remote, self._clock, wait_s=self._wait_s
            )
        nearby = listens_nearby(self._listening())
        lists = [
            addresses_of(_unlocal(record), nearby=nearby)
            for record in found.records
            if isinstance(record.body, AddressEntry)
        ]
        addresses = _in_turn(lists)
        if addresses:
            self._counters["lookups_found"] += 1
        reasons = [f"{name}: {reason}" for name, reason in found.failed.items()]
        log.debug("looked up pk=%s addresses=%d", short(remote), len(addresses))
        said = "" if addresses else "; ".join(reasons) or "no source lists one"
        return Resolved(addresses, said)


def _unlocal(record: Record) -> AddressEntry:
    """Return a record's body; that it is behind our router is a resolver's word, not its own."""
    entry: AddressEntry = record.body
    if record.signer is None:
        return entry
    binds = {
        kind: msgspec.structs.replace(bind, is_local=False)
        for kind in KINDS
        if (bind := getattr(entry, kind)) is not None
    }
    return msgspec.structs.replace(entry, is_local=False, **binds)


def _in_turn(lists: list[tuple[Address, ...]]) -> tuple[Address, ...]:
    """Return the first of each list, then the second of each, and so on; bounded."""
    longest = max(map(len, lists), default=0)
    rows = (one[place] for place in range(longest) for one in lists if place < len(one))
    return tuple(dict.fromkeys(rows))[:HELLO_ADDRESSES_MAX]

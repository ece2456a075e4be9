"""Registry: what a discovery server keeps: who lists what, until when, and who was seen when.

Why one contract for four services: each keeps lists of entries, by subject; an entry lives as long
as its subject repeats it. Who lists it is the subject alone, so what one edge of a transport says
never keeps the other edge's word alive (L20). A write is one round trip, whatever its size (L7):
the caller's nonce, the entries, their lifetimes and the heartbeat go together or not at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

import msgspec

__all__ = [
    "Beats",
    "Listed",
    "Listing",
    "Registry",
    "RegistryCapacity",
    "RegistryPage",
    "RegistryWrite",
    "RegistryWritten",
]


class Listed(NamedTuple):
    """An entry that a subject lists: unique by its key among those of the subject."""

    key: bytes
    """At most 512 bytes: a transport's id, a service's type and address."""
    body: bytes
    """JSON, byte for byte as it is served; at most 16 KiB."""


class Listing(NamedTuple):
    """All live entries of a subject, by key. None left: it is gone."""

    subject: bytes
    entries: tuple[Listed, ...]


class RegistryWrite(msgspec.Struct, frozen=True, gc=False):
    """What one subject says, or what is said of it: done as a whole or not at all."""

    subject: bytes
    put: tuple[Listed, ...] = ()
    """Entries to list, or to list for longer."""
    remove: tuple[bytes, ...] = ()
    """Keys to list no more."""
    whole: bool = False
    """What the subject lists and `put` does not name goes, unless it is known since after `stamp`:
    the word of a slower channel never removes what a faster one said later."""
    lifetime_s: float = 300.0
    """Entries of `put` live until now + this; never shorter than they do already."""
    prolong: bool = False
    """All live entries of the subject live until now + `lifetime_s`, too."""
    stamp: int = 0
    """When this was known, any counter that grows; an entry that is held with a higher stamp stays
    as it is (its life is prolonged all the same), and is not removed. 0: now, Unix nanoseconds, or
    the subject's highest stamp, if that is later: now is after all that is known."""
    must_rise: bool = False
    """Refuse the whole write unless `stamp` is higher than that of every live entry it names."""
    nonce: int | None = None
    """The subject's next nonce in this table, which the write uses up; None: not asked for."""
    beat: bool = False
    """Count the subject as seen now."""


class RegistryWritten(msgspec.Struct, frozen=True, gc=False):
    """What became of a write."""

    error: str = ""
    """Empty; "nonce": it is not the next one; "stamp": `must_rise` and it does not. Then nothing
    of this write was done, and the other writes of the batch were."""
    next_nonce: int = 0
    """The subject's next one, where a nonce was given."""
    stamp: int = 0
    """With "stamp": the highest that is held."""
    changed: bool = False
    """Something was added, altered or removed; else lives were prolonged, at most."""
    listing: Listing | None = None
    """What the subject lists now; None where nothing changed."""
    removed: tuple[bytes, ...] = ()
    """Which keys of `remove` were there."""


class RegistryCapacity(NamedTuple):
    """How much one table may hold: beyond it writes raise `StoreFullError`."""

    subjects: int
    size: int
    """Bytes of keys and bodies."""


class RegistryPage(NamedTuple):
    """Subjects whose lists changed, as they are now, in order of their last change."""

    listings: tuple[Listing, ...]
    cursor: bytes
    """Ask with this next time."""
    has_more: bool


class Beats(NamedTuple):
    """How much of a day a subject was seen."""

    slots: int
    """Of the day's 288 spans of five minutes, in how many."""
    last_s: int
    """When last, Unix seconds."""


class Registry(Protocol):
    """Keep tables of listings durably. Raises `StoreError` where the backend fails.

    A table is a short name, such as "transport-discovery". Time is the node's clock, which the
    registry is made with; several servers may share one registry (then `watch` tells of the
    others' writes). The suite to pass is `skycore.testing.contracts.RegistryContract`.
    """

    async def write(self, table: str, writes: Sequence[RegistryWrite]) -> Sequence[RegistryWritten]:
        """Do writes, each as a whole, in order; one result each; one round trip for all.

        Raises `StoreFullError` for what is beyond a bound of the settings; then nothing of the
        batch was done.
        """
        ...

    async def next_nonce(self, table: str, subject: bytes) -> int:
        """Return the nonce that the subject's next write must have; reading it changes nothing."""
        ...

    async def changes(self, table: str, after: bytes | None, limit: int) -> RegistryPage:
        """Return the listings that changed after a cursor; None: all live ones, from the start.

        A subject that is gone is told with an empty listing for at least an hour. Prolonging is no
        change. Raises `CursorInvalidError` for a foreign, future or too old cursor: start again.
        """
        ...

    async def sweep(self, table: str, limit: int) -> int:
        """End entries whose life is over, oldest first, and count them; that is a change."""
        ...

    async def beats(self, table: str, day: str) -> Mapping[bytes, Beats]:
        """Return who was seen on a day ("2026-04-21", UTC). Days are kept for eight days."""
        ...

    def watch(self, table: str) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Learn of changes: yields once for all since the last time, less than 2 s after them."""
        ...

    @property
    def capacity(self) -> RegistryCapacity:
        """What the settings let a table hold: who fills one from elsewhere leaves room by it."""
        ...

    @property
    def round_trips(self) -> int:
        """How often the backend was asked since the start: what L7 counts."""
        ...

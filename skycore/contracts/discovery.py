"""Discovery: who can say what is published about a key, or about the whole network.

Why a contract of its own: the DHT, a Redis and an HTTP service all know records. Whoever reads asks
all of them together and judges by freshness and proof; one that is slow, wrong or down never hides
what another knows (C21).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, runtime_checkable

import msgspec

__all__ = ["EntrySource", "FollowedSource", "Record", "Records"]


class Record(msgspec.Struct, frozen=True):
    """What a source knows of a subject under a salt."""

    salt: bytes
    subject: bytes
    body: Any
    """As the salt's namespace decodes it: an entry, or a tuple of entries. None: deleted."""
    as_of_ns: int
    """When it was said: the item's seq, or when an HTTP server answered. Unix nanoseconds."""
    until_s: int
    """Until when it holds, Unix seconds."""
    source: str
    signer: bytes | None = None
    """Whose verified signature it stands under; None: an HTTP server says so, without proof."""


class Records(msgspec.Struct, frozen=True):
    """All that a source knows under a salt, and how much that is."""

    records: tuple[Record, ...]
    source: str
    as_of_ns: int
    """When this was the whole truth: the last completed sync, or the answer's time."""
    complete: bool
    """Whether it is everything. What is not complete is shown as partial, never as all (L18)."""
    note: str = ""
    """Why not, for people."""


class EntrySource(Protocol):
    """Somebody who can look up records. `name` is one word: "dht", "redis", "http"."""

    name: str
    salts: frozenset[bytes] | None
    """What it knows of; None: any salt."""
    is_local: bool
    """Whether it answers without asking the network."""

    async def find(self, salt: bytes, subject: bytes) -> Record | None:
        """Return what is known of a subject, by one lookup; a deleted record has no body.

        Raises `DiscoveryError` (or another SkycoreError) where it cannot be asked: not knowing is
        not the same as knowing that there is nothing, which is None.
        """
        ...

    async def records(self, salt: bytes) -> Records:
        """Return all live records of a salt; deleted ones are left out. Raises as `find`."""
        ...


@runtime_checkable
class FollowedSource(EntrySource, Protocol):
    """A source that tells what changes, verified: discovery servers take records over from it."""

    def follow(self, salt: bytes) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Record]]]:
        """Yield all records of a salt that their own subjects signed, then each as it changes.

        A record whose lease was prolonged is a change (its `until_s` grew); a deleted one has no
        body; one that merely ran out is not told. Batches hold at most 1,024. Raises a SkycoreError
        where the source cannot be read any more: begin again, the first batches repeat what holds.
        """
        ...

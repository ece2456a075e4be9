"""Fleet: the whole network's transports as the list routes tell them, kept by what changed.

Why not made for each request: upstream's list, read anew for every poll, took most of its time
(L10, L25). Here a change costs the transports that it names, an unchanged poll costs a comparison
of tags, and a list is put together once for each state of the network. The tag is a sum of hashes
of what is told, so several servers, and one before and after a restart, tag one state alike.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

import anyio
import msgspec

from discovery_transport.server.told import entry_in
from skycore.contracts.registry import Listing
from skycore.contracts.runtime import Workers
from skycore.discovery.directory import Directory, DirectoryChanges

__all__ = ["ALL", "NO_SELF", "PER_KEY", "SIDES", "STATS", "Fleet", "Row", "Whole"]

ALL: Final = "all"
NO_SELF: Final = "noself"
"""Without transports between a key and itself."""
SIDES: Final = "sides"
"""With fields `one_sided` and `listed_by` in entries that one of their edges alone lists."""
STATS: Final = "stats"
PER_KEY: Final = "keys"
_TAG_MOD: Final = 2**192
_GZIP_LEVEL: Final = 4
ORDERED_ONE_BY_ONE_MAX: Final = 2_000
"""Changes at once from which sorting anew is cheaper."""


class Row(NamedTuple):
    """A transport, as it is told."""

    body: bytes
    edges: tuple[str, str]
    type: str
    one_sided: bool
    """One of its edges alone lists it."""
    lister: str
    """Who lists it; of two the smaller key."""
    sum: int
    """Its part of the tag of lists that tell bodies."""
    said_sum: int
    """Its part of the tag of those that also tell who lists them."""

    @property
    def marked(self) -> bytes:
        """The body, of a one-sided transport with that mark and who lists it."""
        if not self.one_sided:
            return self.body
        return self.body[:-1] + b',"one_sided":true,"listed_by":"%s"}' % self.lister.encode()


class Whole(NamedTuple):
    """A whole list. Tags are quoted."""

    tag: bytes
    body: bytes


class Fleet:
    """The rows of a directory's transports, in step with it whenever it is asked."""

    def __init__(self, directory: Directory, changes: DirectoryChanges, workers: Workers) -> None:
        self._directory = directory
        self._changes = changes
        self._workers = workers
        self._rows: dict[bytes, Row] = {}
        self._said: dict[bytes, dict[bytes, bytes]] = {}
        """Bodies by id, by who lists them."""
        self._order: list[bytes] | None = None
        self._sum = 0
        self._said_sum = 0
        self._version = -1
        self._lists: dict[str, Whole] = {}
        self._packed: dict[str, Whole] = {}
        self._packing = anyio.Lock()
        self._one_sided = 0
        self._types: Counter[str] = Counter()
        self._counts: dict[bytes, bytes] = {}
        """By subject: its part of PER_KEY, until it lists something else."""
        self.built = 0
        """How many lists were put together."""

    def __len__(self) -> int:
        """Return how many transports there are."""
        self._refresh()
        return len(self._rows)

    @property
    def one_sided(self) -> int:
        """How many are listed by one of their edges alone."""
        self._refresh()
        return self._one_sided

    # --- one transport, one key -----------------------------------------------------------------

    def row(self, key: bytes) -> Row | None:
        """Return a transport by its id's bytes."""
        self._refresh()
        return self._rows.get(key)

    def stats_of(self, subject: bytes) -> Mapping[str, int]:
        """Return how many transports of each type a key lists; empty for a key that lists none."""
        self._refresh()
        said = self._said.get(subject, ())
        types = Counter(self._rows[key].type for key in said if key in self._rows)
        return dict(sorted(types.items()))

    def said_by(self, subject: bytes) -> Mapping[bytes, bytes]:
        """Return what a key lists: bodies by id."""
        self._refresh()
        return self._said.get(subject, {})

    # --- lists ----------------------------------------------------------------------------------

    def tag(self, kind: str) -> bytes:
        """Return the tag of a list as it is now, without making it."""
        self._refresh()
        total = self._sum if kind in (ALL, NO_SELF) else self._said_sum
        return b'"%s-%x-%x"' % (kind.encode(), len(self._rows), total)

    def whole(self, kind: str) -> Whole:
        """Return a list; it is put together once for each state."""
        tag = self.tag(kind)
        found = self._lists.get(kind)
        if found is None or found.tag != tag:
            found = self._lists[kind] = Whole(tag, self._build(kind))
            self.built += 1
        return found

    async def packed(self, kind: str) -> Whole:
        """Return a list in gzip; it is packed once for each state, in a thread."""
        async with self._packing:
            whole = self.whole(kind)
            found = self._packed.get(kind)
            if found is None or found.tag != whole.tag:
                body = await self._workers.run(lambda: _gzip(whole.body))
                found = self._packed[kind] = Whole(whole.tag, body)
            return found

    def _build(self, kind: str) -> bytes:
        if kind == STATS:
            return self._stats()
        if kind == PER_KEY:
            return b"{" + b",".join(map(self._counts_of, sorted(self._said))) + b"}"
        rows = [self._rows[key] for key in self._ordered()]
        if kind == NO_SELF:
            rows = [row for row in rows if row.edges[0] != row.edges[1]]
        bodies: Iterable[bytes] = (row.marked if kind == SIDES else row.body for row in rows)
        return b"[" + b",".join(bodies) + b"]"

    def _counts_of(self, subject: bytes) -> bytes:
        found = self._counts.get(subject)
        if found is None:
            by_type = self.stats_of(subject)
            counts = msgspec.json.encode({"total": sum(by_type.values()), **by_type})
            found = self._counts[subject] = b'"%s":%s' % (subject.hex().encode(), counts)
        return found

    def _stats(self) -> bytes:
        told = {
            "total_transports": len(self._rows),
            "by_type": dict(sorted(self._types.items())),
            "unique_visors": len(self._said),
            "one_sided": self._one_sided,
        }
        return msgspec.json.encode(told)

    # --- being in step --------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Take over what changed in the directory since the last time."""
        if self._version == self._directory.version:
            return
        self._version = self._directory.version
        touched: set[bytes] = set()
        for subject in self._changes.take_now():
            touched |= self._note(self._directory.of(subject))
        if len(touched) > ORDERED_ONE_BY_ONE_MAX:
            self._order = None
        for key in touched:
            self._settle(key)

    def _ordered(self) -> Sequence[bytes]:
        """Return all ids in order; kept in order, because few change between two lists."""
        if self._order is None:
            self._order = sorted(self._rows)
        return self._order

    def _reorder(self, key: bytes, *, is_new: bool) -> None:
        if self._order is None:
            return
        at = bisect_left(self._order, key)
        if is_new:
            self._order.insert(at, key)
        else:
            del self._order[at]

    def _note(self, listing: Listing) -> set[bytes]:
        """Take what a subject lists now; return the ids of transports that this may alter."""
        before = self._said.pop(listing.subject, {})
        self._counts.pop(listing.subject, None)
        after = {entry.key: entry.body for entry in listing.entries}
        if after:
            self._said[listing.subject] = after
        return {key for key, _ in before.items() ^ after.items()}

    def _settle(self, key: bytes) -> None:
        """Make a transport's row anew."""
        old = self._rows.pop(key, None)
        new = self._make(key)
        for row, sign in ((old, -1), (new, 1)):
            if row is not None:
                self._sum = (self._sum + sign * row.sum) % _TAG_MOD
                self._said_sum = (self._said_sum + sign * row.said_sum) % _TAG_MOD
                self._one_sided += sign * row.one_sided
                self._types[row.type] += sign
                if not self._types[row.type]:
                    del self._types[row.type]
        if new is not None:
            self._rows[key] = new
        if (old is None) != (new is None):
            self._reorder(key, is_new=old is None)

    def _make(self, key: bytes) -> Row | None:
        listers = self._directory.having(key)
        # Where both edges list it, the word of the smaller one: all servers choose alike.
        told = (self._said[lister][key] for lister in listers)
        body, entry = next(((b, e) for b in told if (e := entry_in(b))), (b"", None))
        if entry is None:
            return None
        one_sided = len(listers) < len(set(entry.edges))
        said_sum = _digest(body + b"".join(listers))
        lister = listers[0].hex()
        return Row(body, entry.edges, entry.type, one_sided, lister, _digest(body), said_sum)


def _digest(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=24).digest(), "big")


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()

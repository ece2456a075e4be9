"""The DHT as the rest of the node sees it, and mirrors: where entries must also be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import NamedTuple, Protocol, runtime_checkable

import msgspec

from skycore.contracts.store import PutOutcome
from skycore.model.items import Lease, MutableItem, StoredItem
from skycore.model.keys import PubKey

__all__ = [
    "CopyingMirror",
    "Dht",
    "DhtMode",
    "Difference",
    "Mirror",
    "PeerInfo",
    "PutEnded",
    "PutReport",
    "ReconcileReport",
    "RecordServed",
    "RenewingMirror",
    "Replica",
    "SyncReport",
]


class DhtMode(Enum):
    """Full nodes keep every item, regular ones those near their id."""

    FULL = "full"
    REGULAR = "regular"


class Replica(msgspec.Struct, frozen=True, gc=False):
    """What one node answered to a put."""

    peer: bytes
    code: int
    seq: int = 0
    text: str = ""


class PutReport(msgspec.Struct, frozen=True, gc=False):
    """The truth about a put: who stored it, who refused and why, who holds something newer."""

    outcome: PutOutcome
    """Our own store's."""
    replicas: tuple[Replica, ...] = ()

    @property
    def stored(self) -> int:
        """How many nodes hold it now, ours included."""
        return sum(r.code <= 2 for r in self.replicas) + self.outcome.accepted


class SyncReport(msgspec.Struct, frozen=True, gc=False):
    """What a bulk sync did. Counts equal the store's change exactly."""

    peer: bytes
    received: int
    stored: int
    renewed: int
    held: int
    refused: int
    pages: int
    bytes: int
    complete: bool
    """Whether the last page was reached; else a later sync goes on from the cursor."""
    reasons: tuple[str, ...] = ()
    """The first few reasons for refusals."""


class Difference(msgspec.Struct, frozen=True, gc=False):
    """One slot that two nodes hold differently. A seq of 0 is: not held."""

    target: bytes
    item_class: int
    seq_here: int
    seq_there: int
    salt: bytes = b""
    subject: bytes = b""


class ReconcileReport(msgspec.Struct, frozen=True, gc=False):
    """What comparing with another node found, and repaired."""

    peer: bytes
    different: int
    """Slots that differed in item or lease; 0 means that both held the same."""
    pulled: int
    pushed: int
    renewed: int
    """Leases, both ways."""
    refused: int
    rounds: int
    bytes: int
    complete: bool
    differences: tuple[Difference, ...] = ()
    """The first thousand."""
    reasons: tuple[str, ...] = ()


class PeerInfo(msgspec.Struct, frozen=True, gc=False):
    """A contact of the routing table, for people."""

    public: bytes
    addresses: tuple[str, ...]
    bucket: int
    last_seen_s: float
    """Seconds ago."""
    failures: int
    connected: bool


class RecordServed(NamedTuple):
    """An event: a read was answered with a record."""

    age_s: float
    """How long ago this copy was known to be the newest; 0: fresh from the network."""


class PutEnded(NamedTuple):
    """An event: a put came to its end."""

    replicas: int
    """Nodes that hold the item now, ours included."""


class Dht(Protocol):
    """Find, put and sync signed items. Verified before anything is believed."""

    @property
    def mode(self) -> DhtMode:
        """What this node keeps now."""
        ...

    async def set_mode(self, mode: DhtMode) -> None:
        """Become a full node, or a regular one, until the next start. Idempotent."""
        ...

    @property
    def peer_count(self) -> int:
        """Contacts in the routing table."""
        ...

    async def get(
        self, subject: bytes, salt: bytes, *, age_max_s: float | None = None, local: bool = False
    ) -> StoredItem | None:
        """Return the best live item: highest class, then rank. None for a miss.

        A tombstone is returned as the item it is: deleted is not a miss.
        """
        ...

    async def put(
        self,
        item: MutableItem,
        *,
        cas: int | None = None,
        blocks: Mapping[bytes, bytes] | None = None,
    ) -> PutReport:
        """Store here if near (or full), and at the closest nodes, in parallel."""
        ...

    async def put_many(
        self,
        items: Sequence[MutableItem],
        progress: Callable[[int], None] | None = None,
        *,
        blocks: Mapping[bytes, bytes] | None = None,
    ) -> Sequence[PutReport]:
        """Put a batch, grouped by node; `progress` is told how many are done."""
        ...

    async def sync(
        self,
        peer: PubKey | None = None,
        salt: bytes | None = None,
        progress: Callable[[int, bool], None] | None = None,
    ) -> SyncReport:
        """Pull what changed at a full node (default: the first bootstrap peer that answers)."""
        ...

    async def find_full_nodes(self) -> Sequence[PubKey]:
        """Return the full nodes that advertise themselves, verified and fresh; ours included."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether this node is a full node that has had, since its start, all there is."""
        ...

    @property
    def lag_s(self) -> float | None:
        """How long ago the last of the others said what is new; 0 for the only full node.

        None where this node is not complete: then what it holds is not all there is.
        """
        ...

    async def ask(self, peer: PubKey, subject: bytes, salt: bytes) -> Sequence[StoredItem]:
        """Return the live items that exactly this peer holds, highest class first.

        Verified, and not put together where the value stands in blocks. Empty: it holds none.
        Raises `TransportError` where it cannot be reached, `ProtocolError` for an answer that is
        none or that holds what no honest node would hold.
        """
        ...

    async def reconcile(
        self, peer: PubKey, salt: bytes | None = None, *, dry_run: bool = False
    ) -> ReconcileReport:
        """Compare with another node by fingerprints, and repair both sides in what differs.

        `dry_run` only compares. Raises `TransportError` where the peer cannot be reached.
        """
        ...

    def watch(
        self, salt: bytes | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[StoredItem]]:
        """Keep a salt (None: all) in step with a full node, and yield what changes here meanwhile.

        A reader that falls behind misses nothing: it gets the newest version of each record.
        """
        ...

    def peers(self) -> Sequence[PeerInfo]:
        """Return the routing table."""
        ...


class Mirror(Protocol):
    """Somewhere my entries must also be. A DHT put and a write into Redis are both mirrors."""

    name: str

    async def mirror(
        self,
        items: Sequence[MutableItem],
        *,
        cas: int | None = None,
        progress: Callable[[int], None] | None = None,
        blocks: Mapping[bytes, bytes] | None = None,
    ) -> Sequence[PutReport]:
        """Bring items there; one report each, in order. `blocks` are those of their manifests."""
        ...


@runtime_checkable
class RenewingMirror(Mirror, Protocol):
    """A mirror that can also prolong what it holds, without the item being sent or signed again.

    The publisher asks a mirror that cannot with a newly signed item instead.
    """

    async def renew(self, leases: Sequence[Lease]) -> Sequence[PutReport]:
        """Bring leases there; one report each, in order. NOT_HELD asks for the item."""
        ...


@runtime_checkable
class CopyingMirror(Mirror, Protocol):
    """A mirror behind which this node's own store may lag for a moment."""

    async def copied(self) -> None:
        """Return once our own store has all that this mirror took. Raises `StoreError`."""
        ...

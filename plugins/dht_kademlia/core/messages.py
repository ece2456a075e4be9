"""What crosses the wire between two nodes of the DHT: values only, no encoding.

Why apart from the codec: the same engine must be able to speak another dialect (other bytes, the
same words), so nothing here knows MessagePack. Structs grow at the end only: an older reader skips
what it does not know, a newer one fills in the default (docs/protocols/dht.md, rows of C51).
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from skycore.model.addresses import Contact
from skycore.model.items import Lease, MutableItem
from skycore.model.limits import (
    BLOCKS_ASKED_MAX,
    CONTACTS_MAX,
    PAGE_ITEMS_MAX,
    RANGE_ITEMS_MAX,
    RANGE_PARTS,
    RANGES_MAX,
    WANTED_MAX,
)
from skycore.model.numbers import DhtMethod

__all__ = [
    "BATCH_ITEMS_MAX",
    "BLOCKS_IN_REPLY_MAX",
    "FEATURES",
    "REPLIES",
    "REPLY_MAX",
    "REQUESTS",
    "VERSION",
    "WATCH_BEAT_S",
    "Batch",
    "Blocks",
    "ErrorCode",
    "ErrorReply",
    "FindNode",
    "GetBlocks",
    "GetItems",
    "GetValue",
    "Held",
    "ItemLease",
    "Message",
    "Nodes",
    "Outcomes",
    "Page",
    "Ping",
    "Pong",
    "PutValue",
    "Range",
    "RangeReply",
    "Ranges",
    "Reconcile",
    "Stored",
    "Value",
    "Watch",
    "known_rank",
    "lease_of",
]

VERSION: Final = 1
FEATURES: Final = ("values", "items", "batch", "blocks", "reconcile", "watch")
BATCH_ITEMS_MAX: Final = 1_024
BLOCKS_IN_REPLY_MAX: Final = 65_536
"""A block may be small; their bytes are bounded by BLOCKS_BYTES_MAX."""
WATCH_BEAT_S: Final = 20.0
"""A watch is silent for no longer; without it the reader asks somebody else."""


class ErrorCode:
    """Codes of an error reply that are no ItemError's. 201 to 204 are BEP 5's."""

    GENERIC = 201
    SERVER = 202
    PROTOCOL = 203
    METHOD_UNKNOWN = 204
    CURSOR_INVALID = 406
    NO_ANSWER = 408
    """Never on the wire: what a report says of a node that did not answer."""
    BUSY = 429


class _Wire(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The base: an array of fields, in order."""


class ErrorReply(_Wire, frozen=True, gc=False):
    """Method 0: why there is no answer."""

    code: int
    text: str = ""


class Ping(_Wire, frozen=True, gc=False):
    """Are you there, and what can you do?"""

    version: int = VERSION
    features: tuple[str, ...] = FEATURES


class Pong(_Wire, frozen=True, gc=False):
    """Here I am."""

    version: int
    features: tuple[str, ...]
    mode: str
    """"full" or "regular"."""
    items: int = 0


class FindNode(_Wire, frozen=True, gc=False):
    """Whom do you know near this target?"""

    target: bytes


class Nodes(_Wire, frozen=True, gc=False):
    """The closest contacts that answered lately."""

    contacts: Annotated[tuple[Contact, ...], Meta(max_length=CONTACTS_MAX)]


class GetValue(_Wire, frozen=True, gc=False):
    """What do you hold there that is better than `known` (class u8 ‖ rank, or empty)?"""

    target: bytes
    known: bytes = b""
    blocks_bytes_max: int = 0
    """How many bytes of a manifest's blocks the reply may carry, parents first."""


class ItemLease(_Wire, frozen=True, gc=False):
    """A lease that belongs to the item at `index` of the same message."""

    index: int
    lease: Lease


class Value(_Wire, frozen=True, gc=False):
    """What is held, better than what was known; and whom to ask further."""

    items: Annotated[tuple[MutableItem, ...], Meta(max_length=3)]
    contacts: Annotated[tuple[Contact, ...], Meta(max_length=CONTACTS_MAX)]
    held: bool = False
    """I hold exactly what you know."""
    leases: Annotated[tuple[ItemLease, ...], Meta(max_length=3)] = ()
    blocks: tuple[bytes, ...] = ()


class PutValue(_Wire, frozen=True, gc=False):
    """Keep this item; or, without an item, let the one you hold live longer."""

    item: MutableItem | None
    cas: int | None = None
    blocks: tuple[bytes, ...] = ()
    lease: Lease | None = None


class Stored(_Wire, frozen=True, gc=False):
    """What became of a put: an Outcome or an ItemError's code."""

    code: int
    seq: int = 0
    text: str = ""
    missing: tuple[bytes, ...] = ()


class GetItems(_Wire, frozen=True, gc=False):
    """What changed at you after `cursor` (empty: from the start)?"""

    salt: bytes | None
    subject: bytes | None
    since_seq: int
    cursor: bytes
    limit: int
    bytes_max: int


class Page(_Wire, frozen=True, gc=False):
    """A stretch of the change log. An entry that changed by its lease alone is only in `leases`."""

    items: Annotated[tuple[MutableItem, ...], Meta(max_length=PAGE_ITEMS_MAX)]
    leases: Annotated[tuple[Lease, ...], Meta(max_length=PAGE_ITEMS_MAX)]
    has_more: bool
    cursor: bytes
    item_leases: Annotated[tuple[ItemLease, ...], Meta(max_length=PAGE_ITEMS_MAX)] = ()
    """Leases of the items above: an item whose own end is past lives by its lease."""


class Batch(_Wire, frozen=True, gc=False):
    """Many puts in one frame."""

    puts: Annotated[tuple[PutValue, ...], Meta(max_length=BATCH_ITEMS_MAX)]


class Outcomes(_Wire, frozen=True, gc=False):
    """One outcome each, in order."""

    outcomes: Annotated[tuple[Stored, ...], Meta(max_length=BATCH_ITEMS_MAX)]


class GetBlocks(_Wire, frozen=True, gc=False):
    """Send me these blocks; `deep`: and then what they lead to, as far as it fits."""

    hashes: Annotated[tuple[bytes, ...], Meta(max_length=BLOCKS_ASKED_MAX)]
    deep: bool = False


class Blocks(_Wire, frozen=True, gc=False):
    """What of it is here, in the order asked; whoever asks hashes them himself."""

    blocks: Annotated[tuple[bytes, ...], Meta(max_length=BLOCKS_IN_REPLY_MAX)]


class Range(_Wire, frozen=True, gc=False):
    """What I hold between two targets, both included, in brief."""

    low: bytes
    high: bytes
    items: int
    fingerprint: bytes
    """32 bytes: sum mod 2^256 of SHA256(target ‖ class ‖ rank ‖ until)."""


class Reconcile(_Wire, frozen=True, gc=False):
    """Where do we differ? And send me what you hold at `wanted`."""

    salt: bytes | None
    ranges: Annotated[tuple[Range, ...], Meta(max_length=RANGES_MAX)]
    wanted: Annotated[tuple[bytes, ...], Meta(max_length=WANTED_MAX)] = ()
    leases_of: Annotated[tuple[bytes, ...], Meta(max_length=WANTED_MAX)] = ()
    """Targets of which the lease alone is wanted: the same item is held, with a shorter life."""


class Held(_Wire, frozen=True, gc=False):
    """A slot that I hold."""

    target: bytes
    item_class: int
    rank: bytes
    until: int


class RangeReply(_Wire, frozen=True, gc=False):
    """About the asked range at `index`: its parts in order, or all that is held in it.

    A range that is equal is left out of the reply.
    """

    index: int
    parts: Annotated[tuple[tuple[int, bytes], ...], Meta(max_length=RANGE_PARTS)] = ()
    """Items and fingerprint of each 16th of it."""
    held: Annotated[tuple[Held, ...], Meta(max_length=RANGE_ITEMS_MAX)] = ()


class Ranges(_Wire, frozen=True, gc=False):
    """Where we differ, and what was wanted as far as it fits: ask again for the rest."""

    ranges: Annotated[tuple[RangeReply, ...], Meta(max_length=RANGES_MAX)]
    items: Annotated[tuple[MutableItem, ...], Meta(max_length=3 * WANTED_MAX)] = ()
    item_leases: Annotated[tuple[ItemLease, ...], Meta(max_length=3 * WANTED_MAX)] = ()
    served: int = 0
    """How many of `wanted`, from the first on, the items answer."""
    leases: Annotated[tuple[Lease, ...], Meta(max_length=3 * WANTED_MAX)] = ()
    """Those of `leases_of`, all that there are."""


class Watch(_Wire, frozen=True, gc=False):
    """Tell me what changes from `cursor` on (empty: from now on), in Pages, until I hang up.

    The first page comes at once; one without entries says every WATCH_BEAT_S that all is well.
    """

    salt: bytes | None
    cursor: bytes = b""


Message = (
    ErrorReply
    | Ping
    | Pong
    | FindNode
    | Nodes
    | GetValue
    | Value
    | PutValue
    | Stored
    | GetItems
    | Page
    | Batch
    | Outcomes
    | GetBlocks
    | Blocks
    | Reconcile
    | Ranges
    | Watch
)

REQUESTS: Final[dict[int, type[Message]]] = {
    DhtMethod.PING: Ping,
    DhtMethod.FIND_NODE: FindNode,
    DhtMethod.GET_VALUE: GetValue,
    DhtMethod.PUT_VALUE: PutValue,
    DhtMethod.GET_ITEMS: GetItems,
    DhtMethod.PUT_BATCH: Batch,
    DhtMethod.GET_BLOCKS: GetBlocks,
    DhtMethod.RECONCILE: Reconcile,
    DhtMethod.WATCH: Watch,
}
REPLIES: Final[dict[int, type[Message]]] = {
    DhtMethod.ERROR: ErrorReply,
    DhtMethod.PING: Pong,
    DhtMethod.FIND_NODE: Nodes,
    DhtMethod.GET_VALUE: Value,
    DhtMethod.PUT_VALUE: Stored,
    DhtMethod.GET_ITEMS: Page,
    DhtMethod.PUT_BATCH: Outcomes,
    DhtMethod.GET_BLOCKS: Blocks,
    DhtMethod.RECONCILE: Ranges,
    DhtMethod.WATCH: Page,
}
REPLY_MAX: Final[dict[int, int]] = {
    DhtMethod.PING: 16_384,
    DhtMethod.FIND_NODE: 65_536,
    DhtMethod.GET_VALUE: 4 * 1024 * 1024,
    DhtMethod.PUT_VALUE: 65_536,
    DhtMethod.GET_ITEMS: 4 * 1024 * 1024,
    DhtMethod.PUT_BATCH: 1024 * 1024,
    DhtMethod.GET_BLOCKS: 4 * 1024 * 1024,
    DhtMethod.RECONCILE: 4 * 1024 * 1024,
    DhtMethod.WATCH: 4 * 1024 * 1024,
}
"""Largest reply that a caller reads, bytes: what a lying peer can make us hold."""


def lease_of(leases: tuple[ItemLease, ...], count: int) -> list[Lease | None]:
    """Return for each of `count` items the lease that came with it."""
    by_item: list[Lease | None] = [None] * count
    for entry in leases:
        if 0 <= entry.index < count:
            by_item[entry.index] = entry.lease
    return by_item


def known_rank(item_class: int, rank: bytes) -> bytes:
    """Return class ‖ rank: compared bytewise, the larger is the better item of a target."""
    return bytes((item_class,)) + rank

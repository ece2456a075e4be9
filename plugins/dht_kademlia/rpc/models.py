"""Parameters and results of the DHT's RPC methods: plain JSON; seq as text, keys as hex.

Why seq as text: a JSON number is exact up to 2^53 only, and a seq is nanoseconds (C52).
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from skycore.jsonrpc.facts import HexKey, SaltText
from skycore.model.limits import RPC_FRAME_MAX

__all__ = [
    "BadItem",
    "DeleteParams",
    "GetParams",
    "GetResult",
    "HexKey",
    "HistoryParams",
    "HistoryResult",
    "ItemView",
    "ListParams",
    "ListResult",
    "NoParams",
    "PeerView",
    "PeersResult",
    "PutParams",
    "PutResult",
    "ReplicaView",
    "SaltText",
    "StatusResult",
    "SyncParams",
    "SyncResult",
    "ValueParams",
    "ValueResult",
]

Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
SeqText = Annotated[str, Meta(max_length=19, pattern="^[0-9]*$")]
LIST_MAX = 1_000
VERSIONS_MAX = 64


class NoParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing."""


class GetParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which record; the subject defaults to this node's own key."""

    salt: SaltText
    subject: HexKey = ""
    age_max_s: float | None = None
    local: bool = False


class ItemView(msgspec.Struct, frozen=True):
    """An item for people: who signed it, by what right, until when, and via whom it came."""

    target: str
    subject: str
    salt: str
    signer: str
    item_class: str
    kind: str
    seq: str
    until: int
    """Unix second at which it ends."""
    stored_at: float
    """Unix seconds at which this node stored, or read, it."""
    via: str
    value_hex: str
    """The signed bytes: of a value in blocks, its manifest."""
    value: Any = None
    """As its namespace reads it, else as text, else nothing. Not that of a value in blocks."""
    digest: str = ""
    """Names this version, for dht.value: SHA256 of the signed bytes, hex."""
    size: int = 0
    """Bytes of the whole value."""
    entries: int | None = None
    """Of a set: how many."""
    in_blocks: bool = False
    """The value is read with dht.value, piece by piece."""
    declared: bool = False
    """A namespace says what the value is: MessagePack [version, body]."""
    issuer: str = ""
    """Who delegated the right to sign: the subject, or the network's authority. Else empty."""
    issued_until: int = 0
    """Unix second at which that right ends."""
    leased: bool = False
    """`until` is that of a lease; the item itself ended, or ends, earlier."""
    age_s: float = 0.0
    """For how long this node has had it."""


class GetResult(msgspec.Struct, frozen=True):
    """Found, deleted, or neither."""

    found: bool
    deleted: bool
    item: ItemView | None = None


class ValueParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A piece of one version's whole value; `digest` is the one that its view names."""

    salt: SaltText
    digest: Digest
    subject: HexKey = ""
    offset: Annotated[int, Meta(ge=0)] = 0


class ValueResult(msgspec.Struct, frozen=True):
    """Bytes from `offset` on; the value is whole once `total` of them are together."""

    piece: bytes
    """In base64."""
    total: int


class HistoryParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which record's versions, as far as this node still holds them."""

    salt: SaltText
    subject: HexKey = ""
    limit: Annotated[int, Meta(ge=1, le=VERSIONS_MAX)] = VERSIONS_MAX
    at: SeqText = ""
    """A seq, or Unix nanoseconds: only the version that was valid then, with its value."""


class HistoryResult(msgspec.Struct, frozen=True):
    """Versions, the current ones first, then the newest arrivals first."""

    versions: list[ItemView]


class PutParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to publish: exactly one of text, hex and json."""

    salt: SaltText
    subject: HexKey = ""
    text: Annotated[str, Meta(max_length=RPC_FRAME_MAX)] | None = None
    hex: Annotated[str, Meta(max_length=RPC_FRAME_MAX)] | None = None
    json: Any = msgspec.UNSET
    cas: str | None = None
    """Expected current seq, 0 for none."""


class DeleteParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which record of ours to delete."""

    salt: SaltText
    subject: HexKey = ""
    cas: str | None = None


class ReplicaView(msgspec.Struct, frozen=True):
    """What one node said."""

    peer: str
    code: int
    seq: str
    text: str


class PutResult(msgspec.Struct, frozen=True):
    """What became of it, node by node."""

    seq: str
    unchanged: bool
    stored: int
    """How many nodes hold it now, over all mirrors."""
    replicas: list[ReplicaView]
    own: list[ReplicaView]
    """What this node's own store said, for each mirror."""


class ListParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page of what this node holds, by target; go on with `after` = the last page's `next`."""

    salt: SaltText | None = None
    after: Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")] = ""
    limit: Annotated[int, Meta(ge=1, le=LIST_MAX)] = 100
    """At most so many, or as fit a frame; a page may be empty while `next` is not."""
    mine: bool = False
    """Only what this node signed."""
    brief: bool = False
    """Without values."""


class BadItem(msgspec.Struct, frozen=True):
    """An item whose value does not read as its namespace says."""

    target: str
    error: str


class ListResult(msgspec.Struct, frozen=True):
    """A page. `total` counts all items under the salt, exactly: of all signers, and tombstones."""

    items: list[ItemView]
    bad: list[BadItem]
    total: int
    next: str


class SyncParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pull from whom, under which salt. Defaults: the first full node that answers, all salts."""

    peer: HexKey = ""
    salt: SaltText | None = None


class SyncResult(msgspec.Struct, frozen=True):
    """What a sync did; the counts are the store's."""

    peer: str
    received: int
    stored: int
    renewed: int
    held: int
    refused: int
    pages: int
    bytes: int
    complete: bool
    reasons: list[str]


class PeerView(msgspec.Struct, frozen=True):
    """A contact of the routing table."""

    public: str
    addresses: list[str]
    bucket: int
    last_seen_s: float
    failures: int
    connected: bool


class PeersResult(msgspec.Struct, frozen=True):
    """The routing table."""

    peers: list[PeerView]


class StatusResult(msgspec.Struct, frozen=True):
    """How the DHT is."""

    mode: str
    node_id: str
    peers: int
    bootstrap_nodes: int
    items: dict[str, int]
    bytes: int
    lookups: dict[str, int]
    puts: int
    replicas_per_put: float
    calls_served: int
    calls_failed: int
    refused: dict[str, int]
    last_sync: dict[str, Any] | None
    reads: dict[str, int] = {}
    """How reads were answered: local, one_hop, iterative."""
    answers: dict[str, int] = {}
    """The same with how they ended: "one_hop.found"."""
    contacts_left: int = 0
    """Contacts dropped from the routing table for not answering, since the start."""
    sync_bytes: dict[str, int] = {}
    """Bytes both ways of what keeps stores in step: pull, reconcile, watch."""
    malformed: int = 0
    """Frames of peers that were none, and ended their stream."""
    waiting: int = 0
    """Puts that reached no other node, and go out once one is there."""
    waiting_dropped: int = 0
    """How many of these made room for newer ones, since the start."""
    repaired: int = 0
    """Copies that repair asked about or brought, and that were there after it, since the start."""
    hints: int = 0
    """Puts that a node missed, and that it gets when it is heard of again."""
    hints_dropped: int = 0
    complete: bool = False
    """Of a full node: it has what the others have, as far as the first pull told."""
    advertised: bool = False
    refuses_new_items: bool = False
    """There is no room: a full node then advertises itself no longer."""
    full_nodes: int = 0
    """Others that are known."""
    watching: list[dict[str, Any]] = []
    """Whom this node keeps in step with: peer, salt, live, lag_s, items, trouble."""
    last_reconcile: dict[str, Any] | None = None
    store_trouble: str = ""
    """Why what is held cannot be told: the store is away."""

"""Parameters and results of the methods that keep a node in step with others: plain JSON."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from dht_kademlia.rpc.models import HexKey, ItemView, SaltText
from skycore.jsonrpc.facts import FACTS_MAX, FactRow

__all__ = [
    "WAIT_MAX_S",
    "ChangeView",
    "ChangesParams",
    "ChangesResult",
    "CompareParams",
    "CompareResult",
    "DifferenceView",
    "FollowParams",
    "FollowResult",
    "FullNodeParams",
    "FullNodeView",
    "FullNodesResult",
    "ModeResult",
    "ReconcileParams",
    "ReconcileResult",
    "UnequalFact",
    "VerifyParams",
    "VerifyResult",
]

WAIT_MAX_S = 20.0
FOLLOW_MAX_S = 120.0
CHANGES_MAX = 500


class ChangesParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What changed here after `after` (empty: from now on)? Waits for something, but not for ever.

    A reader that falls behind misses no record: it gets the newest version of each.
    """

    salt: SaltText | None = None
    after: Annotated[str, Meta(pattern="^([0-9a-f]{48})?$")] = ""
    """The cursor of the page before."""
    limit: Annotated[int, Meta(ge=1, le=CHANGES_MAX)] = 100
    wait_s: Annotated[float, Meta(ge=0, le=WAIT_MAX_S)] = 0.0
    renewals: bool = False
    """Also what only lives longer than before."""


class ChangeView(msgspec.Struct, frozen=True):
    """A record as it is now, and what happened to it: stored, deleted or renewed."""

    what: str
    item: ItemView


class ChangesResult(msgspec.Struct, frozen=True):
    """A stretch of the change log; go on from `cursor`."""

    changes: list[ChangeView]
    cursor: str
    has_more: bool
    is_reset: bool = False
    """`after` was of another store, so something may have been missed: this is from now on."""


class FollowParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keep a salt (none: all) in step with a full node for so long from now; ask again to go on."""

    salt: SaltText | None = None
    for_s: Annotated[float, Meta(gt=0, le=FOLLOW_MAX_S)] = 60.0


class FollowResult(msgspec.Struct, frozen=True):
    """Whether it does so: a full node is always in step with all it knows."""

    mode: str
    is_following: bool


class FullNodeParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Become a full node, or a regular one, until the next start."""

    on: bool


class ModeResult(msgspec.Struct, frozen=True):
    """What the node is now, and what it will be after its next start."""

    mode: str
    before: str
    configured: str


class FullNodeView(msgspec.Struct, frozen=True):
    """A full node that advertises itself."""

    public: str
    items: int
    advertised_s: float
    """How long ago, in seconds."""
    is_self: bool
    connected: bool


class FullNodesResult(msgspec.Struct, frozen=True):
    """The full nodes, those that spoke last first."""

    full_nodes: list[FullNodeView]


class ReconcileParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """With whom, under which salt (none: all); `dry_run` compares only."""

    peer: HexKey
    salt: SaltText | None = None
    dry_run: bool = False


class VerifyParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """With whom to compare, under which salt (none: all)."""

    peer: HexKey
    salt: SaltText | None = None


class DifferenceView(msgspec.Struct, frozen=True):
    """One slot that differs."""

    what: str
    """missing (here), extra (not there), different, or lease (the same, but ends later)."""
    target: str
    item_class: str
    salt: str
    subject: str
    """Empty where neither side says: it is held there only."""
    seq_here: str
    seq_there: str


class ReconcileResult(msgspec.Struct, frozen=True):
    """What comparing found, and what was repaired."""

    peer: str
    different: int
    pulled: int
    pushed: int
    renewed: int
    refused: int
    rounds: int
    bytes: int
    complete: bool
    differences: list[DifferenceView]
    """The first thousand."""
    reasons: list[str]


class VerifyResult(msgspec.Struct, frozen=True):
    """Whether both nodes hold the same. A lease that is still on its way is no difference."""

    peer: str
    equal: bool
    different: int
    leases: int
    """Records that are the same and end later at one of the two."""
    complete: bool
    differences: list[DifferenceView]
    """The first thousand."""
    reasons: list[str]


class CompareParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Facts, to be compared with what a reader of this node's store gets."""

    facts: Annotated[list[FactRow], Meta(max_length=FACTS_MAX)]


class UnequalFact(msgspec.Struct, frozen=True):
    """A fact that the store does not bear out: missing, deleted or different."""

    what: str
    salt: str
    subject: str


class CompareResult(msgspec.Struct, frozen=True):
    """How many facts are held exactly so, and those that are not."""

    same: int
    unequal: list[UnequalFact]

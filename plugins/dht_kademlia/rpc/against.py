"""dht.verify_source: the DHT against another source of entries, subject by subject (L23, C46)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

import msgspec
from msgspec import Meta

from dht_kademlia.comparisons import Comparisons
from dht_kademlia.node import Kademlia
from dht_kademlia.rpc.models import SaltText
from dht_kademlia.rpc.views import read_salt
from dht_kademlia.status import salt_text
from skycore.contracts.access import Level
from skycore.contracts.discovery import Record
from skycore.contracts.rpc import RpcContext, RpcMethod, RpcService
from skycore.discovery.comparing import Compared, Divergence
from skycore.model.items import Kind, mutable_item_target

__all__ = ["open_dht_against_rpc"]

SHOWN_MAX = 1_000


class VerifySourceParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which source, and under which salt (none: all that it knows)."""

    source: Annotated[str, Meta(min_length=1, max_length=64)] = "http"
    salt: SaltText | None = None


class SideView(msgspec.Struct, frozen=True):
    """What one side has of a subject, and where that comes from."""

    entries: int
    """Of a set; 1 of anything else."""
    only: int
    """Of a set: those that the other side does not have so."""
    age_s: float
    """How long ago it was said."""
    signer: str
    """Whose verified signature it stands under, hex; empty: nobody's."""
    by: str
    """"own" (the subject's signature), "mirror" (another's), or "unsigned"."""
    via: str
    """From whom this node has it, hex; empty where that is not known."""


class SourceDifference(msgspec.Struct, frozen=True):
    """A subject of which the two say something else."""

    what: str
    """missing (here), deleted (here), extra (here only), different."""
    salt: str
    subject: str
    here: SideView | None
    there: SideView | None


class VerifySourceResult(msgspec.Struct, frozen=True):
    """Whether a reader of either is told the same."""

    source: str
    equal: bool
    same: int
    different: int
    complete: bool
    """Whether both told everything; else subjects that only one side has may be missing here."""
    differences: list[SourceDifference]
    """The first thousand."""
    reasons: list[str]


class _AgainstMethods:
    def __init__(self, node: Kademlia, comparisons: Comparisons) -> None:
        self._node = node
        self._comparisons = comparisons
        self.methods: Sequence[RpcMethod] = (
            RpcMethod("dht.verify_source", Level.READ, VerifySourceParams, VerifySourceResult,
                      self._verify, "Compare with another source, such as the HTTP services"),
        )  # fmt: skip

    async def _verify(self, params: VerifySourceParams, context: RpcContext) -> VerifySourceResult:
        name = params.source
        salts = self._comparisons.salts(name)
        if params.salt is not None:
            salts = [read_salt(params.salt)]
        found: list[Compared] = []
        for salt in salts:
            text = f"subjects compared under {salt_text(salt)}"

            def progress(done: int, total: int, text: str = text) -> None:
                context.progress(done, total, text)

            found.append(await self._comparisons.compare(name, salt, progress))
        divergences = [one for compared in found for one in compared.divergences][:SHOWN_MAX]
        return VerifySourceResult(
            name,
            not any(one.different for one in found),
            sum(one.same for one in found),
            sum(one.different for one in found),
            all(one.complete for one in found),
            [await self._view(one) for one in divergences],
            list(dict.fromkeys(note for one in found for note in one.notes)),
        )

    async def _view(self, one: Divergence) -> SourceDifference:
        held = await self._node.items.get(mutable_item_target(one.subject, one.salt))
        what, via = one.what, ""
        if one.here is None and held and held[0].item.kind == Kind.TOMBSTONE:
            what = "deleted"
        if one.here is not None:
            signers = {stored.item.signer: stored.sender for stored in held}
            via = signers.get(one.here.signer or b"", b"").hex()
        return SourceDifference(
            what,
            salt_text(one.salt),
            one.subject.hex(),
            self._side(one.here, one.only_here, via),
            self._side(one.there, one.only_there, ""),
        )

    def _side(self, record: Record | None, only: int, via: str) -> SideView | None:
        if record is None:
            return None
        age_s = (self._node.clock.wall_ns() - record.as_of_ns) / 1e9
        by = "unsigned"
        if record.signer is not None:
            by = "own" if record.signer == record.subject else "mirror"
        return SideView(
            len(record.body) if isinstance(record.body, tuple) else 1,
            only,
            round(max(0.0, age_s), 1),
            (record.signer or b"").hex(),
            by,
            via,
        )


@asynccontextmanager
async def open_dht_against_rpc(
    node: Kademlia, comparisons: Comparisons
) -> AsyncIterator[RpcService]:
    """Offer the method."""
    yield _AgainstMethods(node, comparisons)

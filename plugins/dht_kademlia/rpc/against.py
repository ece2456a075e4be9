"""dht.verify_source: the DHT against another source of entries, subject by subject (L23, C46)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

import anyio
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
from skycore.discovery.comparing import WITHIN_S, Compared, Divergence
from skycore.errors import SkycoreError
from skycore.model.items import Kind, mutable_item_target

__all__ = ["open_dht_against_rpc"]

SHOWN_MAX = 1_000
WITHIN_S_MAX = 600.0


class VerifySourceParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which source, and under which salt (none: all that it knows)."""

    source: Annotated[str, Meta(min_length=1, max_length=64)] = "http"
    salt: SaltText | None = None
    within_s: Annotated[float, Meta(ge=0, le=WITHIN_S_MAX)] = WITHIN_S
    """What differs is a difference once both sides stood by it for so long."""


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
    """missing (here), deleted (here), extra (here only), different, changing (all the while)."""
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
    """Why not complete, and what else to know."""
    changing: int
    """Neither the same nor different: one side or the other changed all the while."""


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
        done: dict[bytes, tuple[int, int]] = {}
        found: dict[bytes, Compared] = {}
        troubles: list[SkycoreError] = []

        async def look(salt: bytes) -> None:
            def progress(count: int, total: int) -> None:
                done[salt] = count, total
                counts = [sum(column) for column in zip(*done.values(), strict=True)]
                context.progress(counts[0], counts[1], "subjects compared")

            try:
                found[salt] = await self._comparisons.compare(name, salt, progress, params.within_s)
            except SkycoreError as trouble:
                troubles.append(trouble)
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:  # what differs is watched under all at once
            for salt in salts:
                tasks.start_soon(look, salt)
        if troubles:
            raise troubles[0]
        return await self._result(name, [found[salt] for salt in salts])

    async def _result(self, name: str, found: Sequence[Compared]) -> VerifySourceResult:
        divergences = [one for compared in found for one in compared.divergences][:SHOWN_MAX]
        return VerifySourceResult(
            name,
            all(one.is_equal for one in found),
            sum(one.same for one in found),
            sum(one.different for one in found),
            all(one.complete for one in found),
            [await self._view(one) for one in divergences],
            list(dict.fromkeys(note for one in found for note in one.notes)),
            sum(one.changing for one in found),
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

"""publish.facts: many facts in one call; publish.mirrored: what this node says of others now.

Why a plugin of its own: a visor publishes into the DHT and a deployment service into Redis, and
both are the same call. Why one method for many: one pass of signatures and one batch for each
mirror. The caller sends pages; the bound on a call is RPC_FRAME_MAX, and FACTS_MAX facts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

import msgspec
from msgspec import Meta

from skycore import Live
from skycore.contracts.access import Level
from skycore.contracts.dht import CopyingMirror, Mirror
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Fact, Published, Publisher
from skycore.contracts.rpc import RpcContext, RpcMethod, RpcService
from skycore.contracts.runtime import Identity
from skycore.contracts.store import Items
from skycore.jsonrpc.facts import FACTS_MAX, FactRow, SaltText, fact_of
from skycore.model.delegation_token import decode_delegation
from skycore.model.items import ItemClass, Kind, StoredItem

__all__ = ["open_publish_rpc"]

REASONS_MAX = 5
CHUNK = 512
SUBJECTS_MAX = 2_000
TOP = b"\xff" * 32


class PublishParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Facts, and delegations to use besides the configured ones."""

    facts: Annotated[list[FactRow], Meta(max_length=FACTS_MAX)]
    delegations: Annotated[list[str], Meta(max_length=64)] = []


class PublishResult(msgspec.Struct, frozen=True):
    """What became of them. A fact is published when at least one place holds it."""

    published: int
    """Deletions are counted apart."""
    unchanged: int
    refused: int
    replicas: int
    """Copies stored, over all places."""
    reasons: list[str]
    deleted: int = 0
    queued: int = 0
    """Of those published: on their way to some place; this node holds them and will bring them."""


class MirroredParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Under which salt; `after` is the last page's `next`."""

    salt: SaltText
    after: Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")] = ""


class MirroredResult(msgspec.Struct, frozen=True):
    """Subjects, in hex, for whom this node signed as a mirror, and that are not deleted."""

    subjects: list[str]
    next: str
    """Empty on the last page."""


@asynccontextmanager
async def open_publish_rpc(
    publisher: Publisher,
    namespaces: Namespaces,
    items: Items,
    mirrors: Live[Mirror],
    identity: Identity,
) -> AsyncIterator[RpcService]:
    """Offer the methods."""

    async def publish(params: PublishParams, context: RpcContext) -> PublishResult:
        facts = [fact_of(namespaces, row) for row in params.facts]
        tokens = [decode_delegation(text) for text in params.delegations]
        done = await publisher.publish_many(
            facts,
            delegations=tokens,
            progress=lambda count: context.progress(count, len(facts), "records published"),
        )
        return _counted(facts, done)

    async def mirrored(params: MirroredParams, context: RpcContext) -> MirroredResult:
        for mirror in mirrors:
            if isinstance(mirror, CopyingMirror):
                await mirror.copied()
        return await _mirrored(items, identity.public, params)

    class Methods:
        methods: Sequence[RpcMethod] = (
            RpcMethod("publish.facts", Level.OPERATE, PublishParams, PublishResult, publish,
                      "Publish many records"),
            RpcMethod("publish.mirrored", Level.READ, MirroredParams, MirroredResult, mirrored,
                      "List whom this node mirrors"),
        )  # fmt: skip

    yield Methods()


async def _mirrored(items: Items, own: bytes, params: MirroredParams) -> MirroredResult:
    """Read until a page is full. The last target of a chunk is read again: it has several slots."""
    found: list[str] = []
    low = bytes.fromhex(params.after) if params.after else bytes(32)
    while True:
        rows = await items.listing(params.salt.encode(), low, TOP, CHUNK)
        is_last = len(rows) < CHUNK
        low = rows[-1].target if rows else low
        whole = rows if is_last else [row for row in rows if row.target != low]
        found += [row.item.subject.hex() for row in whole if _is_mirrored(row, own)]
        if is_last or len(found) >= SUBJECTS_MAX:
            return MirroredResult(found, "" if is_last else low.hex())


def _is_mirrored(row: StoredItem, own: bytes) -> bool:
    is_there = row.item.kind != Kind.TOMBSTONE
    return is_there and row.item_class == ItemClass.MIRROR and row.item.signer == own


def _counted(facts: Sequence[Fact], done: Sequence[Published]) -> PublishResult:
    published = deleted = unchanged = refused = replicas = queued = 0
    reasons: dict[str, None] = {}
    for fact, each in zip(facts, done, strict=True):
        stored = sum(report.stored for report in each.reports)
        replicas += stored
        unchanged += each.unchanged
        if stored or each.unchanged:
            deleted += fact.v is None
            published += fact.v is not None
            queued += any(r.text.startswith("queued") for p in each.reports for r in p.replicas)
            continue
        refused += 1
        for report in each.reports:
            reasons[report.outcome.text or f"code {report.outcome.code}"] = None
    return PublishResult(
        published, unchanged, refused, replicas, list(reasons)[:REASONS_MAX], deleted, queued
    )

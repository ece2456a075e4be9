"""dht.publish and dht.namespaces: many facts in one call, and what may stand in them.

Why a method of its own: one signature pass and one batch a node instead of a call for each record.
The caller sends pages; the bound on a call is RPC_FRAME_MAX, and FACTS_MAX facts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from dht_kademlia.rpc_models import HexKey, SaltText
from skycore.contracts.access import Level
from skycore.contracts.namespace import Namespace, Namespaces
from skycore.contracts.publish import Fact, Published, Publisher
from skycore.contracts.rpc import RpcContext, RpcMethod, RpcService
from skycore.errors import NamespaceError, RpcError
from skycore.jsonrpc import ErrorCode
from skycore.model.delegation_token import decode_delegation

__all__ = ["FACTS_MAX", "FactRow", "fact_of", "open_dht_batch_rpc"]

FACTS_MAX = 1_000
REASONS_MAX = 5


class FactRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fact: the body of a declared namespace as JSON; the subject is ours if none is named."""

    salt: SaltText
    json: Any = msgspec.UNSET
    subject: HexKey = ""
    delete: bool = False
    """Instead of a body: this record is no more."""


class PublishParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Facts, and delegations to use besides the configured ones."""

    facts: Annotated[list[FactRow], Meta(max_length=FACTS_MAX)]
    delegations: Annotated[list[str], Meta(max_length=64)] = []


class PublishResult(msgspec.Struct, frozen=True):
    """What became of them. A fact is published when at least one node holds it."""

    published: int
    """Deletions are counted apart."""
    unchanged: int
    refused: int
    replicas: int
    """Copies stored, over all nodes."""
    reasons: list[str]
    deleted: int = 0


class NoParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing."""


class NamespaceView(msgspec.Struct, frozen=True):
    """A declared salt."""

    salt: str
    version: int
    form: str
    lifetimes_s: dict[str, int]
    summary: str


class NamespacesResult(msgspec.Struct, frozen=True):
    """Every salt whose schema this node knows."""

    namespaces: list[NamespaceView]


@asynccontextmanager
async def open_dht_batch_rpc(
    publisher: Publisher, namespaces: Namespaces
) -> AsyncIterator[RpcService]:
    """Offer the methods."""

    async def declared(params: NoParams, context: RpcContext) -> NamespacesResult:
        return NamespacesResult([_shown(n) for n in namespaces])

    async def publish(params: PublishParams, context: RpcContext) -> PublishResult:
        facts = [fact_of(namespaces, row) for row in params.facts]
        tokens = [decode_delegation(text) for text in params.delegations]
        done = await publisher.publish_many(
            facts,
            delegations=tokens,
            progress=lambda count: context.progress(count, len(facts), "records published"),
        )
        return _counted(facts, done)

    class Methods:
        methods: Sequence[RpcMethod] = (
            RpcMethod("dht.publish", Level.OPERATE, PublishParams, PublishResult, publish,
                      "Publish many records"),
            RpcMethod("dht.namespaces", Level.READ, NoParams, NamespacesResult, declared,
                      "List the declared salts"),
        )  # fmt: skip

    yield Methods()


def _shown(namespace: Namespace) -> NamespaceView:
    return NamespaceView(
        namespace.salt.decode(errors="replace"),
        namespace.version,
        namespace.form.value,
        {c.name.lower(): s for c, s in namespace.lifetimes_s.items()},
        namespace.summary,
    )


def fact_of(namespaces: Namespaces, row: FactRow) -> Fact:
    """Return a row as a fact, encoded. Raises `RpcError` for what does not fit."""
    namespace = namespaces.find(row.salt.encode())
    if namespace is None:
        raise RpcError(
            f"no active plugin declares the salt {row.salt!r}", code=ErrorCode.INVALID_PARAMS,
            hint="enable the plugin that declares it, for example namespaces_skywire",
        )  # fmt: skip
    subject = bytes.fromhex(row.subject) or None
    if row.delete is (row.json is not msgspec.UNSET):
        raise RpcError(
            f"subject {row.subject[:16]}…: give either json or delete",
            code=ErrorCode.INVALID_PARAMS,
        )
    if row.delete:
        return Fact(namespace.salt, None, subject)
    try:
        value = namespace.from_json(row.json)
    except NamespaceError as bad:
        raise RpcError(
            f"subject {row.subject[:16]}…: {bad}", code=ErrorCode.INVALID_PARAMS
        ) from bad
    return Fact(namespace.salt, value, subject)


def _counted(facts: Sequence[Fact], done: Sequence[Published]) -> PublishResult:
    published = deleted = unchanged = refused = replicas = 0
    reasons: dict[str, None] = {}
    for fact, each in zip(facts, done, strict=True):
        stored = sum(report.stored for report in each.reports)
        replicas += stored
        unchanged += each.unchanged
        if stored or each.unchanged:
            deleted += fact.v is None
            published += fact.v is not None
            continue
        refused += 1
        for report in each.reports:
            reasons[report.outcome.text or f"code {report.outcome.code}"] = None
    return PublishResult(
        published, unchanged, refused, replicas, list(reasons)[:REASONS_MAX], deleted
    )

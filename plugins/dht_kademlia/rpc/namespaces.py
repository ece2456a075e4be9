"""dht.namespaces: which salts have a schema here, and what may stand under them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from dht_kademlia.rpc.models import NoParams
from skycore.contracts.access import Level
from skycore.contracts.namespace import Namespace, Namespaces
from skycore.contracts.rpc import RpcContext, RpcMethod, RpcService

__all__ = ["open_dht_namespaces_rpc"]


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
async def open_dht_namespaces_rpc(namespaces: Namespaces) -> AsyncIterator[RpcService]:
    """Offer the method."""

    async def declared(params: NoParams, context: RpcContext) -> NamespacesResult:
        return NamespacesResult([_shown(n) for n in namespaces])

    class Methods:
        methods: Sequence[RpcMethod] = (
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

"""whitelist.list, whitelist.add, whitelist.remove: for admins, local or remote."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import msgspec

from access_whitelist.service import LEVELS, Whitelist
from skycore.contracts.access import Level
from skycore.contracts.rpc import RpcContext, RpcMethod, RpcService
from skycore.contracts.runtime import Identity
from skycore.model.keys import parse_public

__all__ = ["open_methods"]


class ListParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing to choose."""


class AddParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key, and what it may do."""

    key: str
    level: Literal["read", "operate", "admin"] = "read"


class RemoveParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key."""

    key: str


class KeyRow(msgspec.Struct, frozen=True):
    """A listed key."""

    key: str
    level: str
    configured: bool
    """Whether the configuration lists it (perhaps at another level)."""


class Changed(msgspec.Struct, frozen=True):
    """What a change did."""

    key: str
    level: str | None
    """What the key may do now; None for nothing."""
    changed: bool
    note: str = ""
    """What else a person should know."""


class _Methods:
    def __init__(self, whitelist: Whitelist, identity: Identity) -> None:
        self._whitelist = whitelist
        self._suite = identity.network.suite
        self.methods: Sequence[RpcMethod] = (
            RpcMethod("whitelist.list", Level.ADMIN, ListParams, list[KeyRow], self.list,
                      "List the keys that may call this node."),
            RpcMethod("whitelist.add", Level.ADMIN, AddParams, Changed, self.add,
                      "Let a key call this node, or change its level."),
            RpcMethod("whitelist.remove", Level.ADMIN, RemoveParams, Changed, self.remove,
                      "Take a key off; its open streams are cut."),
        )  # fmt: skip

    async def list(self, params: ListParams, context: RpcContext) -> list[KeyRow]:
        configured = self._whitelist.configured
        return [
            KeyRow(key.hex(), level.name.lower(), key in configured)
            for key, level in sorted(self._whitelist.all().items())
        ]

    async def add(self, params: AddParams, context: RpcContext) -> Changed:
        key = parse_public(self._suite, params.key)
        before, level = self._whitelist.level(key), LEVELS[params.level]
        if before is not level:
            self._whitelist.add(key, level)
        return Changed(params.key, params.level, before is not level)

    async def remove(self, params: RemoveParams, context: RpcContext) -> Changed:
        key = parse_public(self._suite, params.key)
        removed = self._whitelist.remove(key)
        note = ""
        if key in self._whitelist.configured:
            note = (
                "the configuration still lists this key; it stays removed, also after a restart,"
                " but take it out of access_whitelist there, too"
            )
        return Changed(params.key, None, removed, note)


@asynccontextmanager
async def open_methods(whitelist: Whitelist, identity: Identity) -> AsyncIterator[RpcService]:
    """Offer the methods."""
    yield _Methods(whitelist, identity)

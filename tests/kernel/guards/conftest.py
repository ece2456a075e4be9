"""A gate over a store in memory, and shorthand for items."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest

from skycore.contracts.namespace import Form, Namespace, Namespaces
from skycore.contracts.runtime import Identity
from skycore.contracts.store import (
    ChangeFilter,
    ChangePage,
    Fingerprint,
    ItemKey,
    Outcome,
    PutOutcome,
    Usage,
)
from skycore.errors import CasMismatchError, SeqTooLowError
from skycore.events import Events
from skycore.guards.gate import Gate, GateSettings, open_gate
from skycore.model.items import (
    Cursor,
    ItemClass,
    Kind,
    Lease,
    MutableItem,
    RankedItem,
    StoredItem,
    make_delegation,
    make_item,
    mutable_item_target,
)
from skycore.model.network import NetworkConstants
from skycore.testing.fakes import TEST_NETWORK, FakeClock, InlineWorkers, identity


class DictStore:
    """The least an ItemStore can be: a dict of slots and a counter."""

    def __init__(self) -> None:
        self.store_id = b"dict-store-of-16"
        self.slots: dict[ItemKey, StoredItem] = {}
        self.position = 0
        self.calls: list[str] = []

    async def get(self, targets: Sequence[bytes]) -> Sequence[tuple[StoredItem, ...]]:
        self.calls.append("get")
        return [
            tuple(
                self.slots[key]
                for c in (3, 2, 1)
                if (key := ItemKey(target, c)) in self.slots
            )
            for target in targets
        ]

    async def put_many(
        self, items: Sequence[RankedItem], blocks: Mapping[bytes, bytes] | None = None
    ) -> Sequence[PutOutcome]:
        self.calls.append("put_many")
        return [self._put(ranked) for ranked in items]

    def _put(self, ranked: RankedItem) -> PutOutcome:
        key = ItemKey(ranked.target, ranked.item_class)
        old = self.slots.get(key)
        current = old.item.seq if old and old.item.kind != Kind.TOMBSTONE else 0
        if old and old.rank == ranked.rank:
            return PutOutcome(Outcome.HELD, current)
        if ranked.cas is not None and ranked.cas != current:
            return PutOutcome(CasMismatchError.code, current)
        if old and old.rank > ranked.rank:
            return PutOutcome(SeqTooLowError.code, old.item.seq)
        self.position += 1
        self.slots[key] = StoredItem(
            ranked.target,
            int(ranked.item_class),
            ranked.rank,
            ranked.digest,
            ranked.item,
            ranked.sender,
            ranked.admitted_ns,
            self.position,
            self.position,
        )
        return PutOutcome(Outcome.STORED, ranked.item.seq)

    async def renew(self, leases: Sequence[Lease], now_ns: int) -> Sequence[PutOutcome]:
        self.calls.append("renew")
        return [self._renew(lease) for lease in leases]

    def _renew(self, lease: Lease) -> PutOutcome:
        key = ItemKey(lease.target, lease.item_class)
        old = self.slots.get(key)
        if old is None or old.digest != lease.digest:
            return PutOutcome(Outcome.NOT_HELD)
        if lease.until <= old.until:
            return PutOutcome(Outcome.HELD, old.item.seq)
        self.position += 1
        self.slots[key] = msgspec.structs.replace(old, lease=lease, position=self.position)
        return PutOutcome(Outcome.RENEWED, old.item.seq)

    async def changes(
        self, after: Cursor | None, wanted: ChangeFilter, limit: int, bytes_max: int
    ) -> ChangePage:
        start = after.position if after else 0
        newer = sorted(
            (s for s in self.slots.values() if s.position > start), key=lambda s: s.position
        )
        page = newer[:limit]
        end = page[-1].position if page else start
        return ChangePage(tuple(page), Cursor(self.store_id, end), len(newer) > len(page))

    async def listing(
        self, salt: bytes | None, low: bytes, high: bytes, limit: int
    ) -> Sequence[StoredItem]:
        keys = sorted(k for k in self.slots if low <= k.target <= high)
        found = [self.slots[k] for k in keys]
        return [s for s in found if salt is None or s.item.salt == salt][:limit]

    async def fingerprints(self, salt: bytes | None, ranges: Any) -> Sequence[Fingerprint]:
        raise NotImplementedError

    async def blocks(self, hashes: Sequence[bytes]) -> Sequence[bytes | None]:
        return [None for _ in hashes]

    async def history(self, target: bytes, limit: int) -> Sequence[StoredItem]:
        return []

    async def drop(self, keys: Sequence[ItemKey]) -> int:
        return sum(self.slots.pop(ItemKey(*key), None) is not None for key in keys)

    async def sweep(self, now_s: int) -> int:
        self.calls.append("sweep")
        return await self.drop([k for k, s in self.slots.items() if s.until <= now_s])

    async def usage(self) -> Mapping[bytes, Usage]:
        used: dict[bytes, Usage] = {}
        for stored in self.slots.values():
            items, size = used.get(stored.item.salt, Usage(0, 0))
            used[stored.item.salt] = Usage(items + 1, size + len(stored.item.v))
        return used

    async def signer_usage(self, signers: Sequence[bytes]) -> Sequence[Usage]:
        mine = [[s for s in self.slots.values() if s.item.signer == one] for one in signers]
        return [Usage(len(held), sum(len(s.item.v) for s in held)) for held in mine]

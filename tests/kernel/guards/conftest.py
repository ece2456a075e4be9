"""A gate over the memory store, people with keys, and shorthand for items."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from skycore.contracts.namespace import Form, Namespace, Namespaces
from skycore.contracts.runtime import Identity
from skycore.contracts.store import ItemKey, ItemStore, Outcome, PutOutcome
from skycore.events import Events
from skycore.guards.gate import Gate, GateSettings, open_gate
from skycore.model.items import (
    Delegation,
    ItemClass,
    Kind,
    MutableItem,
    StoredItem,
    make_delegation,
    make_item,
    mutable_item_target,
)
from skycore.model.keys import ED25519, SecretKey
from skycore.model.network import NetworkConstants
from skycore.model.trie import Tree
from skycore.testing.fakes import FakeClock, InlineWorkers, SeededEntropy, identity
from store_memory.service import open_memory_store
from store_memory.settings import MemoryStoreSettings

AUTHORITY = identity("authority").secret
NETWORK = NetworkConstants(ED25519, "skycore-test", ED25519.public(AUTHORITY))
ALL_CLASSES = (ItemClass.OWNER, ItemClass.DELEGATE, ItemClass.MIRROR)
NOTE = Namespace(b"note", 1, str, Form.SINGLE, dict.fromkeys(ALL_CLASSES, 3_600))
TAGS = Namespace(b"tags", 1, str, Form.SET, {ItemClass.OWNER: 300})


class CountingStore:
    """A store that tells which of its methods were called."""

    def __init__(self, store: ItemStore) -> None:
        self._store = store
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if callable(value):
            self.calls.append(name)
        return value


class CountingSuite:
    """A key suite that counts what it verifies and signs."""

    def __init__(self, suite: Any) -> None:
        self._suite = suite
        self.verified = 0
        self.signed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._suite, name)

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        self.verified += 1
        return bool(self._suite.verify(public, message, signature))

    def sign(self, secret: SecretKey, message: bytes) -> bytes:
        self.signed += 1
        return bytes(self._suite.sign(secret, message))


@dataclass
class House:
    """One node's gate and what stands around it."""

    me: Identity
    gate: Gate
    store: CountingStore
    clock: FakeClock
    events: Events
    suite: CountingSuite
    namespaces: Namespaces
    network: NetworkConstants = NETWORK
    names: dict[str, SecretKey] = field(default_factory=dict)

    def key(self, name: str) -> SecretKey:
        return identity(name, NETWORK).secret

    def public(self, name: str) -> bytes:
        return bytes(identity(name, NETWORK).public)

    def item(
        self,
        signer: str = "alice",
        v: str | bytes | None = "hello",
        *,
        salt: bytes = b"note",
        seq: int | None = None,
        life_s: int = 600,
        until: int | None = None,
        subject: bytes | None = None,
        delegation: Delegation | None = None,
        kind: Kind | None = None,
        network: NetworkConstants = NETWORK,
    ) -> MutableItem:
        if kind is None:
            kind = Kind.TOMBSTONE if v is None else Kind.VALUE
        encoded = NOTE.encode(v) if isinstance(v, str) else v or b""
        return make_item(
            network,
            self.key(signer),
            subject=subject,
            salt=salt,
            seq=self.clock.wall_ns() if seq is None else seq,
            until=self.clock.wall_s() + life_s if until is None else until,
            v=encoded,
            kind=kind,
            delegation=delegation,
        )

    def tree(self, salt: bytes, value: bytes, subject: str = "alice") -> Tree:
        """Plant a value that is too large to stand inline."""
        tree = self.namespaces.plant(salt, self.public(subject), value)
        assert tree is not None
        return tree

    def head(self, tree: Tree, signer: str = "alice", **more: Any) -> MutableItem:
        """Return the manifest item of a tree."""
        more = {"salt": b"tags", "life_s": 300} | more
        return self.item(signer, v=tree.manifest, kind=Kind.MANIFEST, **more)

    def delegation(
        self, issuer: str, delegate: str, *, salt: bytes = b"note", life_s: int = 86_400
    ) -> Delegation:
        until = self.clock.wall_s() + life_s
        return make_delegation(NETWORK, self.key(issuer), self.public(delegate), salt, until)

    async def put(self, *items: MutableItem, sender: str = "peer", **more: Any) -> list[int]:
        return [o.code for o in await self.outcomes(*items, sender=sender, **more)]

    async def outcomes(
        self, *items: MutableItem, sender: str = "peer", **more: Any
    ) -> list[PutOutcome]:
        return list(await self.gate.admit(items, sender=self.public(sender), **more))

    async def read(self, subject: str, salt: bytes = b"note") -> list[StoredItem]:
        return list(await self.gate.get(mutable_item_target(self.public(subject), salt)))

    async def contents(self) -> dict[ItemKey, tuple[Any, ...]]:
        """Everything that two stores which saw the same must share, byte for byte."""
        everything = await self.gate.listing(None, bytes(32), b"\xff" * 32, 100_000)
        return {
            ItemKey(s.target, s.item_class): (s.rank, s.digest, s.item, s.until) for s in everything
        }


OpenHouse = Callable[..., AbstractAsyncContextManager[House]]


@asynccontextmanager
async def _open_house(
    name: str = "me",
    *,
    clock: FakeClock | None = None,
    store: ItemStore | None = None,
    namespaces: Iterable[Namespace] = (NOTE, TAGS),
    workers: Any = None,
    network: NetworkConstants = NETWORK,
    **settings: Any,
) -> AsyncIterator[House]:
    suite = CountingSuite(network.suite)
    counted = NetworkConstants(suite, network.name, network.authority)
    me = identity(name, counted)
    clock, events = clock or FakeClock(), Events()
    declared = Namespaces(namespaces)
    async with open_memory_store(MemoryStoreSettings(), SeededEntropy()) as fresh:
        counting = CountingStore(store or fresh)
        async with open_gate(
            GateSettings(**settings), counting, me, declared, clock, workers or InlineWorkers(),
            events,
        ) as gate:  # fmt: skip
            counting.calls.clear()
            suite.verified = 0
            yield House(me, gate, counting, clock, events, suite, declared)


@pytest.fixture(scope="session")
def open_house() -> OpenHouse:
    """Return a function that opens a gate; session-wide, so that hypothesis may use it."""
    return _open_house


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with _open_house() as one:
        yield one


STORED, RENEWED, HELD = int(Outcome.STORED), int(Outcome.RENEWED), int(Outcome.HELD)

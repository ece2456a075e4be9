"""Mirrors and full nodes' gates on one real Redis, each with parts of its own."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from mirror_redis.mirror_service import (
    Mirroring,
    MirrorLink,
    open_mirror_link,
    open_mirror_status,
    open_mirroring,
)
from mirror_redis.mirror_settings import RedisMirrorSettings
from mirror_redis.service import open_own_records, open_redis_store, open_store_link
from mirror_redis.settings import RedisStoreSettings
from skycore.contracts.dht import Mirror
from skycore.contracts.namespace import Form, Namespace, Namespaces
from skycore.contracts.publish import Fact, Publisher
from skycore.contracts.runtime import Identity
from skycore.contracts.status import StatusSource
from skycore.events import Events
from skycore.guards.gate import Gate, GateSettings, open_gate
from skycore.guards.publish import PublisherSettings, open_publisher
from skycore.model.delegation_token import encode_delegation
from skycore.model.items import ItemClass, make_delegation, mutable_item_target
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.runtime.clock import RealClock
from skycore.runtime.memory import MemoryFiles
from skycore.testing.fakes import InlineWorkers, SeededEntropy, identity
from skycore.wiring import Live
from store_memory.service import open_memory_store
from store_memory.settings import MemoryStoreSettings

AUTHORITY = identity("authority").secret
NETWORK = NetworkConstants(ED25519, "skycore-test", ED25519.public(AUTHORITY))
CLASSES = (ItemClass.OWNER, ItemClass.DELEGATE, ItemClass.MIRROR)
NOTE = Namespace(b"note", 1, str, Form.SINGLE, dict.fromkeys(CLASSES, 3_600))
NAMESPACES = Namespaces([NOTE])


class CountingSuite:
    """A key suite that counts signatures."""

    def __init__(self) -> None:
        self.signed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(ED25519, name)

    def sign(self, secret, message):
        self.signed += 1
        return ED25519.sign(secret, message)


class Wall(RealClock):
    """The real clock, which a test may set wrong."""

    offset_s = 0.0

    def wall_ns(self) -> int:
        return super().wall_ns() + int(self.offset_s * 1e9)

    def wall_s(self) -> int:
        return self.wall_ns() // 10**9


@dataclass
class Service:
    """A deployment service: a publisher, its own store, and the mirror into Redis."""

    me: Identity
    items: Gate
    store: Any
    mirroring: Mirroring
    link: MirrorLink
    publisher: Publisher
    status: StatusSource
    clock: Wall
    files: MemoryFiles
    suite: CountingSuite
    note: Namespace = NOTE

    @property
    def mirror(self) -> Mirror:
        return self.mirroring.mirror

    async def publish(self, v: str | None, subject: str = "", salt: bytes = b"note", **more):
        """Publish one note; under our own key, or mirrored for somebody."""
        return (await self.publish_all({subject: v}, salt, **more))[0]

    async def publish_all(self, notes: dict[str, str | None], salt: bytes = b"note", cas=None):
        facts = [
            Fact(
                salt,
                None if v is None else NOTE.encode(v),
                bytes(identity(s, NETWORK).public) if s else None,
            )
            for s, v in notes.items()
        ]
        if cas is not None:
            return [await self.publisher.publish(facts[0], cas=cas)]
        return await self.publisher.publish_many(facts)

    async def fields(self) -> SimpleNamespace:
        """Return what the status says, as attributes."""
        status = await self.status.status()
        return SimpleNamespace(**status.fields, health=status.health, summary=status.summary)

    async def settled(self) -> None:
        """Wait until nothing waits any more."""
        await until(lambda: not self.mirroring.writer.waiting)


async def until(holds, seconds: float = 20.0) -> None:
    """Wait until something holds; fail where it never does."""
    with anyio.fail_after(seconds):
        while True:
            answer = holds()
            if hasattr(answer, "__await__"):
                answer = await answer
            if answer:
                return
            await anyio.sleep(0.01)


@asynccontextmanager
async def _service(
    url: str,
    name: str = "service",
    *,
    store: Any = None,
    files: MemoryFiles | None = None,
    clock: Wall | None = None,
    **settings,
):
    suite = CountingSuite()
    me = identity(name, NetworkConstants(suite, NETWORK.name, NETWORK.authority))
    clock, files = clock or Wall(), files or MemoryFiles()
    chosen = RedisMirrorSettings(
        **{"url": url, "timeout_s": 10, "grace_s": 10, "retry_s": 0.05, "check_s": 0.1, **settings}
    )
    until_s = int(time.time()) + 86_400
    token = make_delegation(NETWORK, AUTHORITY, me.public, b"note", until_s)
    delegations = PublisherSettings(delegations=(encode_delegation(token),))
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        if store is None:
            store = await enter(open_memory_store(MemoryStoreSettings(), SeededEntropy()))
        items = await enter(
            open_gate(GateSettings(), store, me, NAMESPACES, clock, InlineWorkers(), Events())
        )
        link = await enter(open_mirror_link(chosen, clock))
        entropy = SeededEntropy(hash(name) & 0xFFFF)
        mirroring = await enter(open_mirroring(chosen, link, items, me, clock, entropy))
        status = await enter(open_mirror_status(link, mirroring))
        publisher = await enter(
            open_publisher(
                delegations, me, items, Live([mirroring.mirror]), NAMESPACES, clock, files
            )
        )
        yield Service(me, items, store, mirroring, link, publisher, status, clock, files, suite)


@dataclass
class Reader:
    """The gate of a full node with store_redis on the same Redis."""

    items: Gate
    link: Any

    async def note(self, subject: str, salt: bytes = b"note") -> str | None:
        """Return the note of somebody; None for none, or a deleted one."""
        target = mutable_item_target(identity(subject, NETWORK).public, salt)
        for stored in await self.items.get(target):
            value = await self.items.value(stored)
            return None if value is None else NOTE.decode(value)
        return None


@asynccontextmanager
async def _reader(url: str, name: str = "full", clock: Wall | None = None, **settings):
    me, clock = identity(name, NETWORK), clock or Wall()
    chosen = RedisStoreSettings(**{"url": url, "timeout_s": 10, "retry_s": 0.05, **settings})
    async with (
        open_store_link(chosen, clock) as link,
        open_own_records(chosen, me) as own,
        open_redis_store(link, chosen, SeededEntropy(hash(name) & 0xFFFF), me, own, clock) as store,
        open_gate(GateSettings(), store, me, NAMESPACES, clock, InlineWorkers(), Events()) as items,
    ):
        yield Reader(items, link)


@pytest.fixture
def service():
    """Return a function that opens a `Service` on a URL."""
    return _service


@pytest.fixture
def reader():
    """Return a function that opens a `Reader` on a URL."""
    return _reader


@pytest.fixture(name="until")
def _until():
    return until


@pytest.fixture
def commands(redis):
    """Return a context manager: the commands that the server was sent inside it, by name."""

    @contextmanager
    def counted():
        found: dict[str, int] = {}
        before = _commandstats(redis)
        yield found
        after = _commandstats(redis)
        found.update({k: n - before.get(k, 0) for k, n in after.items() if n > before.get(k, 0)})

    return counted


def _commandstats(redis) -> dict[str, int]:
    text = redis.send("INFO", "commandstats").decode(errors="replace")
    rows = (line.split(":", 1) for line in text.splitlines() if line.startswith("cmdstat_"))
    return {
        name.removeprefix("cmdstat_"): int(rest.split("calls=")[1].split(",")[0])
        for name, rest in rows
    }

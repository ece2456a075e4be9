"""The parts of mirror_redis: the way to Redis, the mirror on it, and what it says of itself."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from mirror_redis.link import Link, open_link
from mirror_redis.mirror import RedisMirror
from mirror_redis.mirror_audit import Auditor
from mirror_redis.mirror_copies import Copies
from mirror_redis.mirror_ledger import Ledger
from mirror_redis.mirror_queue import Queue
from mirror_redis.mirror_settings import RedisMirrorSettings
from mirror_redis.mirror_status import MirrorStatus
from mirror_redis.mirror_store import MirrorStore
from mirror_redis.mirror_writer import Writer
from mirror_redis.registry_settings import RedisRegistrySettings
from mirror_redis.settings import RedisStoreSettings
from skycore.contracts.dht import Mirror
from skycore.contracts.runtime import Clock, Entropy, Identity
from skycore.contracts.status import StatusSource
from skycore.contracts.store import Items
from skycore.errors import StoreUnreachableError
from skycore.tasks import every

__all__ = [
    "MirrorLink",
    "Mirroring",
    "open_mirror_link",
    "open_mirror_status",
    "open_mirroring",
    "open_redis_mirror",
]

log = logging.getLogger(__name__)


class MirrorLink(Link):
    """The mirror's own way to Redis: what wiring knows it by."""


class Mirroring:
    """The mirror with all that works behind it."""

    def __init__(
        self,
        mirror: RedisMirror,
        queue: Queue,
        ledger: Ledger,
        writer: Writer,
        auditor: Auditor,
        copies: Copies,
    ) -> None:
        self.mirror = mirror
        self.queue = queue
        self.ledger = ledger
        self.writer = writer
        self.auditor = auditor
        self.copies = copies


@asynccontextmanager
async def open_mirror_link(
    settings: RedisMirrorSettings,
    clock: Clock,
    store: RedisStoreSettings | None = None,
    registry: RedisRegistrySettings | None = None,
) -> AsyncIterator[MirrorLink]:
    """Hold the mirror's connections. Raises a named `StoreError` for what waiting does not cure."""
    async with open_link(
        settings, clock, MirrorLink, store_redis=store, registry_redis=registry
    ) as link:
        yield link


@asynccontextmanager
async def open_mirroring(
    settings: RedisMirrorSettings,
    link: MirrorLink,
    items: Items,
    identity: Identity,
    clock: Clock,
    entropy: Entropy,
) -> AsyncIterator[Mirroring]:
    """Write and audit for as long as the context lasts. A Redis that is down is waited for."""
    own = identity.public
    store = MirrorStore(link, entropy, identity.network.id)
    queue = Queue(settings.queue_bytes_max, settings.records_max)
    ledger = Ledger(settings.records_max)
    copies = Copies(items, own)
    writer = Writer(link, store, copies, queue, ledger, own, clock)
    auditor = Auditor(settings, link, store, copies, queue, ledger, writer, clock)
    mirror = RedisMirror(link, store, copies, queue, ledger, own, clock, settings)
    await _look(link, store)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run)
        tasks.start_soon(lambda: every(settings.check_s, auditor.check, name="redis audit"))
        if settings.copy_s:
            tasks.start_soon(lambda: every(settings.copy_s, copies.catch_up, name="own copies"))
        try:
            yield Mirroring(mirror, queue, ledger, writer, auditor, copies)
        finally:
            tasks.cancel_scope.cancel()
            await copies.end()


async def _look(link: MirrorLink, store: MirrorStore) -> None:
    """Say at the start how it is. Raises `StoreError` for what a person has to change."""
    if link.is_usable:
        with contextlib.suppress(StoreUnreachableError):  # it went just now
            await store.open()
    if not link.is_usable:
        log.warning(
            "no redis to mirror into yet; records wait in this node's own store at=%s"
            " hint='start it, or set [%s] url to where it is'", link.where,
            link.section or "mirror_redis",
        )  # fmt: skip


@asynccontextmanager
async def open_redis_mirror(mirroring: Mirroring) -> AsyncIterator[Mirror]:
    """Bring published entries into Redis."""
    yield mirroring.mirror


@asynccontextmanager
async def open_mirror_status(link: MirrorLink, mirroring: Mirroring) -> AsyncIterator[StatusSource]:
    """Say how far behind Redis is, and why."""
    parts = mirroring.queue, mirroring.ledger, mirroring.writer, mirroring.auditor
    yield MirrorStatus(link, *parts, mirroring.copies)

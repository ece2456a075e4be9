"""The parts of store_redis: the way to Redis, the store on it, and what it says of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from mirror_redis.bringing import Bringer
from mirror_redis.link import Link, open_link
from mirror_redis.mirror_settings import RedisMirrorSettings
from mirror_redis.own import OwnRecords
from mirror_redis.registry_settings import RedisRegistrySettings
from mirror_redis.settings import RedisStoreSettings
from mirror_redis.status import LinkStatus
from mirror_redis.store import RedisStore
from skycore.contracts.runtime import Clock, Entropy, Identity
from skycore.contracts.status import Health, Status, StatusSource
from skycore.contracts.store import ItemStore
from skycore.errors import StoreUnreachableError

__all__ = [
    "StoreLink",
    "StoreStatus",
    "open_own_records",
    "open_redis_status",
    "open_redis_store",
    "open_store_link",
]


class StoreLink(Link):
    """The store's own way to Redis: what wiring knows it by."""


@asynccontextmanager
async def open_store_link(
    settings: RedisStoreSettings,
    clock: Clock,
    mirror: RedisMirrorSettings | None = None,
    registry: RedisRegistrySettings | None = None,
) -> AsyncIterator[StoreLink]:
    """Hold the store's connections.

    Raises a named `StoreError` for what only a person can change: a wrong password, a Redis that
    evicts, a cluster. One that is down is waited for; the node answers meanwhile.
    """
    async with open_link(
        settings, clock, StoreLink, mirror_redis=mirror, registry_redis=registry
    ) as link:
        yield link


@asynccontextmanager
async def open_own_records(
    settings: RedisStoreSettings, identity: Identity
) -> AsyncIterator[OwnRecords]:
    """Remember what this node itself signed, for a Redis that loses it."""
    yield OwnRecords(identity.public, settings.own_bytes_max)


@asynccontextmanager
async def open_redis_store(
    link: StoreLink,
    settings: RedisStoreSettings,
    entropy: Entropy,
    identity: Identity,
    own: OwnRecords,
    clock: Clock,
) -> AsyncIterator[ItemStore]:
    """Keep items in Redis, beside whoever else does."""
    remembered = own if settings.own_bytes_max else None
    store = RedisStore(
        link,
        entropy,
        identity.network.id,
        poll_s=settings.poll_s,
        history=(settings.history_versions_max, settings.history_bytes_max),
        clock_ahead_max_s=settings.clock_ahead_max_s,
        own=remembered,
    )
    if link.is_usable:
        try:
            await store.open()
        except StoreUnreachableError:  # it went just now; StoreVersionError ends the start
            link.counters["late"] += 1
    bringer = Bringer(store, own, identity, clock)
    async with anyio.create_task_group() as tasks:
        if remembered is not None:
            tasks.start_soon(bringer.run)
        yield store
        tasks.cancel_scope.cancel()


class StoreStatus(LinkStatus):
    """How Redis is, and what of this node's own it is brought again."""

    def __init__(self, link: Link, own: OwnRecords) -> None:
        super().__init__("redis", link)
        self._own = own

    async def status(self) -> Status:
        """Return the link's status; another store that lacks our records is no healthy one."""
        told, own = await super().status(), self._own
        fields = {
            **told.fields,
            "own_records": len(own),
            "own_bytes": own.bytes,
            "own_fallen": own.fallen,
            "brought": own.brought,
        }
        if told.health is Health.OK and own.is_bringing:
            text = f"emptied, or another one: {len(own)} records of this node are brought again"
            return Status(Health.DEGRADED, text, fields)
        return Status(told.health, told.summary, fields)


@asynccontextmanager
async def open_redis_status(link: StoreLink, own: OwnRecords) -> AsyncIterator[StatusSource]:
    """Say how Redis is."""
    yield StoreStatus(link, own)

"""The parts of store_redis: the way to Redis, the store on it, and what it says of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mirror_redis.link import Link, open_link
from mirror_redis.settings import RedisStoreSettings
from mirror_redis.status import LinkStatus
from mirror_redis.store import RedisStore
from skycore.contracts.runtime import Clock, Entropy, Identity
from skycore.contracts.status import StatusSource
from skycore.contracts.store import ItemStore
from skycore.errors import StoreUnreachableError

__all__ = ["StoreLink", "open_redis_status", "open_redis_store", "open_store_link"]


class StoreLink(Link):
    """The store's own way to Redis: what wiring knows it by."""


@asynccontextmanager
async def open_store_link(settings: RedisStoreSettings, clock: Clock) -> AsyncIterator[StoreLink]:
    """Hold the store's connections.

    Raises a named `StoreError` for what only a person can change: a wrong password, a Redis that
    evicts, a cluster. One that is down is waited for; the node answers meanwhile.
    """
    async with open_link(settings, clock, StoreLink) as link:
        yield link


@asynccontextmanager
async def open_redis_store(
    link: StoreLink, settings: RedisStoreSettings, entropy: Entropy, identity: Identity
) -> AsyncIterator[ItemStore]:
    """Keep items in Redis, beside whoever else does."""
    store = RedisStore(link, settings, entropy, identity.network.id)
    if link.is_usable:
        try:
            await store.open()
        except StoreUnreachableError:  # it went just now; StoreVersionError ends the start
            link.counters["late"] += 1
    yield store


@asynccontextmanager
async def open_redis_status(link: StoreLink) -> AsyncIterator[StatusSource]:
    """Say how Redis is."""
    yield LinkStatus("redis", link)

"""The parts of registry_redis: the way to Redis, the registry on it, and what it says of itself."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mirror_redis.link import Link, open_link
from mirror_redis.mirror_settings import RedisMirrorSettings
from mirror_redis.registry import RedisRegistry
from mirror_redis.registry_settings import RedisRegistrySettings
from mirror_redis.settings import RedisStoreSettings
from mirror_redis.status import LinkStatus
from skycore.contracts.registry import Registry
from skycore.contracts.runtime import Clock, Entropy, Identity
from skycore.contracts.status import StatusSource

__all__ = [
    "RegistryLink",
    "open_redis_registry",
    "open_registry_link",
    "open_registry_status",
]

log = logging.getLogger(__name__)


class RegistryLink(Link):
    """The registry's own way to Redis: what wiring knows it by."""


@asynccontextmanager
async def open_registry_link(
    settings: RedisRegistrySettings,
    clock: Clock,
    mirror: RedisMirrorSettings | None = None,
    store: RedisStoreSettings | None = None,
) -> AsyncIterator[RegistryLink]:
    """Hold the registry's connections.

    Raises a named `StoreError` for what only a person can change: a wrong password, a Redis that
    evicts, a cluster. One that is down is waited for; the servers answer from memory meanwhile.
    """
    async with open_link(
        settings, clock, RegistryLink, mirror_redis=mirror, store_redis=store
    ) as link:
        if not link.is_usable:
            log.warning(
                "no redis for the registry yet: the discovery services list and take nothing at=%s"
                " hint='start it, or set [%s] url to where it is'", link.where,
                link.section or "registry_redis",
            )  # fmt: skip
        yield link


@asynccontextmanager
async def open_redis_registry(
    link: RegistryLink,
    settings: RedisRegistrySettings,
    clock: Clock,
    entropy: Entropy,
    identity: Identity,
) -> AsyncIterator[Registry]:
    """Keep listings in Redis, beside whoever else does."""
    yield RedisRegistry(link, settings, clock, entropy, identity.network.id)


@asynccontextmanager
async def open_registry_status(link: RegistryLink) -> AsyncIterator[StatusSource]:
    """Say how Redis is."""
    yield LinkStatus("registry_redis", link)

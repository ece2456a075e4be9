"""What this folder adds to a node, in two plugins: `store_redis` here, one object for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["store_redis"]


class _StoreRedis:
    """An item store that several nodes and services share."""

    @hookimpl
    def skycore_settings(self) -> hooktypes.Settings:
        """Where Redis is, how long it may take, how much history is kept."""
        from mirror_redis.settings import RedisStoreSettings

        return RedisStoreSettings

    @hookimpl
    def skycore_stores(self) -> hooktypes.Stores:
        """Items in Redis."""
        from mirror_redis.service import open_redis_store

        return [open_redis_store]

    @hookimpl
    def skycore_services(self) -> hooktypes.Services:
        """The connections and the node's own records, which the store and its status share."""
        from mirror_redis.own import OwnRecords
        from mirror_redis.service import StoreLink, open_own_records, open_store_link
        from skycore import Provider

        return [Provider(StoreLink, open_store_link), Provider(OwnRecords, open_own_records)]

    @hookimpl
    def skycore_status(self) -> hooktypes.Status:
        """How Redis is."""
        from mirror_redis.service import open_redis_status

        return [open_redis_status]


store_redis = _StoreRedis()

"""registry_redis: what discovery servers list is kept in a Redis that several of them may share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skycore import hookimpl

if TYPE_CHECKING:
    from skycore import hooktypes

__all__ = ["skycore_registries", "skycore_services", "skycore_settings", "skycore_status"]


@hookimpl
def skycore_settings() -> hooktypes.Settings:
    """Where Redis is, and how much may be listed."""
    from mirror_redis.registry_settings import RedisRegistrySettings

    return RedisRegistrySettings


@hookimpl
def skycore_services() -> hooktypes.Services:
    """The connections, which the registry and its status share."""
    from mirror_redis.registry_service import RegistryLink, open_registry_link
    from skycore import Provider

    return [Provider(RegistryLink, open_registry_link)]


@hookimpl
def skycore_registries() -> hooktypes.Registries:
    """Listings in Redis."""
    from mirror_redis.registry_service import open_redis_registry

    return [open_redis_registry]


@hookimpl
def skycore_status() -> hooktypes.Status:
    """How Redis is."""
    from mirror_redis.registry_service import open_registry_status

    return [open_registry_status]

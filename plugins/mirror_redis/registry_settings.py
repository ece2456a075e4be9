"""Settings of registry_redis."""

from __future__ import annotations

from pydantic import Field

from mirror_redis.settings import RedisSettings
from skycore.discovery.registries import RegistryBounds

__all__ = ["RedisRegistrySettings"]


class RedisRegistrySettings(RegistryBounds, RedisSettings):
    """A registry in Redis, shared by every server of a discovery service that uses the same one."""

    clock_ahead_max_s: int = Field(default=60, ge=0)
    """A server whose clock is ahead of Redis' by more than this ends nothing that others may still list. 0: not compared."""  # noqa: E501
    poll_s: float = Field(default=1.0, gt=0, le=60)
    """How often to look for what other servers wrote, where no notification came, seconds."""

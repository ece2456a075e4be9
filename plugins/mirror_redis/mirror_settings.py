"""Settings of mirror_redis."""

from __future__ import annotations

from pydantic import Field

from mirror_redis.settings import RedisSettings

__all__ = ["RedisMirrorSettings"]


class RedisMirrorSettings(RedisSettings):
    """What this node publishes is also written into a Redis that full nodes serve.

    How much is kept of what is replaced is for the full nodes there to say.
    """

    grace_s: float = Field(default=0.25, ge=0, le=10)
    """How long a publish waits for Redis, seconds; after that its report says `queued`."""
    copy_s: float = Field(default=1.0, ge=0, le=60)
    """How soon a single change that Redis has taken is also in this node's own store, seconds; 0: before its report, at the price of a commit each."""  # noqa: E501
    queue_bytes_max: int = Field(default=64 * 1024 * 1024, ge=1024)
    """Bytes of records that wait in memory; what is beyond is read from this node's own store."""
    records_max: int = Field(default=100_000, ge=1)
    """Records of this node that are kept in step in Redis; beyond that the oldest are let go."""
    check_s: float = Field(default=5.0, gt=0, le=30)
    """How often to look whether it is still the same Redis, and what time it is there, seconds."""
    audit_s: float = Field(default=30.0, gt=0, le=3_600)
    """How often to look whether Redis still holds every record of this node, seconds."""

"""Settings of store_redis, and what every connection to Redis is set with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import Field, field_serializer, field_validator

from mirror_redis.places import parse_place, without_password
from skycore.contracts.settings import PluginSettings
from skycore.errors import ConfigError

__all__ = ["RedisSettings", "RedisStoreSettings", "settled"]

LOCAL: Final = "redis://127.0.0.1:6379/0"


class RedisSettings(PluginSettings):
    """Where Redis is, who we are there, and how long it may take."""

    url: str = Field(default="", max_length=2_000, repr=False)
    """`redis://[user[:password]@]host[:port][/db]`, `rediss://` (TLS), `unix://[user[:password]@]/path[?db=N]`, or `redis+sentinel://[user[:password]@]host[:port],host[:port]…/service[/db]` (`rediss+sentinel://` for TLS). Empty: the Redis that `store_redis`, `mirror_redis` or `registry_redis` of this node names, and what this section leaves out is as there; where none does, redis://127.0.0.1:6379/0."""  # noqa: E501
    password_file: str = ""
    """File whose first line is the password, better than one in the URL."""
    password_env: str = Field(default="", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$|^$")
    """Environment variable that holds the password."""
    sentinel_password_file: str = ""
    """File with the password of the Sentinels, where they have one of their own."""
    tls_ca_file: str = ""
    """Certificates that sign the server's, PEM; none: the system's."""
    prefix: str = Field(default="", max_length=64, pattern=r"^[\x21-\x7e]*$")
    """What stands before every key, so that several networks share one Redis."""
    timeout_s: float = Field(default=1.0, gt=0, le=60)
    """How long a call may wait for an answer, seconds. After that Redis counts as down."""
    retry_s: float = Field(default=0.5, gt=0, le=60)
    """How often a Redis that is down is tried again, seconds; calls in between fail at once."""
    connections_max: int = Field(default=8, ge=1, le=1_000)
    """Connections held at once."""
    evicting_allowed: bool = False
    """Use a Redis that may throw away any key when it is full. Records will be lost there."""
    replicas_min: int = Field(default=0, ge=0, le=10)
    """Replicas that each write is waited for (WAIT); writes that reached fewer are counted."""
    replicas_wait_s: float = Field(default=0.1, gt=0, le=10)
    """How long to wait for them, seconds."""

    @field_validator("url")
    @classmethod
    def _is_a_place(cls, url: str) -> str:
        try:
            if url:
                parse_place(url)
        except ConfigError as bad:
            raise ValueError(f"{bad}" + (f" ({bad.hint})" if bad.hint else "")) from None
        return url

    @field_serializer("url")
    def _shown(self, url: str) -> str:
        return without_password(url)


class RedisStoreSettings(RedisSettings):
    """An item store in Redis, shared by every node and service that uses the same one."""

    history_versions_max: int = Field(default=4, ge=0, le=100)
    """Replaced items kept for each slot."""
    history_bytes_max: int = Field(default=64 * 1024 * 1024, ge=0)
    """Bytes that replaced items and blocks only of theirs may take; the oldest go first."""
    clock_ahead_max_s: int = Field(default=600, ge=0)
    """A node whose clock is ahead of Redis' by more than this drops nothing that seems to have ended: others still need it. 0: not compared."""  # noqa: E501
    poll_s: float = Field(default=1.0, gt=0, le=60)
    """How often to look for what others wrote, where no notification came, seconds."""
    own_bytes_max: int = Field(default=32 * 1024 * 1024, ge=0)
    """Bytes of records of this node's own that it keeps in memory, to bring them again into a Redis that was emptied; 0: none."""  # noqa: E501


def settled(
    own: RedisSettings, others: Mapping[str, RedisSettings | None]
) -> tuple[RedisSettings, str]:
    """Return how a part reaches Redis, and whose section says so; "" for its own.

    Why: a node has one Redis, which is named once. `others` are the node's other sections by name,
    None where the plugin is not active. A section with a `url` stands by itself, so no password
    is sent to a server that it was not meant for. Raises `ConfigError` where the others disagree.
    """
    named = {name: other for name, other in others.items() if other is not None and other.url}
    if own.url or not named:
        return own if own.url else own.model_copy(update={"url": LOCAL}), ""
    if len({other.url for other in named.values()}) > 1:
        raise ConfigError(
            f"which Redis? {' and '.join(f'[{name}]' for name in named)} name different ones",
            hint="set url in the third section too",
        )
    name, other = next(iter(named.items()))
    left_out = RedisSettings.model_fields.keys() - (own.model_fields_set - {"url"})
    return own.model_copy(update={field: getattr(other, field) for field in left_out}), name

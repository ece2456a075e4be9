"""What a link to Redis says in `visor info` and Health."""

from __future__ import annotations

from mirror_redis.failures import UP
from mirror_redis.link import Link
from skycore.contracts.status import Health, Status

__all__ = ["LinkStatus"]


class LinkStatus:
    """A StatusSource that asks nobody: the link knows how it is."""

    def __init__(self, name: str, link: Link) -> None:
        self.name = name
        self._link = link

    async def status(self) -> Status:
        """Return the state by name, where Redis is, and what happened on the way to it."""
        link = self._link
        fields = {
            "state": link.state,
            "server": link.where,
            **({"named_in": link.section} if link.section else {}),
            "version": link.info.get("redis_version", ""),
            "state_s": round(link.since_s, 1),
            **{name: count for name, count in sorted(link.counters.items()) if count},
        }
        trouble = link.trouble
        if trouble is None:
            return Status(Health.OK, f"{UP} at {link.where}", fields)
        fields["hint"] = trouble.hint
        health = Health.DEGRADED if link.is_usable else Health.DOWN
        return Status(health, f"{link.state}: {trouble}", fields)

"""What the mirror says in `visor info` and Health: how far behind Redis is, and why."""

from __future__ import annotations

from mirror_redis.link import Link
from mirror_redis.mirror_audit import Auditor
from mirror_redis.mirror_copies import Copies
from mirror_redis.mirror_ledger import Ledger
from mirror_redis.mirror_queue import Queue
from mirror_redis.mirror_writer import Writer
from mirror_redis.status import LinkStatus
from skycore.contracts.status import Health, Status

__all__ = ["MirrorStatus"]

LAG_MAX_S = 2.0
"""What full nodes on this Redis are promised; a mirror further behind says so."""


class MirrorStatus:
    """A StatusSource that asks nobody."""

    name = "mirror_redis"

    def __init__(
        self,
        link: Link,
        queue: Queue,
        ledger: Ledger,
        writer: Writer,
        auditor: Auditor,
        copies: Copies,
    ) -> None:
        self._link = LinkStatus(self.name, link)
        self._queue = queue
        self._ledger = ledger
        self._writer = writer
        self._auditor = auditor
        self._copies = copies

    async def status(self) -> Status:
        """Return lag, drops and failures with the link's own state. Never waits."""
        link = await self._link.status()
        writer, queue = self._writer, self._queue
        waiting, lag_s = writer.waiting, round(writer.lag_s, 1)
        fields = {
            "records": len(self._ledger),
            "waiting": waiting,
            "waiting_bytes": queue.bytes,
            "lag_s": lag_s,
            "coalesced": queue.coalesced,
            "dropped": queue.dropped + self._ledger.fallen,
            "healed": self._auditor.healed,
            "uncopied": self._copies.uncopied,
            "audits": self._auditor.audits,
            "clock_ahead_s": round(writer.ahead_ns / 1e9, 1),
            **{f"put_{name}": count for name, count in sorted(writer.counters.items())},
            **link.fields,
        }
        wait = f"; {waiting} records wait, the oldest for {lag_s:.1f} s" if waiting else ""
        if link.health is not Health.OK:
            return Status(link.health, link.summary + wait, fields)
        if writer.trouble is not None:
            fields["hint"] = writer.trouble.hint
            return Status(Health.DEGRADED, f"{writer.trouble}{wait}", fields)
        if self._auditor.is_clock_wrong:
            fields["hint"] = "set this machine's clock, or that of Redis: full nodes allow 5 min"
            side = "ahead of" if writer.ahead_ns > 0 else "behind"
            off = f"this clock is {abs(writer.ahead_ns) / 1e9:.0f} s {side} that of Redis"
            return Status(Health.DEGRADED, off + wait, fields)
        if lag_s > LAG_MAX_S:
            return Status(Health.DEGRADED, f"behind{wait}", fields)
        return Status(Health.OK, f"{len(self._ledger)} records, {link.summary}", fields)

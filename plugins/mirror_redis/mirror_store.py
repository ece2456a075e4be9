"""What a mirror asks of Redis besides what a store does: does all of ours stand there?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mirror_redis.failures import failure_of
from mirror_redis.opened import OpenedStore
from mirror_redis.rows import member_of
from skycore.contracts.store import ItemKey

__all__ = ["MirrorStore", "Standing"]


class Standing(NamedTuple):
    """What a slot in Redis holds."""

    rank: bytes
    """Empty where there is nothing that could be read."""
    until: int
    is_listed: bool
    """Whether the log and the listing know it; else it is a remnant of an eviction."""


def _standing(rank: bytes, until: bytes, listed: int) -> Standing:
    try:
        return Standing(bytes.fromhex(rank.decode("ascii")), int(until or b"0", 16), bool(listed))
    except ValueError:  # nothing that this schema writes: putting it again empties the slot
        return Standing(b"", 0, False)


class MirrorStore(OpenedStore):
    """The same store, by the same scripts, for one who only writes."""

    async def standing(self, keys: Sequence[ItemKey]) -> list[Standing]:
        """Return what stands in slots, in one round trip. Raises `StoreError`."""
        rows = await self.run("standing", *(member_of(*key) for key in keys)) if keys else []
        return [_standing(*row) for row in rows]

    async def look(self) -> bytes:
        """Return which store this is, asked and not remembered. Raises `StoreError`."""
        await self.run("place")
        return self.store_id

    async def server_ns(self) -> int:
        """Return the server's wall clock. Raises `StoreError`."""
        [told] = await self.link.call([(b"TIME",)])
        if isinstance(told, Exception):
            raise failure_of(told).error(self.link.where, str(told))
        seconds, micros = told
        return (int(seconds) * 1_000_000 + int(micros)) * 1_000

"""Listings in Redis: a Registry that several servers share.

Why a script for each call: a write compares nonces, stamps and lives with what is held, and others
write at the same time; inside Redis it is one step, and one round trip whatever its size (L7). Keys
and scripts: docs/protocols/registry.md.

A call may be sent twice where a connection breaks: then the first one's nonce is used up, and the
caller is told so. It is done once at most.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date
from typing import Any

from mirror_redis.failures import AnotherStore
from mirror_redis.link import Link
from mirror_redis.news import News
from mirror_redis.registry_codec import (
    beats_from,
    damaged,
    listing_from,
    write_words,
    written_from,
)
from mirror_redis.registry_settings import RedisRegistrySettings
from mirror_redis.rows import hex64, number
from mirror_redis.scripts import Scripts
from skycore.contracts.registry import (
    Beats,
    Listing,
    RegistryCapacity,
    RegistryPage,
    RegistryWrite,
    RegistryWritten,
)
from skycore.contracts.runtime import Clock, Entropy
from skycore.discovery.registries import (
    GONE_KEPT_S,
    beat_slot,
    begun_of,
    check_day,
    check_writes,
    cursor_at,
    first_day,
    position_of,
    too_many_entries,
)
from skycore.errors import StoreError, StoreFullError, StoreUnsupportedError, StoreVersionError

__all__ = ["PARTS", "RedisRegistry"]

log = logging.getLogger(__name__)
SCHEMA_VERSION = 1
PAGE_BYTES = 2 * 1024 * 1024
SWEPT_AT_ONCE = 1_000
PARTS: Mapping[str, Sequence[str]] = {
    "open": ("registry_open",),
    "write": ("registry_common", "registry_keeping", "registry_write"),
    "sweep": ("registry_common", "registry_keeping", "registry_sweep"),
    **{name: ("registry_common", f"registry_{name}") for name in ("nonce", "place", "changes",
                                                                  "beats")},
}  # fmt: skip
"""The scripts, and the files of `lua/` that each is put together from."""


class RedisRegistry:
    """Listings in Redis. Any number of them, in any processes, may stand on the same one."""

    def __init__(
        self,
        link: Link,
        settings: RedisRegistrySettings,
        clock: Clock,
        entropy: Entropy,
        network: bytes,
    ) -> None:
        self.link = link
        self._settings = settings
        self._clock = clock
        self._entropy = entropy
        self._network = network
        self._scripts = Scripts(link, PARTS, space="")
        self._ids: dict[str, bytes] = {}
        self._callers_max = number(settings.subjects_max * 10)

    @property
    def capacity(self) -> RegistryCapacity:
        """How much a table may hold."""
        return self._settings.capacity

    @property
    def round_trips(self) -> int:
        """How often something was sent to Redis and answered."""
        return self.link.round_trips

    # --- which registry this is -----------------------------------------------------------------

    async def open(self, table: str) -> bytes:
        """Return what scripts are told of a table: its id ‖ which run of which server this is."""
        if table not in self._ids:
            reply = await self._scripts.run(
                "open", table.encode(), self._entropy.bytes(16), number(SCHEMA_VERSION),
                self._network, number(self._clock.wall_ns() // 10**6),
            )  # fmt: skip
            found, schema, network, replid, run = map(bytes, reply)
            if schema != number(SCHEMA_VERSION):
                raise StoreVersionError(
                    f"the registry in Redis at {self.link.where} has schema {schema!r}; this"
                    f" program knows {SCHEMA_VERSION}",
                    hint="update this program, or set another prefix",
                )
            if network != self._network:
                raise StoreUnsupportedError(
                    f"Redis at {self.link.where} holds listings of another network",
                    hint="give each network a prefix of its own",
                )
            self._ids[table] = found + replid + run
        return self._ids[table]

    def _log_id(self, table: str) -> bytes:
        return hashlib.sha256(self._ids[table]).digest()

    async def _run(self, name: str, table: str, *arguments: bytes, is_write: bool = False) -> Any:
        """Run a script in this registry. Raises `StoreError`."""
        for _ in range(3):
            registry = await self.open(table)
            try:
                return await self._scripts.run(
                    name, registry, table.encode(), *arguments, is_write=is_write
                )
            except AnotherStore:
                log.warning("redis holds another registry than before: emptied, restarted or"
                            " failed over at=%s table=%s", self.link.where, table)  # fmt: skip
                self.link.counters["other_store"] += 1
                self._ids.pop(table, None)
                await self.link.hang_up()  # who is primary may be known to new connections only
        raise StoreError(
            f"Redis at {self.link.where}: another registry is in its place again and again"
        )

    def _channel(self, table: str) -> bytes:
        return f"{self.link.prefix}{table}:news:{self.link.db}".encode()

    # --- the contract ---------------------------------------------------------------------------

    async def write(self, table: str, writes: Sequence[RegistryWrite]) -> Sequence[RegistryWritten]:
        """Do writes, each as a whole, in order, by one script."""
        settings = self._settings
        check_writes(table, writes, settings)
        if not writes:
            return []
        now_ns = self._clock.wall_ns()
        now_s = now_ns // 10**9
        day, slot = beat_slot(now_s)
        words = [
            self._channel(table), hex64(now_ns // 10**6), hex64(now_ns), day.encode(),
            number(now_s // 86_400), number(slot), number(now_s), number(settings.entries_max),
            number(settings.subjects_max), number(settings.table_mib_max << 20),
            self._callers_max, number(len(writes)),
        ]  # fmt: skip
        for write in writes:
            words += write_words(write, now_ns)
        replies = await self._run("write", table, *words, is_write=True)
        if replies[0] == b"full":
            raise self._full(replies)
        return [written_from(write, reply) for write, reply in zip(writes, replies, strict=True)]

    def _full(self, reply: Sequence[Any]) -> StoreFullError:
        _, name, count = reply
        if name == b"entries_max":
            return too_many_entries(count, self._settings)
        return StoreFullError(f"the table is full: {name.decode()} is {count}")

    async def next_nonce(self, table: str, subject: bytes) -> int:
        """Return the nonce that the subject's next write must have."""
        return int(await self._run("nonce", table, subject.hex().encode()))

    async def changes(self, table: str, after: bytes | None, limit: int) -> RegistryPage:
        """Return a stretch of the change log."""
        while True:
            await self.open(table)
            log_id = self._log_id(table)
            place = b""
            if after is not None:
                place = number(position_of(after, log_id, table, 0, 2**63))
            now = hex64(self._clock.wall_ns() // 10**6)
            first, end, stopped, more, rows = await self._run(
                "changes", table, place, now, number(limit), number(PAGE_BYTES)
            )
            if self._ids.get(table) and self._log_id(table) == log_id:
                break  # else it was another registry by the end: look again
        begun = int(end)
        if after is not None:
            position_of(after, log_id, table, int(first), int(end))
            begun = begun_of(after)
        listings = tuple(self._readable(rows))
        try:
            position = int(stopped)
        except ValueError as bad:
            raise damaged(bad) from bad
        return RegistryPage(listings, cursor_at(log_id, table, position, begun), bool(more))

    def _readable(self, rows: Sequence[Sequence[bytes]]) -> Iterator[Listing]:
        """Yield listings; a row that no server of ours wrote must not hide what comes after it."""
        for row in rows:
            try:
                yield _listing(row)
            except ValueError as bad:
                self.link.counters["damaged"] += 1
                log.error("%s", damaged(bad))

    async def sweep(self, table: str, limit: int) -> int:
        """End entries whose life is over."""
        now_ns = self._clock.wall_ns()
        now_s = now_ns // 10**9
        count = await self._run(
            "sweep", table, self._channel(table), hex64(now_ns // 10**6),
            number(min(limit, SWEPT_AT_ONCE)), number(self._settings.clock_ahead_max_s),
            number((now_s - GONE_KEPT_S) * 1_000), number(_day_number(first_day(now_s))),
            self._callers_max, is_write=True,
        )  # fmt: skip
        self.link.warn("clock_ahead" if count < 0 else "")
        return max(int(count), 0)

    async def beats(self, table: str, day: str) -> Mapping[bytes, Beats]:
        """Return who was seen on a day."""
        known = check_day(day)
        if known < first_day(self._clock.wall_s()):
            return {}
        return beats_from(await self._run("beats", table, known.encode()))

    # --- news -----------------------------------------------------------------------------------

    def watch(self, table: str) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Learn of changes: told by Redis, and looked for every `poll_s` where nobody told."""

        async def look() -> tuple[int, int]:
            end, mark = await self._run("place", table)
            return int(end), int(mark)

        poll_s = self._settings.poll_s
        return News(self.link, look, self._channel(table), b"", poll_s=poll_s).watch()


def _listing(row: Sequence[bytes]) -> Listing:
    return listing_from(bytes.fromhex(row[0].decode("ascii")), row[1:])


def _day_number(day: str) -> int:
    return date.fromisoformat(day).toordinal() - date(1970, 1, 1).toordinal()

"""Items in Redis: an ItemStore that several nodes and services share.

Why everything is a script: others write at the same time, so what is compared and what is written
must be one step inside Redis (O20, O21, C35), and a batch must be one round trip. The schema:
docs/protocols/redis_schema.md.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio.lowlevel

from mirror_redis.cells import Cells
from mirror_redis.failures import AnotherStore
from mirror_redis.link import Link
from mirror_redis.news import News
from mirror_redis.puts import Puts
from mirror_redis.rows import lease_record, member_of, number, record, stored_item
from mirror_redis.scans import Scans
from mirror_redis.scripts import Scripts
from mirror_redis.settings import RedisStoreSettings
from skycore.contracts.runtime import Entropy
from skycore.contracts.store import (
    ChangeFilter,
    ChangePage,
    Fingerprint,
    ItemKey,
    PutOutcome,
    Usage,
)
from skycore.errors import StoreError, StoreUnsupportedError, StoreVersionError
from skycore.model.items import Cursor, ItemClass, Lease, RankedItem, StoredItem
from skycore.model.limits import BLOCK_GRACE_S, BLOCK_MAX

__all__ = ["RedisStore"]

log = logging.getLogger(__name__)
SCHEMA_VERSION = 1
CALL_ITEMS_MAX = 512
"""Slots of one call of a script: Redis does nothing else meanwhile (a few ms)."""
REPLY_BYTES = 2 * 1024 * 1024
"""A reply ends behind the row with which it is larger; the next call goes on."""
BLOCKS_ASKED_MAX = 2_000
DECODED_AT_ONCE = 128
"""Rows or leases turned over between two breaths of the event loop: 1 to 2 ms."""
_NO_ID = bytes(16)
_ANOTHER = "another store is in its place again and again"


class RedisStore:
    """An ItemStore in Redis. Any number of them, in any processes, may stand on the same one."""

    def __init__(
        self, link: Link, settings: RedisStoreSettings, entropy: Entropy, network: bytes
    ) -> None:
        self.link = link
        self._network = network
        self._scripts = Scripts(
            link, replicas_min=settings.replicas_min, replicas_wait_s=settings.replicas_wait_s
        )
        self._entropy = entropy
        self._id = b""
        self._replid = b""
        self._ahead_max = number(settings.clock_ahead_max_s)
        self.store_id = _NO_ID
        self._writer = entropy.bytes(8).hex().encode()
        channel = f"{link.prefix}dht:news:{link.db}".encode()
        self._who = record(channel, self._writer)
        self.news = News(
            link, self._place, channel, self._writer,
            poll_s=settings.poll_s, retry_s=settings.retry_s,
        )  # fmt: skip
        self._cells = Cells(self.run)
        self._scans = Scans(self.run, self.run_all, self._shown)
        self._puts = Puts(self._run_puts, self.run, settings, self._writer)

    # --- which store this is --------------------------------------------------------------------

    async def open(self) -> bytes:
        """Return what scripts are told of the store: its id ‖ the server's replication id."""
        if not self._id or self._replid != self.link.replid:
            found, schema, network = await self._scripts.run(
                "open", self._entropy.bytes(16), number(SCHEMA_VERSION), self._network
            )
            if schema != number(SCHEMA_VERSION):
                raise StoreVersionError(
                    f"Redis at {self.link.where} has schema {schema!r}; this program knows"
                    f" {SCHEMA_VERSION}",
                    hint="update this program, or set another prefix",
                )
            if network != self._network:
                raise StoreUnsupportedError(
                    f"Redis at {self.link.where} holds records of another network",
                    hint="give each network a prefix of its own: its records are no others'",
                )
            self._id, self._replid = bytes(found), self.link.replid
            self._is_now(hashlib.sha256(self._id + self._replid).digest()[:16])
        return self._id + self._replid

    def _is_now(self, store_id: bytes) -> None:
        """Take note of which store this is; a new one has other items and other positions."""
        if store_id == self.store_id:
            return
        if self.store_id != _NO_ID:
            log.warning(
                "redis holds another store than before: flushed, restored or failed over"
                " at=%s store=%s", self.link.where, store_id.hex()[:8],
            )  # fmt: skip
            self.link.counters["other_store"] += 1
        self.store_id = store_id
        self._cells.forget()
        self.news.ring()

    async def run(self, name: str, *arguments: bytes) -> Any:
        """Run a script of lua/ in this store, as one that reads. Raises `StoreError`."""
        return (await self.run_all(name, [arguments]))[0]

    async def run_all(
        self, name: str, calls: Sequence[Sequence[bytes]], *, is_write: bool = False
    ) -> list[Any]:
        """Run a script several times in one step and one round trip. Raises `StoreError`.

        Each call is told which store is meant; where another one is found there, it is asked again.
        """
        for _ in range(3):
            store = await self.open()
            try:
                return await self._scripts.run_all(
                    name, [(store, *arguments) for arguments in calls], is_write=is_write
                )
            except AnotherStore:
                self._id = b""
                await self.link.hang_up()  # who is primary may be known to new connections only
        raise StoreError(f"Redis at {self.link.where}: {_ANOTHER}")

    async def _change(self, name: str, calls: Sequence[Sequence[bytes]]) -> list[Any]:
        """Run a script that writes; its answers begin with the mark of the change."""
        replies = await self.run_all(
            name, [(self._who, *arguments) for arguments in calls], is_write=True
        )
        for reply in replies:
            if reply != b"again":
                self.news.is_ours(reply[0])
        return replies

    async def _run_puts(self, calls: Sequence[Sequence[bytes]]) -> list[Any]:
        return await self._change("put", calls)

    # --- reading --------------------------------------------------------------------------------

    async def _shown(self, rows: Sequence[Any]) -> list[StoredItem]:
        """Return items of rows; what cannot be read is dropped, by name."""
        items, damaged = [], []
        for count, row in enumerate(rows, 1):
            if count % DECODED_AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
            item = stored_item(row)
            if item is not None:
                items.append(item)
            else:
                damaged.append(record(row[0], row[3] if len(row) > 3 else b"?"))
        if damaged:
            await self._drop_damaged(damaged)
        return items

    async def _drop_damaged(self, slots: Sequence[bytes]) -> None:
        log.error(
            "rows that cannot be read are dropped from redis rows=%d first=%s",
            len(slots), slots[0][4:20].decode("ascii", "replace"),
        )  # fmt: skip
        self.link.counters["damaged"] += len(slots)
        await self._change("drop", [slots])

    async def get(self, targets: Sequence[bytes]) -> Sequence[tuple[StoredItem, ...]]:
        """Return what the slots of each target hold."""
        wanted = list(dict.fromkeys(targets))
        found: dict[bytes, list[StoredItem]] = {target: [] for target in wanted}
        for start in range(0, len(wanted), CALL_ITEMS_MAX):
            part = wanted[start : start + CALL_ITEMS_MAX]
            for item in (await self._slots(part))[1]:
                found[item.target].append(item)
        return [tuple(found[target]) for target in targets]

    async def _slots(self, targets: Sequence[bytes]) -> tuple[int, list[StoredItem]]:
        """Return the end of the log, and the slots of targets, highest class first."""
        classes = sorted((int(c) for c in ItemClass), reverse=True)
        members = [member_of(target, c) for target in targets for c in classes]
        items: list[StoredItem] = []
        while True:
            end, looked, rows = await self.run("get", number(REPLY_BYTES), *members)
            items += await self._shown(rows)
            members = members[looked:]
            if not members:
                return end, items

    async def changes(
        self, after: Cursor | None, wanted: ChangeFilter, limit: int, bytes_max: int
    ) -> ChangePage:
        """Return a stretch of the change log."""
        await self.open()
        while True:
            before = self.store_id
            if wanted.salt is not None and wanted.subject is not None:
                page = await self._scans.changes_of_one(
                    before, after, wanted, limit, bytes_max, self._slots
                )
            else:
                page = await self._scans.changes(before, after, wanted, limit, bytes_max)
            if self.store_id == before:
                return page  # else it was another store by the end: look again

    async def listing(
        self, salt: bytes | None, low: bytes, high: bytes, limit: int
    ) -> Sequence[StoredItem]:
        """Return items by target."""
        return await self._scans.listing(salt, low, high, limit)

    async def fingerprints(
        self, salt: bytes | None, ranges: Sequence[tuple[bytes, bytes]]
    ) -> Sequence[Fingerprint]:
        """Return a fingerprint for each range."""
        await self.open()
        return await self._cells.over(salt, ranges)

    async def blocks(self, hashes: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return blocks; one that is not what its name says is not there."""
        wanted = list(dict.fromkeys(hashes))
        found: dict[bytes, bytes] = {}
        damaged: list[bytes] = []
        while wanted:
            part = wanted[:BLOCKS_ASKED_MAX]
            limits = record(number(REPLY_BYTES), number(BLOCK_MAX))
            looked, blocks = await self.run("blocks", limits, b"".join(part))
            for name, block in zip(part[:looked], blocks, strict=True):
                if hashlib.sha256(block).digest() == name:
                    found[name] = block
                elif block:
                    sha = hashlib.sha1(block, usedforsecurity=False).hexdigest()
                    damaged += (name, sha.encode())
            wanted = wanted[looked:]
        if damaged:
            log.error("damaged blocks are forgotten blocks=%d", len(damaged) // 2)
            self.link.counters["damaged"] += len(damaged) // 2
            await self.run("unblock", b"", *damaged)
        return [found.get(name) for name in hashes]

    async def history(self, target: bytes, limit: int) -> Sequence[StoredItem]:
        """Return replaced items."""
        return await self._scans.history(target, limit)

    async def usage(self) -> Mapping[bytes, Usage]:
        """Return what is held under each salt."""
        return _usages(await self.run("usage"))

    async def signer_usage(self, accounts: Sequence[bytes]) -> Sequence[Usage]:
        """Return what is held on each account."""
        found: dict[bytes, Usage] = {}
        asked = list(dict.fromkeys(accounts))
        for start in range(0, len(asked), CALL_ITEMS_MAX):
            found |= _usages(await self.run("usage", *asked[start : start + CALL_ITEMS_MAX]))
        return [found[account] for account in accounts]

    # --- writing --------------------------------------------------------------------------------

    async def put_many(
        self, items: Sequence[RankedItem], blocks: Mapping[bytes, bytes] | None = None
    ) -> Sequence[PutOutcome]:
        """Compare and set by rank."""
        return await self._puts.put_many(items, blocks or {}) if items else []

    async def renew(self, leases: Sequence[Lease], now_ns: int) -> Sequence[PutOutcome]:
        """Set leases."""
        calls: list[list[bytes]] = []
        for start in range(0, len(leases), CALL_ITEMS_MAX):
            calls.append([lease_record(lease) for lease in leases[start : start + CALL_ITEMS_MAX]])
            await anyio.lowlevel.checkpoint()
        replies = await self._change("renew", calls) if calls else []
        return [PutOutcome(code, int(seq, 16)) for _, part in replies for code, seq in part]

    async def drop(self, keys: Sequence[ItemKey], positions: Sequence[int] | None = None) -> int:
        """Forget slots."""
        held = [number(p) for p in positions] if positions is not None else [b""] * len(keys)
        slots = [record(member_of(*key), p) for key, p in zip(keys, held, strict=True)]
        calls = [
            slots[start : start + CALL_ITEMS_MAX] for start in range(0, len(slots), CALL_ITEMS_MAX)
        ]
        replies = await self._change("drop", calls) if calls else []
        return sum(int(dropped) for _, dropped in replies)

    async def sweep(self, now_s: int) -> int:
        """Drop what has ended, in portions: others write in between."""
        limits = record(
            number(now_s), number(BLOCK_GRACE_S), number(CALL_ITEMS_MAX), self._ahead_max
        )
        count = 0
        while True:
            [(_, dropped, more)] = await self._change("sweep", [[limits]])
            self.link.warn("clock_ahead" if dropped < 0 else "")
            count += max(int(dropped), 0)
            if not more:
                return count

    # --- others ---------------------------------------------------------------------------------

    async def _place(self) -> tuple[int, int]:
        end, mark = await self.run("place")
        return end, mark

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Tell when others wrote here."""
        return self.news.watch()


def _usages(flat: Sequence[Any]) -> dict[bytes, Usage]:
    triples = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    return {bytes(name): Usage(int(items), int(size)) for name, items, size in triples}

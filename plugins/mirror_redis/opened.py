"""One store in Redis, opened: which one it is, scripts called in it, and what is written.

Why apart from the store: a mirror only writes, and asks other questions; both must agree on which
store they speak of. Every call says so, inside the script, so that a store that was flushed or
restored, or another primary, is noticed by the call itself and not some time later.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import anyio.lowlevel

from mirror_redis.failures import AnotherStore
from mirror_redis.link import Link
from mirror_redis.puts import Puts, not_done
from mirror_redis.rows import lease_record, member_of, number, record
from mirror_redis.scripts import Scripts
from skycore.contracts.runtime import Entropy
from skycore.contracts.store import ItemKey, PutOutcome
from skycore.errors import StoreError, StoreUnsupportedError, StoreVersionError
from skycore.model.items import Lease, RankedItem

__all__ = ["CALL_ITEMS_MAX", "NO_ID", "History", "OpenedStore"]

log = logging.getLogger(__name__)
SCHEMA_VERSION = 1
CALL_ITEMS_MAX = 512
"""Slots of one call of a script: Redis does nothing else meanwhile (a few ms)."""
NO_ID = bytes(16)
_ANOTHER = "another store is in its place again and again"

History = tuple[int, int]
"""Versions of each slot, and bytes of all, that are kept of what was replaced."""


class OpenedStore:
    """The store behind a link, as whoever writes needs it."""

    def __init__(
        self,
        link: Link,
        entropy: Entropy,
        network: bytes,
        history: History | None = None,
    ) -> None:
        """With no `history` the bounds are those that the full nodes there have set."""
        self.link = link
        self._network = network
        self._scripts = Scripts(link)
        self._entropy = entropy
        self._id = b""
        self._replid = b""
        self._bounds = [number(n) for n in history] if history else [b"", b""]
        self.store_id = NO_ID
        self.moved = anyio.Event()
        """Set when another store than before is found in its place; then there is a new one."""
        self._writer = entropy.bytes(8).hex().encode()
        self._channel = f"{link.prefix}dht:news:{link.db}".encode()
        self._who = record(self._channel, self._writer)
        self._puts = Puts(self._run_puts, self.run, self._bounds, self._writer)

    # --- which store this is --------------------------------------------------------------------

    async def open(self) -> bytes:
        """Return what scripts are told of the store: its id ‖ the server's replication id."""
        if not self._id or self._replid != self.link.replid:
            found, schema, network = await self._scripts.run(
                "open", self._entropy.bytes(16), number(SCHEMA_VERSION), self._network,
                *self._bounds,
            )  # fmt: skip
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
        before, self.store_id = self.store_id, store_id
        if before != NO_ID:
            log.warning(
                "redis holds another store than before: flushed, restored or failed over"
                " at=%s store=%s", self.link.where, store_id.hex()[:8],
            )  # fmt: skip
            self.link.counters["other_store"] += 1
        self.forget()
        if before != NO_ID:
            self.moved.set()
            self.moved = anyio.Event()

    def forget(self) -> None:
        """Forget what was known of the store before."""

    # --- calling --------------------------------------------------------------------------------

    async def run(self, name: str, *arguments: bytes) -> Any:
        """Run a script of lua/ in this store, as one that reads. Raises `StoreError`."""
        return (await self.run_all(name, [arguments]))[0]

    async def run_all(
        self, name: str, calls: Sequence[Sequence[bytes]], *, is_write: bool = False
    ) -> list[Any]:
        """Run a script several times in one step and one round trip.

        Each call is told which store is meant; where another one is found there, it is asked
        again. Raises `StoreError`; of a write whose calls did not all fail, those that did are
        answered with theirs.
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

    async def change(self, name: str, calls: Sequence[Sequence[bytes]]) -> list[Any]:
        """Run a script that writes; its answers begin with the mark of the change."""
        replies = await self.run_all(
            name, [(self._who, *arguments) for arguments in calls], is_write=True
        )
        for reply in replies:
            if isinstance(reply, list):
                self.wrote(reply[0])
        return replies

    def wrote(self, mark: int) -> None:
        """Take note of the mark of a change of ours."""

    async def _run_puts(self, calls: Sequence[Sequence[bytes]]) -> list[Any]:
        return await self.change("put", calls)

    # --- writing --------------------------------------------------------------------------------

    async def put_many(
        self, items: Sequence[RankedItem], blocks: Mapping[bytes, bytes] | None = None
    ) -> Sequence[PutOutcome]:
        """Compare and set by rank."""
        return await self._puts.put_many(items, blocks or {}) if items else []

    async def renew(self, leases: Sequence[Lease], now_ns: int) -> Sequence[PutOutcome]:
        """Set leases."""
        parts = [
            leases[start : start + CALL_ITEMS_MAX]
            for start in range(0, len(leases), CALL_ITEMS_MAX)
        ]
        calls: list[list[bytes]] = []
        for part in parts:
            calls.append([lease_record(lease) for lease in part])
            await anyio.lowlevel.checkpoint()
        replies = await self.change("renew", calls) if calls else []
        outcomes: list[PutOutcome] = []
        for part, reply in zip(parts, replies, strict=True):
            if isinstance(reply, StoreError):
                outcomes += [not_done(reply)] * len(part)
            else:
                outcomes += [PutOutcome(code, int(seq, 16)) for code, seq in reply[1]]
        return outcomes

    async def drop(self, keys: Sequence[ItemKey], positions: Sequence[int] | None = None) -> int:
        """Forget slots."""
        held = [number(p) for p in positions] if positions is not None else [b""] * len(keys)
        slots = [record(member_of(*key), p) for key, p in zip(keys, held, strict=True)]
        calls = [
            slots[start : start + CALL_ITEMS_MAX] for start in range(0, len(slots), CALL_ITEMS_MAX)
        ]
        replies = await self.change("drop", calls) if calls else []
        return sum(int(reply[1]) for reply in replies if isinstance(reply, list))

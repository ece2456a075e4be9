"""Item stores alone: puts, the same puts again, the change log page by page, reads."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.harness import Figure
from benchmarks.nodes import ITEM_LIFE_S, NETWORK, in_loop
from benchmarks.workloads import signed_items
from skycore.contracts.store import ChangeFilter, ItemStore
from skycore.model.items import (
    ItemClass,
    MutableItem,
    RankedItem,
    item_digest,
    item_rank,
    item_signed_bytes,
)
from skycore.runtime.clock import RealClock
from skycore.runtime.entropy import RealEntropy
from skycore.runtime.files import FolderFiles
from skycore.runtime.workers import ThreadWorkers
from store_memory.service import open_memory_store
from store_memory.settings import MemoryStoreSettings
from store_sqlite.service import open_sqlite_store
from store_sqlite.settings import SqliteStoreSettings

ITEMS = 10_000
BATCH = 512
PAGE_BYTES = 512 * 1024


@asynccontextmanager
async def _stores(name: str) -> AsyncIterator[ItemStore]:
    if name == "memory":
        async with open_memory_store(MemoryStoreSettings(), RealEntropy()) as store:
            yield store
        return
    with tempfile.TemporaryDirectory() as folder:
        async with open_sqlite_store(
            SqliteStoreSettings(), FolderFiles(Path(folder)), RealEntropy(), ThreadWorkers()
        ) as store:
            yield store


def _ranked(item: MutableItem, now_ns: int) -> RankedItem:
    signed = item_signed_bytes(NETWORK, item)
    rank = item_rank(item.seq, signed, item.sig)
    return RankedItem(
        item.target, int(ItemClass.OWNER), rank, item_digest(signed), item, item.signer, now_ns
    )


class _Timer:
    """Units per wall second, and the CPU of each (threads included)."""

    def __init__(self) -> None:
        self._cpu, self._began = time.process_time(), time.perf_counter()

    def figure(self, what: str, units: int, unit: str) -> Figure:
        took = time.perf_counter() - self._began
        cpu = (time.process_time() - self._cpu) / units * 1e6
        return Figure(what, units / took, unit, beside=f"{cpu:.1f} µs of CPU each")


async def _measure(name: str, ranked: list[RankedItem]) -> list[Figure]:
    found = []
    async with _stores(name) as store:
        for what in ("put_many of 512", "the same again"):
            timer = _Timer()
            for start in range(0, ITEMS, BATCH):
                outcomes = await store.put_many(ranked[start : start + BATCH])
                assert all(outcome.accepted for outcome in outcomes)
            found.append(timer.figure(f"{name}: {what}", ITEMS, "items/s"))
        timer, cursor, count = _Timer(), None, 0
        while True:
            page = await store.changes(cursor, ChangeFilter(), 2_048, PAGE_BYTES)
            count, cursor = count + len(page.entries), page.cursor
            if not page.has_more:
                break
        assert count == ITEMS
        found.append(timer.figure(f"{name}: change log, pages of 512 KiB", ITEMS, "items/s"))
        timer = _Timer()
        for one in ranked[::10]:
            assert await store.get([one.target])
        found.append(timer.figure(f"{name}: get, one target a call", ITEMS // 10, "1/s"))
    return found


def figures(*, peers: bool) -> Iterator[Figure]:
    """Yield the lines."""
    clock = RealClock()
    items = signed_items(NETWORK, ITEMS, until=clock.wall_s() + ITEM_LIFE_S)
    ranked = [_ranked(item, clock.wall_ns()) for item in items]
    for name in ("memory", "sqlite"):
        yield from in_loop("uvloop", _measure, name, ranked)

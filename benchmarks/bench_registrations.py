"""Registrations: signed POSTs to a real transport discovery, and the list that it answers."""

from __future__ import annotations

import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec
from anyio.abc import SocketStream

from benchmarks.harness import Figure, quantile
from benchmarks.nodes import in_loop
from benchmarks.workloads import FLEET_VISORS, HEARTBEAT_RECORDS, fleet, secret_of
from discovery_transport.server.fleet import ALL, Fleet
from discovery_transport.server.told import body_of
from skycore.contracts.registry import Listed, RegistryWrite
from skycore.contracts.runtime import Identity
from skycore.discovery.directory import open_directory
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.model.packets import transport_id
from skycore.model.requests import signed
from skycore.runtime.clock import RealClock
from skycore.testing.dictregistry import DictRegistry
from skycore.testing.fakes import InlineWorkers
from skycore.testing.processes import NodeProcess
from skycore.testing.redisserver import RedisServer

NETWORK: Final = NetworkConstants(ED25519, "bench")
SIZES: Final = ((1, 64, 8), (50, 32, 6), (916, 8, 3))
"""Transports in a request, keys that send them, and how often."""
BEATERS, BEATS, BEAT_TRANSPORTS = 250, 8, 4
CYCLE_S: Final = 90.0
CONNECTIONS: Final = 16
PACED_S: Final = 10.0
PACED_CONNECTIONS: Final = 32
WHOLE: Final = "BENCH_WHOLE_HEARTBEAT"
"""Set in the environment: all 50,000 keys over 90 s, instead of a ninth of them."""
TIMES: Final = 10
POLLS: Final = 300
LOOP: Final = "uvloop"
PATH: Final = "/tpd/v3/transports/"
TICK_S: Final = 1.0 / os.sysconf("SC_CLK_TCK")


def who(name: str) -> Identity:
    """Return a key of the network of this benchmark."""
    return Identity(NETWORK, secret_of(NETWORK, name), bytes(16))


def entries(me: Identity, count: int, label: str = "automatic") -> bytes:
    """Return the body of a registration."""
    made = []
    for index in range(count):
        other = bytes(ED25519.public(secret_of(NETWORK, f"peer/{index}")))
        edges = sorted((bytes(me.public), other))
        t_id = transport_id(edges[0], edges[1], "stcpr")
        made.append(body_of(t_id, (edges[0], edges[1]), "stcpr", label))
    return b"[" + b",".join(made) + b"]"


def request(me: Identity, host: str, nonce: int, body: bytes) -> bytes:
    """Return a signed registration as it goes over the wire."""
    said = signed(NETWORK.id, "POST", host, PATH.encode(), nonce, body)
    lines = (
        f"POST {PATH} HTTP/1.1",
        f"Host: {host}",
        f"SW-Public: {me.public.hex()}",
        f"SW-Nonce: {nonce}",
        f"SW-Sig: {me.sign(said).hex()}",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Wire:
    """One kept connection: HTTP/1.1 by hand, so that the client costs little."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream

    async def ask(self, whole: bytes) -> tuple[int, bytes, bytes]:
        """Send a request; return status, head and body."""
        await self._stream.send(whole)
        held = b""
        while b"\r\n\r\n" not in held:
            held += await self._stream.receive()
        head, _, body = held.partition(b"\r\n\r\n")
        _, _, rest = head.lower().partition(b"content-length: ")
        size = int(rest.split(b"\r\n", 1)[0] or b"0") if rest else 0
        parts, got = [body], len(body)
        while got < size:
            parts.append(await self._stream.receive())
            got += len(parts[-1])
        return int(head.split(b" ", 2)[1]), head, b"".join(parts)


async def sent(host: str, lanes: Sequence[Sequence[bytes]]) -> tuple[float, list[float]]:
    """Send what is prepared, each lane in order on a connection; return seconds in all and each."""
    address, port = host.split(":")
    each: list[float] = []

    async def run(lane: Sequence[bytes]) -> None:
        async with await anyio.connect_tcp(address, int(port)) as stream:
            wire = Wire(stream)
            for whole in lane:
                began = time.perf_counter()
                status, _, body = await wire.ask(whole)
                each.append(time.perf_counter() - began)
                if status != 201:
                    raise RuntimeError(f"{status}: {body[:200]!r}")

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for lane in lanes:
            tasks.start_soon(run, lane)
    return time.perf_counter() - began, each


async def nonces(host: str, people: Sequence[Identity]) -> list[int]:
    """Ask for the keys' next nonces."""
    address, port = host.split(":")
    found = []
    async with await anyio.connect_tcp(address, int(port)) as stream:
        wire = Wire(stream)
        for me in people:
            path = f"/tpd/security/nonces/{me.public.hex()}"
            _, _, body = await wire.ask(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            found.append(int(msgspec.json.decode(body)["next_nonce"]))
    return found


def lanes_of(rounds: Sequence[Sequence[bytes]]) -> list[list[bytes]]:
    """Return requests (by round, then by key) on connections; a key's stay in order on one."""
    lanes: list[list[bytes]] = [[] for _ in range(CONNECTIONS)]
    for each in rounds:
        for index, whole in enumerate(each):
            lanes[index % CONNECTIONS].append(whole)
    return [lane for lane in lanes if lane]


def cpu_s(pid: int) -> float:
    """Return the processor seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


@contextmanager
def served(kind: str) -> Iterator[tuple[str, Callable[[], float]]]:
    """Run a transport discovery; yield its host and what tells the CPU seconds it used."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        node = stack.enter_context(NodeProcess(folder / "n"))
        more, pids = [], []
        if kind == "redis":
            server = RedisServer(folder / "redis").start()
            stack.callback(server.stop)
            assert server.process is not None
            pids.append(server.process.pid)
            more.append(f"registry_redis.url={server.url}")
        node.start(
            f'node.enable=["http_server","registry_{kind}","discovery_transport_server"]',
            "network.name=bench",
            "transport_stcpr.listen=127.0.0.1:0",
            "http_server.listen=127.0.0.1:0",
            "http_server.requests_per_minute=0",
            "discovery_transport_server.requests_per_minute=0",
            "discovery_transport_server.feed=false",
            *more,
        )
        assert node.process is not None
        pids.append(node.process.pid)
        parts = {part["name"]: part for part in node.run("visor", "info")["parts"]}
        host = str(parts["http"]["fields"]["url"]).removeprefix("http://")
        yield host, lambda: sum(map(cpu_s, pids))


def _each(
    people: Sequence[Identity], host: str, first: Sequence[int], later: int, bodies: Sequence[bytes]
) -> Iterator[tuple[Identity, str, int, bytes]]:
    for me, nonce, body in zip(people, first, bodies, strict=True):
        yield me, host, nonce + later, body


def _registrations(kind: str, host: str) -> Iterator[Figure]:
    for size, keys, times in SIZES:
        people = [who(f"{kind}/{size}/{i}") for i in range(keys)]
        bodies = [entries(me, size) for me in people]
        first = in_loop(LOOP, nonces, host, people)
        rounds = [
            [request(*of) for of in _each(people, host, first, later, bodies)]
            for later in range(times)
        ]
        first_s, _ = in_loop(LOOP, lambda r=rounds: sent(host, lanes_of(r[:1])))
        took_s, each = in_loop(LOOP, lambda r=rounds: sent(host, lanes_of(r[1:])))
        for what, count, seconds in (
            ("new", keys, first_s),
            ("unchanged", keys * (times - 1), took_s),
        ):
            yield Figure(f"{kind}: POST of {size}, {what}", count / seconds, "POST/s")
        yield Figure(
            f"{kind}: POST of {size}, p99 of {CONNECTIONS} at once",
            quantile(each, 0.99) * 1e3,
            "ms",
        )


async def _paced(host: str, requests: Sequence[bytes], rate: float) -> float:
    """Send at a rate, whatever the answers take; return how many seconds the last one was late."""
    address, port = host.split(":")
    give, take = anyio.create_memory_object_stream[bytes](len(requests))

    async def run() -> None:
        async with await anyio.connect_tcp(address, int(port)) as stream:
            wire = Wire(stream)
            async for whole in take:
                status, _, body = await wire.ask(whole)
                if status != 201:
                    raise RuntimeError(f"{status}: {body[:200]!r}")

    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        for _ in range(PACED_CONNECTIONS):
            tasks.start_soon(run)
        with give:
            for index, whole in enumerate(requests):
                await anyio.sleep_until(began + index / rate)
                give.send_nowait(whole)
    return anyio.current_time() - began - (len(requests) - 1) / rate


def _paced_heartbeat(kind: str, host: str, cpu: Callable[[], float]) -> Iterator[Figure]:
    """W-heartbeat at its own rate: 555 a second; each key says once more what it lists."""
    rate = HEARTBEAT_RECORDS / CYCLE_S
    count = HEARTBEAT_RECORDS if os.environ.get(WHOLE) else round(rate * PACED_S)
    people = [who(f"{kind}/paced/{i}") for i in range(count)]
    bodies = [entries(me, BEAT_TRANSPORTS) for me in people]
    first = in_loop(LOOP, nonces, host, people)
    listed = [request(*of) for of in _each(people, host, first, 0, bodies)]
    in_loop(LOOP, lambda: sent(host, lanes_of([listed])))
    for index in range(0, count, 100):  # one in a hundred has changed
        bodies[index] = entries(people[index], BEAT_TRANSPORTS, "changed")
    again = [request(*of) for of in _each(people, host, first, 1, bodies)]
    before, began = cpu(), time.perf_counter()
    late_s = in_loop(LOOP, lambda: _paced(host, again, rate))
    share = (cpu() - before) / (time.perf_counter() - began) * 100
    told = f"{count:,} keys in {count / rate:.0f} s, the last answer {late_s * 1e3:.0f} ms after"
    yield Figure(f"{kind}: W-heartbeat at its rate, CPU of all processes", share, "%", 20.0,
                 at_most=True, beside=told)  # fmt: skip


def _heartbeat(kind: str, host: str, cpu: Callable[[], float]) -> Iterator[Figure]:
    people = [who(f"{kind}/beat/{i}") for i in range(BEATERS)]
    bodies = [entries(me, BEAT_TRANSPORTS) for me in people]
    rounds, first = [], in_loop(LOOP, nonces, host, people)
    for later in range(BEATS + 1):
        for index in range(later, BEATERS, 100):  # one in a hundred has changed
            bodies[index] = entries(people[index], BEAT_TRANSPORTS, f"round {later}")
        rounds.append([request(*of) for of in _each(people, host, first, later, bodies)])
    in_loop(LOOP, lambda: sent(host, lanes_of(rounds[:1])))
    before = cpu()
    took_s, _ = in_loop(LOOP, lambda: sent(host, lanes_of(rounds[1:])))
    used_s = (cpu() - before) / (BEATERS * BEATS)
    yield Figure(f"{kind}: re-registrations, 99 % unchanged", BEATERS * BEATS / took_s, "POST/s")
    yield Figure(f"{kind}: CPU of one, all processes", used_s * 1e3, "ms")
    share = used_s * HEARTBEAT_RECORDS / CYCLE_S * 100
    yield Figure(f"{kind}: W-heartbeat, 50,000 in 90 s, of one core", share, "%")


async def _polled(host: str) -> Mapping[str, float]:
    """Poll the list that stands now: whole, packed, and held already."""
    address, port = host.split(":")
    async with await anyio.connect_tcp(address, int(port)) as stream:
        wire = Wire(stream)
        head = f"GET /tpd/all-transports HTTP/1.1\r\nHost: {host}\r\n"
        _, told, body = await wire.ask(f"{head}\r\n".encode())
        tag = told.lower().partition(b"etag: ")[2].split(b"\r\n", 1)[0].decode()
        times = []
        for _ in range(POLLS):
            began = time.perf_counter()
            status, _, nothing = await wire.ask(f"{head}If-None-Match: {tag}\r\n\r\n".encode())
            times.append(time.perf_counter() - began)
            if status != 304 or nothing:
                raise RuntimeError(f"{status}")
    return {"bytes": float(len(body)), "s": statistics.median(times)}


async def _listed() -> list[Figure]:
    """W-fleet ten times over, in this process: what the list costs when something changed."""
    clock = RealClock()
    registry = DictRegistry(clock)
    keys = [bytes(ED25519.public(secret_of(NETWORK, f"fleet/{i}"))) for i in range(FLEET_VISORS)]
    by_key: dict[bytes, list[Listed]] = {}
    for times in range(TIMES):
        mine = [bytes((times,)) + key[1:] for key in keys]
        for one, other, kind in fleet(times):
            edges = sorted((mine[one], mine[other]))
            t_id = transport_id(edges[0], edges[1], kind)
            body = body_of(t_id, (edges[0], edges[1]), kind, "automatic")
            for edge in edges:
                by_key.setdefault(edge, []).append(Listed(t_id.bytes, body))
    async with open_directory(registry, "transport-discovery", clock) as directory:
        writes = [RegistryWrite(key, put=tuple(put)) for key, put in by_key.items()]
        for start in range(0, len(writes), 500):
            await directory.write(writes[start : start + 500])
        with directory.subscribe() as changes:
            fleet_ = Fleet(directory, changes, InlineWorkers())
            first_s, whole = _timed(lambda: fleet_.whole(ALL))
            key, put = next(iter(by_key.items()))
            changed = []
            for label in range(5):
                told = msgspec.json.decode(put[0].body)
                body = msgspec.json.encode({**told, "label": str(label)})
                await directory.write([RegistryWrite(key, put=(Listed(put[0].key, body),))])
                changed.append(_timed(lambda: fleet_.whole(ALL))[0])
            began = time.perf_counter()
            packed = await fleet_.packed(ALL)
            packed_s = time.perf_counter() - began
    told = f"{directory.entry_count:,} entries of {len(by_key):,} keys"
    return [
        Figure("tp all, W-fleet x 10: first list", first_s * 1e3, "ms", beside=told),
        Figure("tp all: list after a change", statistics.median(changed) * 1e3, "ms"),
        Figure("tp all: bytes", len(whole.body) / 2**20, "MiB"),
        Figure("tp all: bytes in gzip", len(packed.body) / 2**20, "MiB"),
        Figure("tp all: packing, once for each state", packed_s * 1e3, "ms"),
    ]


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    done = work()
    return time.perf_counter() - began, done


def figures(*, peers: bool) -> Iterator[Figure]:
    """Measure; Redis where its registry is installed."""
    del peers
    yield from in_loop(LOOP, _listed)
    for kind in ("sqlite", "redis"):
        if kind == "redis" and importlib.util.find_spec("mirror_redis.registry_service") is None:
            continue
        with served(kind) as (host, cpu):
            yield from _registrations(kind, host)
            yield from _heartbeat(kind, host, cpu)
            yield from _paced_heartbeat(kind, host, cpu)
            polled = in_loop(LOOP, lambda host=host: _polled(host))
            yield Figure(f"{kind}: poll of what is held (304)", polled["s"] * 1e3, "ms",
                         beside=f"instead of {polled['bytes'] / 2**20:.1f} MiB")  # fmt: skip

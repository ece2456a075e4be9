"""DMSG: relayed throughput and calls beside direct STCPR, and 1,000 idle sessions at a server."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio

from benchmarks.harness import Figure
from benchmarks.nodes import (
    BULK,
    NETWORK,
    Second,
    _commands,
    _say,
    _swallow,
    contact_of,
    in_loop,
    offered_plugin,
)
from benchmarks.workloads import secret_of
from relay_dmsg.client.service import DmsgClient
from relay_dmsg.core.messages import Attach, Attached
from relay_dmsg.framing import read_message, send_message
from relay_dmsg.numbers import TO_SERVER
from security_noise.service import open_noise
from security_noise.settings import NoiseSettings
from skycore.contracts.dht import Dht
from skycore.contracts.runtime import Identity
from skycore.contracts.streams import Streams
from skycore.contracts.transport import Transports
from skycore.errors import SkycoreError
from skycore.events import Events
from skycore.guards.transports import TransportsSettings, open_transports
from skycore.jsonrpc import Client
from skycore.model.addresses import Contact, parse_contact
from skycore.model.keys import PubKey
from skycore.node import Node
from skycore.runtime.clock import RealClock
from skycore.runtime.entropy import RealEntropy
from skycore.runtime.network import RealNetwork
from skycore.testing.fakes import AlwaysReady
from streams_vstream.service import open_vstream
from streams_vstream.settings import VStreamSettings
from transport_stcpr.service import open_stcpr
from transport_stcpr.settings import StcprSettings
from visor_rpc.service import VISOR_RPC

ROUNDS = 3
ROUND_S = 0.8
BULK_BYTES = 48 * 1024 * 1024
WRITE = 65_536
TEXT = {"text": "x" * 64}
CROWD = 1_000
IDLE_S = 10.0
LOOP = "uvloop"

Round = Callable[[], Awaitable[float]]


@asynccontextmanager
async def _open(
    name: str, enable: list[str], *, full: bool = False, dht: bool = False, **sections: Any
) -> AsyncIterator[Node]:
    """Run a node on a loopback port of its own, without a DHT but where it is asked for."""
    public = NETWORK.suite.public(secret_of(NETWORK, "alice")).hex()
    settings = {
        "node": {
            "profile": "visor",
            "disable": ["rpc_local", *([] if full or dht else ["dht_kademlia"])],
            "enable": enable,
        },
        "transport_stcpr": {"listen": "127.0.0.1:0"},
        "access_whitelist": {"whitelist": [public]},
        "transports": {"handshakes_per_host_max": 64},
        **({"dht_kademlia": {"full_node": True}} if full else {}),
        **sections,
    }
    async with Node.open(settings=settings, secret=secret_of(NETWORK, name)) as node:
        yield node


def _resident() -> int:
    """Return the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# --- the other processes -------------------------------------------------------------------------


async def _run_relay(name: str = "relay", full: bool = False) -> None:
    limits = {"sessions_per_host_max": 10_000, "dials_per_minute": 0, "sessions_max": 10_000}
    async with _open(name, ["dmsg_server"], full=full, dmsg_server=limits) as node:

        async def do(order: dict[str, Any]) -> dict[str, Any]:
            return {"cpu_s": time.process_time(), "rss": _resident()}

        _say(contact=contact_of(node))
        await _commands(do)


async def _run_bob(relay: str) -> None:
    client = {"servers": [relay], "sessions_min": 1}
    async with (
        _open("bob", ["dmsg_client", "bench_echo"], dmsg_client=client) as node,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(_swallow, node)
        await _attached(node)

        async def do(order: dict[str, Any]) -> dict[str, Any]:
            return {"cpu_s": time.process_time()}

        _say(contact=contact_of(node))
        await _commands(do)
        tasks.cancel_scope.cancel()


async def _run_crowd(relay: str, count: int) -> None:
    """Attach many clients that do nothing: the parts of a node that a session stands on."""
    server = parse_contact(NETWORK.suite, relay)
    async with AsyncExitStack() as stack:
        turns = anyio.CapacityLimiter(16)
        clients = [await stack.enter_async_context(_client(n)) for n in range(count)]

        async def attach(transports: Transports, streams: Streams) -> None:
            async with turns:
                transports.addresses.learn(server)
                await transports.ensure(PubKey(server.public), "automatic")
                stream = await streams.dial(PubKey(server.public), TO_SERVER)
                await send_message(stream, Attach(1, "bench"))
                assert isinstance(await read_message(stream), Attached)

        began = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for client in clients:
                tasks.start_soon(attach, *client)
        took = time.perf_counter() - began

        async def do(order: dict[str, Any]) -> dict[str, Any]:
            return {"open": sum(len(transports.all()) for transports, _ in clients)}

        _say(attach_per_s=count / took)
        await _commands(do)


@asynccontextmanager
async def _client(number: int) -> AsyncIterator[tuple[Transports, Streams]]:
    clock, entropy, network = RealClock(), RealEntropy(), RealNetwork()
    identity = Identity(NETWORK, secret_of(NETWORK, f"crowd {number}"), entropy.bytes(16))
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        stcpr = await enter(open_stcpr(StcprSettings(listen=""), network))
        security = await enter(open_noise(NoiseSettings(), identity, clock, entropy))
        transports = await enter(
            open_transports(
                TransportsSettings(), (stcpr,), security, identity, clock, entropy,
                AlwaysReady(), Events(),
            )
        )  # fmt: skip
        yield transports, await enter(open_vstream(VStreamSettings(), transports, clock))


@contextmanager
def _process(role: str, **options: Any) -> Iterator[Second]:
    words = [sys.executable, "-m", "benchmarks.bench_dmsg", role, json.dumps(options)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Second(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


# --- this process --------------------------------------------------------------------------------


async def _attached(node: Node) -> None:
    while not node.get(DmsgClient).keeper.sessions:
        await anyio.sleep(0.01)


class _Alice:
    """Calls bob over whatever link there is."""

    def __init__(self, node: Node, bob: PubKey) -> None:
        self.streams, self.transports, self.bob = node.get(Streams), node.get(Transports), bob

    async def over(self, kind: str, contact: Contact) -> None:
        """Make the one link to bob be of a type."""
        for live in self.transports.all():
            if live.remote == self.bob:
                await live.aclose("another type")
        self.transports.addresses.forget(self.bob)
        if kind == "stcpr":
            self.transports.addresses.learn(contact)
        link = await self.transports.ensure(self.bob, "user")
        assert link.type == kind, link

    async def call(self) -> None:
        client = Client(await self.streams.dial(self.bob, VISOR_RPC))
        try:
            assert await client.call("bench.echo", TEXT) == TEXT
        finally:
            await client.aclose()

    def calls(self, in_flight: int) -> Round:
        async def work() -> float:
            began, count = time.perf_counter(), 0
            until = began + ROUND_S

            async def one() -> None:
                nonlocal count
                while time.perf_counter() < until:
                    await self.call()
                    count += 1

            async with anyio.create_task_group() as tasks:
                for _ in range(in_flight):
                    tasks.start_soon(one)
            return count / (time.perf_counter() - began)

        return work

    async def bulk(self) -> float:
        stream = await self.streams.dial(self.bob, BULK)
        block, sent, began = b"x" * WRITE, 0, time.perf_counter()
        while sent < BULK_BYTES:
            await stream.send(block)
            sent += WRITE
        await stream.send_eof()
        told = await stream.receive()
        took = time.perf_counter() - began
        assert int.from_bytes(told, "big") == sent
        await stream.aclose()
        return sent / took / 1e6

    async def dials(self) -> float:
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < ROUND_S:
            live = self.transports.find(self.bob)
            if live is not None:
                await live.aclose("again")
            await self.transports.ensure(self.bob, "user")
            count += 1
        return count / (time.perf_counter() - began)


async def _links(relay: Second, bob: Second) -> list[Figure]:
    contact = parse_contact(NETWORK.suite, bob.told["contact"])
    client = {"servers": [relay.told["contact"]], "sessions_min": 1}
    found: list[Figure] = []
    direct: dict[str, float] = {}
    async with _open("alice", ["dmsg_client"], dmsg_client=client) as node:
        await _attached(node)
        alice = _Alice(node, PubKey(contact.public))
        for kind in ("stcpr", "dmsg"):
            await alice.over(kind, contact)
            works = {
                "call of 64 B, 1 in flight": ("1/s", alice.calls(1)),
                "call of 64 B, 64 in flight": ("1/s", alice.calls(64)),
                "stream, writes of 64 KiB": ("MB/s", alice.bulk),
            }
            if kind == "dmsg":
                works["dial and both handshakes"] = ("1/s", alice.dials)
            for what, (unit, work) in works.items():
                await work()
                before, began = relay.ask("cpu")["cpu_s"], time.perf_counter()
                rates = [await work() for _ in range(ROUNDS)]
                busy = (relay.ask("cpu")["cpu_s"] - before) / (time.perf_counter() - began)
                rate = statistics.median(rates)
                spread = (max(rates) - min(rates)) / 2 / rate
                beside = ""
                if kind == "stcpr":
                    direct[what] = rate
                elif what in direct:
                    beside = f"{rate / direct[what]:.0%} of direct; relay {busy:.2f} cores"
                else:
                    beside = f"relay {busy:.2f} cores"
                found.append(Figure(f"{kind}: {what}", rate, unit, beside=beside, spread=spread))
    return found


async def _cold(relay: Second) -> float:
    """Start a visor that knows a DMSG server and nobody else; return the time to a DHT answer."""
    contact = relay.told["contact"]
    public = parse_contact(NETWORK.suite, contact).public
    client = {"servers": [contact], "sessions_min": 1}
    began = time.perf_counter()
    async with _open("carol", ["dmsg_client"], dht=True, dmsg_client=client) as node:
        while True:
            try:
                if await node.get(Dht).get(public, b"dmsg-server") is not None:
                    return time.perf_counter() - began
            except SkycoreError:
                pass
            await anyio.sleep(0.02)


def _idle(relay: Second) -> Iterator[Figure]:
    bare = relay.ask("rss")["rss"]
    with _process("crowd", relay=relay.told["contact"], count=CROWD) as crowd:
        time.sleep(1.0)
        full = relay.ask("rss")["rss"]
        before, began = relay.ask("cpu")["cpu_s"], time.perf_counter()
        time.sleep(IDLE_S)
        busy = (relay.ask("cpu")["cpu_s"] - before) / (time.perf_counter() - began)
        assert crowd.ask("open")["open"] == CROWD
        yield Figure(
            "sessions attached, two handshakes' work each", crowd.told["attach_per_s"], "1/s"
        )
        yield Figure("memory of an idle session at the server", (full - bare) / CROWD / 1024, "KiB")
        yield Figure("CPU of 1,000 idle sessions at the server", busy * 100, "% of one")


def figures(*, peers: bool) -> Iterator[Figure]:
    """Yield the lines."""
    with offered_plugin(), _process("relay") as relay:
        with _process("bob", relay=relay.told["contact"]) as bob:
            yield from in_loop(LOOP, _links, relay, bob)
        yield from _idle(relay)
    with _process("relay", name="full relay", full=True) as relay:
        took = statistics.median(in_loop(LOOP, _cold, relay) for _ in range(ROUNDS))
        yield Figure("cold start to a DHT answer, by a relay alone", took, "s", 5.0, at_most=True)


def _main() -> None:
    role, options = sys.argv[1], json.loads(sys.argv[2])
    roles = {"relay": _run_relay, "bob": _run_bob, "crowd": _run_crowd}
    with offered_plugin():
        in_loop(LOOP, lambda: roles[role](**options))


if __name__ == "__main__":
    _main()

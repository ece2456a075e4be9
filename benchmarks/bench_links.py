"""Links between two processes on loopback: dials, calls with a stream each, bulk; and the limit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio

from benchmarks.harness import Figure
from benchmarks.limits import echo_rate, stream_rate
from benchmarks.nodes import (
    BULK,
    CLIENT,
    LOOPS,
    Second,
    in_loop,
    offered_plugin,
    open_node,
    second_process,
)
from skycore.contracts.streams import Streams
from skycore.contracts.transport import Transports
from skycore.jsonrpc import Client
from skycore.model.addresses import parse_contact
from skycore.model.keys import PubKey
from skycore.node import Node
from visor_rpc.service import VISOR_RPC

ROUNDS = 3
ROUND_S = 0.8
BULK_BYTES = 192 * 1024 * 1024
WRITE = 65_536
TEXT = {"text": "x" * 64}
GOALS = {
    ("dial", "uvloop"): 500.0,
    (1, "uvloop"): 5_000.0,
    (64, "uvloop"): 20_000.0,
    ("bulk", "uvloop"): 800.0,
    ("bulk", "asyncio"): 400.0,
}

Round = Callable[[], Awaitable[float]]


class _Links:
    """The first process: a node that calls the second one."""

    def __init__(self, node: Node, second: Second, remote: PubKey) -> None:
        self.streams = node.get(Streams)
        self.transports = node.get(Transports)
        self.remote = remote
        self._second = second

    async def call(self) -> None:
        """One call as visor.tp_rpc makes it: a stream, a request, an answer, the end."""
        client = Client(await self.streams.dial(self.remote, VISOR_RPC))
        try:
            assert await client.call("bench.echo", TEXT) == TEXT
        finally:
            await client.aclose()

    async def dials(self) -> float:
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < ROUND_S:
            live = self.transports.find(self.remote)
            if live is not None:
                await live.aclose("again")
            await self.call()
            count += 1
        return count / (time.perf_counter() - began)

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
        stream = await self.streams.dial(self.remote, BULK)
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


async def _rounds(work: Round, second: Second) -> tuple[float, float, float]:
    """Return median, spread and the CPU seconds of both processes per second of wall time."""
    await work()
    cpu, began = _cpu(second), time.perf_counter()
    rates = [await work() for _ in range(ROUNDS)]
    busy = (_cpu(second) - cpu) / (time.perf_counter() - began)
    middle = statistics.median(rates)
    return middle, (max(rates) - min(rates)) / 2 / middle, busy


def _cpu(second: Second) -> float:
    return time.process_time() + float(second.ask("cpu")["cpu_s"])


async def _limits(port: int) -> dict[Any, float]:
    found: dict[Any, list[float]] = {1: [], 64: [], "bulk": []}
    for _ in range(ROUNDS):
        found[1].append(await echo_rate(port, 1))
        found[64].append(await echo_rate(port, 64))
        found["bulk"].append(await stream_rate(port, BULK_BYTES) / 1e6)
    return {what: statistics.median(rates) for what, rates in found.items()}


async def _ours(loop: str, second: Second, limits: dict[Any, float]) -> list[Figure]:
    contact = second.told["contact"]
    found = []
    async with open_node(CLIENT, bootstrap=[contact]) as node:
        remote = parse_contact(node.identity.network.suite, contact)
        node.get(Transports).addresses.learn(remote, pinned=True)
        links = _Links(node, second, remote.public)
        for what, unit, key, work in (
            ("dial, handshake, first call", "1/s", "dial", links.dials),
            ("call of 64 B, a stream each, 1 in flight", "1/s", 1, links.calls(1)),
            ("call of 64 B, a stream each, 64 in flight", "1/s", 64, links.calls(64)),
            ("stream, writes of 64 KiB", "MB/s", "bulk", links.bulk),
        ):
            rate, spread, busy = await _rounds(work, second)
            limit = limits.get(key)
            beside = f"bare sealed protocol {limit:,.0f} ({rate / limit:.0%}); " if limit else ""
            found.append(
                Figure(
                    f"{loop}: {what}", rate, unit, GOALS.get((key, loop)), spread=spread,
                    beside=f"{beside}{busy:.2f} cores",
                )
            )  # fmt: skip
    return found


def figures(*, peers: bool) -> Iterator[Figure]:
    """Yield the lines."""
    with offered_plugin():
        for loop in LOOPS:
            with second_process("limit", loop) as second:
                limits = in_loop(loop, _limits, second.told["port"])
            with second_process("node", loop, echo=True) as second:
                yield from in_loop(loop, _ours, loop, second, limits)
    if peers:
        from benchmarks.peers import libp2p_links

        yield from libp2p_links()

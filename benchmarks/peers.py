"""Peers from PyPI doing the same work in the same run. Each is optional: absent, a line says so.

Install them with `pip install 'skycore[peers]'`; `make bench-peers` does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import statistics
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.harness import Figure, median_rate

__all__ = ["kademlia_dht", "libp2p_links", "noise_handshakes"]

_COUNT = 200


def _skipped(what: str, why: Exception) -> Figure:
    return Figure(f"peer: {what}", 0.0, "skipped", beside=f"{type(why).__name__}: {why}")


def noise_handshakes() -> Iterator[Figure]:
    """noiseframework, XX and XK, both sides."""
    for pattern in ("XX", "XK"):
        what = f"noiseframework, Noise {pattern} handshake, both sides"
        try:
            rate, spread = median_rate(
                lambda p=pattern: _noiseframework(p), rounds=3, clock=time.process_time
            )
        except Exception as why:  # noqa: BLE001 - whatever a peer does, the run goes on
            yield _skipped(what, why)
        else:
            yield Figure(f"peer: {what}", rate, "1/s", spread=spread)


def _noiseframework(pattern: str) -> int:
    from noiseframework import NoiseHandshake

    name = f"Noise_{pattern}_25519_ChaChaPoly_SHA256"
    statics = []
    for _ in range(2):
        keys = NoiseHandshake(name)
        keys.generate_static_keypair()
        statics.append((keys.static_private, keys.static_public))
    for _ in range(_COUNT):
        one, two = NoiseHandshake(name), NoiseHandshake(name)
        one.set_as_initiator()
        two.set_as_responder()
        one.set_static_keypair(*statics[0])
        two.set_static_keypair(*statics[1])
        if pattern == "XK":
            one.set_remote_static_public_key(statics[1][1])
        one.initialize()
        two.initialize()
        two.read_message(one.write_message(b""))
        one.read_message(two.write_message(b""))
        two.read_message(one.write_message(b""))
        one.to_transport()
        two.to_transport()
    return _COUNT


# --- kademlia: plain UDP, unsigned, unchecked ----------------------------------------------------


def kademlia_dht() -> Iterator[Figure]:
    """kademlia with k=20, as bench_dht does it: N nodes in one process, one at a time."""
    for count in (50, 20):
        what = f"kademlia (clear, unsigned UDP), N={count}"
        try:
            joined, puts, gets, found = asyncio.run(_kademlia(count))
        except Exception as why:  # noqa: BLE001 - whatever a peer does, the run goes on
            yield _skipped(what, why)
            return
        yield Figure(f"peer: {what}: all started and met", joined, "s")
        yield Figure(f"peer: {what}: put, p50", puts, "ms")
        yield Figure(f"peer: {what}: get, p50", gets, "ms", beside=f"found {100 * found:.0f} %")


async def _kademlia(count: int) -> tuple[float, float, float, float]:
    from kademlia.network import Server

    logging.getLogger("kademlia").setLevel(logging.CRITICAL)
    logging.getLogger("rpcudp").setLevel(logging.CRITICAL)
    dice, nodes, began = random.Random(count), [], time.perf_counter()
    ports: list[int] = []
    for _ in range(count):
        node: Any = Server(ksize=20)
        await node.listen(0, interface="127.0.0.1")
        ports.append(node.transport.get_extra_info("sockname")[1])
        nodes.append(node)
        if len(nodes) > 1:
            await node.bootstrap([("127.0.0.1", ports[0])])
    joined = time.perf_counter() - began
    keys = [os.urandom(16).hex() for _ in range(100)]
    puts, gets, found = [], [], 0
    for key in keys:
        start = time.perf_counter()
        await dice.choice(nodes).set(key, b"x" * 64)
        puts.append(time.perf_counter() - start)
    for key in keys:
        reader = dice.choice(nodes)
        reader.storage.data.pop(_digest(key), None)  # its own copy: else it would ask nobody
        start = time.perf_counter()
        found += await reader.get(key) is not None
        gets.append(time.perf_counter() - start)
    for node in nodes:
        node.stop()
    return joined, statistics.median(puts) * 1e3, statistics.median(gets) * 1e3, found / len(keys)


def _digest(key: str) -> bytes:
    from kademlia.utils import digest

    return bytes(digest(key))


# --- py-libp2p: noise and yamux over TCP ---------------------------------------------------------

_LIBP2P_CALLS = 100
_LIBP2P_BYTES = 16 * 1024 * 1024


def libp2p_links() -> Iterator[Figure]:
    """py-libp2p: connect, calls with a stream each, bulk; both hosts in one process."""
    what = "py-libp2p (noise, yamux)"
    try:
        import trio

        connect, calls, bulk = trio.run(_libp2p)
    except BaseException as why:
        if isinstance(why, KeyboardInterrupt):
            raise
        yield _skipped(what, why)
        return
    yield Figure(f"peer: {what}: connect", 1 / connect, "1/s")
    yield Figure(f"peer: {what}: call of 64 B, a stream each, 1 in flight", calls, "1/s")
    yield Figure(f"peer: {what}: stream, writes of 64 KiB", bulk, "MB/s")


async def _libp2p() -> tuple[float, float, float]:
    import trio
    from libp2p import new_host
    from libp2p.custom_types import TProtocol
    from libp2p.peer.peerinfo import info_from_p2p_addr
    from multiaddr import Multiaddr

    echo, sink = TProtocol("/bench/echo/1"), TProtocol("/bench/sink/1")
    any_port = [Multiaddr("/ip4/127.0.0.1/tcp/0")]
    server, client = new_host(), new_host()

    async def on_echo(stream: Any) -> None:
        await stream.write(await stream.read(64))
        await stream.close()

    async def on_sink(stream: Any) -> None:
        left = _LIBP2P_BYTES
        while left > 0:
            left -= len(await stream.read(65_536))
        await stream.write(b"done")

    server.set_stream_handler(echo, on_echo)
    server.set_stream_handler(sink, on_sink)
    with trio.fail_after(40):
        async with server.run(any_port), client.run(any_port):
            began = time.perf_counter()
            await client.connect(info_from_p2p_addr(server.get_addrs()[0]))
            connect = time.perf_counter() - began
            began = time.perf_counter()
            for _ in range(_LIBP2P_CALLS):
                stream = await client.new_stream(server.get_id(), [echo])
                await stream.write(b"x" * 64)
                assert len(await stream.read(64)) == 64
                await stream.close()
            calls = _LIBP2P_CALLS / (time.perf_counter() - began)
            stream = await client.new_stream(server.get_id(), [sink])
            began = time.perf_counter()
            for _ in range(_LIBP2P_BYTES // 65_536):
                await stream.write(b"x" * 65_536)
            await stream.read(4)
            return connect, calls, _LIBP2P_BYTES / (time.perf_counter() - began) / 1e6

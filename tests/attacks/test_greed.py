"""Peers that take places and memory and give nothing: silent, idle, deaf."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress

import anyio
import pytest
from attackers import (
    DHT,
    GROWTH_MAX_KIB,
    VISOR_RPC,
    WAIT_S,
    Stranger,
    Victim,
    codec,
    flood,
    frame,
    program,
    rude_close,
    settle,
    source,
    tcp,
    victim_process,
    watched,
)

from dht_kademlia.core.messages import GetItems
from skycore.contracts.streams import Streams
from skycore.errors import SkycoreError
from skycore.model.numbers import DhtMethod
from skycore.testing.fakes import identity

pytestmark = pytest.mark.processes
RECORDS = 60
RECORD_BYTES = 60_000
PEAK_MAX_KIB = 96 * 1024
"""What a node may grow while twenty deaf peers ask for all it has, above what it held before."""
LEFT_MAX_KIB = 32 * 1024
"""What the C library may keep for later of such a peak, or of a thousand links."""

PATIENT = ("transports.ping_interval_s=600", "transports.ephemeral_idle_s=600")
"""A node ends a link that answers no ping in 20 s, an idle one in 60 s: on a slow machine the first
of a thousand would be gone before the last is there."""


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    listed = (identity("listed").public.hex(),)
    folder = tmp_path_factory.mktemp("greed")
    with victim_process(folder, *PATIENT, whitelist=listed) as node:
        for number in range(RECORDS):
            node.ask("dht.put", salt=f"large {number}", text=f"{number:04d}" * (RECORD_BYTES // 4))
        yield node


class Peak:
    """The most that a process held while it was looked at."""

    def __init__(self, victim: Victim) -> None:
        self._victim = victim
        self.start_kib = self.most_kib = victim.vitals().rss_kib

    @property
    def growth_kib(self) -> int:
        return self.most_kib - self.start_kib

    async def look(self) -> None:
        while True:
            self.most_kib = max(self.most_kib, self._victim.vitals().rss_kib)
            await anyio.sleep(0.02)


async def test_f8_a_thousand_silent_connections(victim: Victim) -> None:
    async with watched(victim) as bystander:
        silent = [tcp(victim.port, source(number)) for number in range(1_000)]
        for _ in range(5):
            await bystander.ask()
        for stream in silent:
            await rude_close(stream)


async def test_a_thousand_idle_links_twice(victim: Victim) -> None:
    """The second thousand take no more than the first left behind."""
    await thousand_links(victim, LEFT_MAX_KIB)
    await thousand_links(victim, GROWTH_MAX_KIB)


async def thousand_links(victim: Victim, left_kib: int) -> None:
    links = []
    before = victim.vitals()

    async def one(number: int) -> None:
        async with Stranger(f"idle {number}").armed() as stranger:
            links.append(await stranger.connect(victim, source(number)))

    async with watched(victim, growth_max_kib=left_kib) as bystander:
        await flood(1_000, one, 8)
        live = victim.ask("Overview")["transport_count"]
        assert live >= 1_000
        for _ in range(5):
            await bystander.ask()
        held = victim.vitals()
        assert held.fds >= 1_000
        per_link = (held.rss_kib - before.rss_kib) / 1_000
        print(f"{per_link:.1f} KiB a link")
        assert per_link < 64
        for link in links:
            await rude_close(link.raw)
        await settle(lambda: victim.ask("Overview")["transport_count"] <= live - 1_000)


async def test_o04_129_silent_streams(victim: Victim) -> None:
    """One peer has sixteen; further ones are closed, and nobody else notices."""
    async with watched(victim), program(victim) as node:
        streams = [await node.get(Streams).dial(victim.public, DHT) for _ in range(129)]
        for stream in streams:
            await stream.send(b"\0")  # the beginning of a length, so that it is really opened
        ended = 0
        with anyio.fail_after(WAIT_S):
            async with anyio.create_task_group() as tasks:

                async def listen(stream) -> None:
                    nonlocal ended
                    with suppress(SkycoreError):
                        assert await stream.receive() == b""
                    ended += 1
                    if ended == 129 - 16:
                        tasks.cancel_scope.cancel()

                for stream in streams:
                    tasks.start_soon(listen, stream)


async def deaf(stack: AsyncExitStack, victim: Victim, streams: int) -> None:
    """Ask for the largest page on every stream that a peer may have, and read nothing."""
    node = await stack.enter_async_context(program(victim))
    ask = codec.encode(DhtMethod.GET_ITEMS, GetItems(None, None, 0, b"", 4_096, 2**20))
    for _ in range(streams):
        stream = await node.get(Streams).dial(victim.public, DHT)
        await stream.send(ask)


async def test_f11_peers_that_never_read_their_pages(victim: Victim) -> None:
    """Twenty keys, sixteen streams each, a mebibyte asked for on each: 320 MiB of answers."""
    peak = Peak(victim)
    async with (
        watched(victim, growth_max_kib=LEFT_MAX_KIB) as bystander,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(peak.look)
        async with AsyncExitStack() as stack:
            for _ in range(20):
                await deaf(stack, victim, 16)
            for _ in range(10):
                await bystander.ask()
        tasks.cancel_scope.cancel()
    print(f"peak growth {peak.growth_kib} KiB")
    assert peak.growth_kib <= PEAK_MAX_KIB


async def test_f11_a_caller_that_never_reads_its_answers(victim: Victim) -> None:
    peak = Peak(victim)
    call = {"jsonrpc": "2.0", "method": "dht.list", "params": {"limit": 20}}
    async with (
        watched(victim, growth_max_kib=LEFT_MAX_KIB) as bystander,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(peak.look)
        async with program(victim, "listed") as listed:
            numbers = itertools.count()
            for _ in range(32):
                stream = await listed.get(Streams).dial(victim.public, VISOR_RPC)
                for _ in range(8):
                    body = json.dumps({**call, "id": next(numbers)}).encode()
                    await stream.send(frame(body))
            for _ in range(10):
                await bystander.ask()
        tasks.cancel_scope.cancel()
    print(f"peak growth {peak.growth_kib} KiB")
    assert peak.growth_kib <= PEAK_MAX_KIB

"""The manager on real sockets, with real Noise: what a simulation cannot show."""

from __future__ import annotations

import os
import random
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest

from security_noise.service import open_noise
from security_noise.settings import NoiseSettings
from skycore.errors import DialError
from skycore.guards.transports import TransportsSettings
from skycore.model.addresses import Address, Contact
from skycore.model.packets import encode_packet
from skycore.runtime.clock import RealClock
from skycore.runtime.entropy import RealEntropy
from skycore.runtime.network import RealNetwork
from skycore.testing.clear import PlainType, open_clear_transports
from skycore.testing.fakes import identity


class Echo:
    def __init__(self):
        self.got = []
        self.some = anyio.Event()

    def packet(self, transport, payload):
        self.got.append(payload)
        self.some.set()
        if transport.dialled is False:
            transport.send(128, payload)

    def closed(self, transport):
        pass


@asynccontextmanager
async def node(name, **settings):
    own = identity(name)
    async with AsyncExitStack() as stack:
        security = await stack.enter_async_context(
            open_noise(NoiseSettings(), own, RealClock(), RealEntropy())
        )
        network = RealNetwork()
        manager = await stack.enter_async_context(
            open_clear_transports(
                network,
                "127.0.0.1",
                own,
                clock=RealClock(),
                security=security,
                settings=TransportsSettings(**settings),
                types=[PlainType(network, "127.0.0.1", port=0)],
            )
        )
        manager.public = own.public
        manager.security = security
        manager.echo = Echo()
        stack.enter_context(manager.claim(128, manager.echo))
        yield manager


def introduce(one, other):
    port = other.listening()[0].endpoint
    one.addresses.learn(Contact(other.public, (Address("plain", f"127.0.0.1{port}"),)))


async def connect(to):
    return await RealNetwork().connect_tcp("127.0.0.1", int(to.listening()[0].endpoint[1:]))


async def echoed(one, other, payload=b"hello"):
    transport = await one.ensure(other.public)
    one.echo.some = anyio.Event()
    transport.send(128, payload)
    with anyio.fail_after(30):
        await one.echo.some.wait()
    assert one.echo.got.pop() == payload
    return transport


async def until(condition):
    with anyio.fail_after(30):
        while not condition():
            await anyio.sleep(0.02)


def descriptors():
    return len(os.listdir("/proc/self/fd"))


async def test_echo_over_noise_on_sockets():
    async with node("a") as a, node("b") as b:
        introduce(a, b)
        transport = await echoed(a, b, bytes(range(256)) * 200)
        assert transport.remote == b.public and b.all()[0].remote == a.public
        assert b.addresses.find(a.public)[0].endpoint == f"127.0.0.1{a.listening()[0].endpoint}"


async def test_noise_failures_leak_nothing_over_a_thousand_aborted_handshakes():
    async with node("a") as a, node("b") as b:
        introduce(a, b)
        await echoed(a, b)
        before, tasks = descriptors(), len(anyio.get_running_tasks())
        dice = random.Random(1)
        for n in range(1_000):
            stream = await connect(b)
            if n % 3 == 1:
                await stream.send(dice.randbytes(dice.randint(1, 200)))
            elif n % 3 == 2:
                await stream.send(b"\xff\xff" + dice.randbytes(100))
            await stream.aclose()
            if n % 50 == 0:
                await anyio.wait_all_tasks_blocked()
        await until(lambda: descriptors() <= before and len(anyio.get_running_tasks()) <= tasks)
        assert b.counters["handshakes_failed"] == 1_000
        await echoed(a, b)


async def test_dials_to_somebody_else_leak_nothing():
    async with node("a") as a, node("b") as b:
        wrong = identity("somebody else").public
        port = b.listening()[0].endpoint
        before = None
        for _ in range(40):
            a.addresses.learn(Contact(wrong, (Address("plain", f"127.0.0.1{port}"),)), pinned=True)
            with pytest.raises(DialError):
                await a.ensure(wrong)
            await anyio.wait_all_tasks_blocked()
            before = before or descriptors()
        await until(lambda: descriptors() <= before)


async def test_t4486_stalled_peers_on_sockets_and_an_honest_one_is_served():
    async with node("a") as a, node("b") as b:
        introduce(a, b)
        stalled = [await connect(b) for _ in range(100)]
        await echoed(a, b)
        assert b.inbounds["plain"].places.in_flight <= 64
        for stream in stalled:
            await stream.aclose()


async def test_f4_malformed_packets_after_the_handshake_close_their_own_link_only():
    async with node("a") as a, node("b") as b:
        introduce(a, b)
        await echoed(a, b)
        dice = random.Random(4)
        for n in range(60):
            own = identity(f"fuzzer {n}")
            noise = open_noise(NoiseSettings(), own, RealClock(), RealEntropy())
            async with noise as security:
                channel = await security.outbound(await connect(b), b.public, ())
                whole = b"".join(
                    encode_packet(dice.randint(0, 255), dice.randbytes(dice.randint(0, 40)), 0)
                    for _ in range(20)
                )
                data = bytearray(whole)
                for _ in range(n % 4):
                    data[dice.randrange(len(data))] = dice.randrange(256)
                await channel.send(bytes(data))
                await channel.aclose()
        await echoed(a, b)
        await until(lambda: len(b.all()) == 1)
        assert len(b._table.open()) == 1

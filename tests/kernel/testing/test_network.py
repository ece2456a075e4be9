"""SimNetwork: what TCP does, and what it does when things break."""

from __future__ import annotations

import anyio
import pytest
from anyio.abc import SocketAttribute
from hypothesis import given, settings
from hypothesis import strategies as st

from skycore.errors import DialError, TransportError
from skycore.testing.loop import simulate
from skycore.testing.network import Link, SimNetwork

ALICE, BOB, CAROL = "10.0.0.1", "10.0.0.2", "10.0.0.3"
PLAIN = Link(latency_s=0.05, jitter_s=0.0, bytes_per_s=1e6)


def simulated(test):
    """Run an async test, given a network, on a SimLoop."""

    def run():
        async def main():
            await test(SimNetwork(1, PLAIN))

        simulate(main, limit_s=100_000)

    run.__name__ = test.__name__
    return run


async def connected(network, source=ALICE, target=BOB, port=7_000):
    async with network.host(target).listen_tcp("", port) as listener:
        client = await network.host(source).connect_tcp(target, port)
        return client, await listener.accept()


async def receive_all(stream):
    parts = []
    try:
        while True:
            parts.append(await stream.receive())
    except anyio.EndOfStream:
        return b"".join(parts)


@simulated
async def test_bytes_arrive_after_the_latency_and_know_their_sender(network):
    client, server = await connected(network)
    before = anyio.current_time()
    await client.send(b"hello")
    assert await server.receive() == b"hello"
    assert anyio.current_time() - before == pytest.approx(0.05, abs=1e-3)
    host, port = server.extra(SocketAttribute.remote_address)
    assert host == ALICE
    assert client.extra(SocketAttribute.local_address) == (ALICE, port)
    assert client.extra(SocketAttribute.remote_address) == (BOB, 7_000)


@simulated
async def test_bandwidth_is_shared_by_the_connections_of_a_way(network):
    one, far_one = await connected(network, port=1)
    other, far_other = await connected(network, port=2)
    before = anyio.current_time()
    await one.send(bytes(100_000))
    await one.aclose()
    await other.send(bytes(100_000))
    await other.aclose()
    assert len(await receive_all(far_one)) == 100_000
    assert anyio.current_time() - before == pytest.approx(0.15, abs=1e-3)
    assert len(await receive_all(far_other)) == 100_000
    assert anyio.current_time() - before == pytest.approx(0.25, abs=1e-3)


@simulated
async def test_a_sender_waits_for_a_reader(network):
    client, server = await connected(network)
    sent = 0

    async def send():
        nonlocal sent
        while True:
            await client.send(bytes(10_000))
            sent += 10_000

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        await anyio.sleep(600)
        assert sent <= network.buffer_max
        held = sent
        await server.receive(65_536)
        await anyio.sleep(1)
        assert sent > held
        tasks.cancel_scope.cancel()


@simulated
async def test_end_of_stream_after_the_data_and_the_other_side_stays_open(network):
    client, server = await connected(network)
    await client.send(b"question")
    await client.send_eof()
    assert await receive_all(server) == b"question"
    await server.send(b"answer")
    await server.aclose()
    assert await receive_all(client) == b"answer"
    with pytest.raises(anyio.BrokenResourceError):
        await client.send(b"more")


@simulated
async def test_close_with_unread_data_resets(network):
    client, server = await connected(network)
    await server.send(b"never read")
    await anyio.sleep(1)
    await client.aclose()
    with pytest.raises(anyio.BrokenResourceError, match="reset"):
        await server.receive()
    with pytest.raises(anyio.ClosedResourceError):
        await client.receive()
    with pytest.raises(anyio.ClosedResourceError):
        await client.send(b"x")


@simulated
async def test_data_for_a_closed_end_is_answered_with_a_reset(network):
    client, server = await connected(network)
    await server.aclose()
    assert await receive_all(client) == b""
    await client.send(b"too late")
    await anyio.sleep(1)
    with pytest.raises(anyio.BrokenResourceError, match="reset"):
        await client.send(b"again")
    assert network.connections(ALICE) == network.connections(BOB) == 0


@simulated
async def test_refused_unreachable_and_taken(network):
    network.host(BOB)
    with pytest.raises(DialError, match="refused"):
        await network.host(ALICE).connect_tcp(BOB, 9)
    assert anyio.current_time() == pytest.approx(0.1)
    with pytest.raises(DialError, match="no route"):
        await network.host(ALICE).connect_tcp("10.9.9.9", 9)
    async with network.host(BOB).listen_tcp(BOB, 0) as listener:
        assert listener.port >= 32_768
        with pytest.raises(TransportError, match="taken"):
            async with network.host(BOB).listen_tcp("0.0.0.0", listener.port):
                pass
        with pytest.raises(TransportError, match="not an address"):
            async with network.host(BOB).listen_tcp(ALICE, 5):
                pass
    async with network.host(BOB).listen_tcp(BOB, listener.port):
        pass


@simulated
async def test_loopback_reaches_oneself(network):
    async with network.host(ALICE).listen_tcp("127.0.0.1", 80) as listener:
        client = await network.host(ALICE).connect_tcp("localhost", 80)
        server = await listener.accept()
        await client.send(b"me")
        assert await server.receive() == b"me"
        with pytest.raises(DialError, match="refused"):
            await network.host(BOB).connect_tcp("127.0.0.1", 80)


@simulated
async def test_a_partitioned_host_does_not_answer_and_comes_back(network):
    network.partition([ALICE], [BOB])
    with pytest.raises(TimeoutError), anyio.fail_after(5):
        await network.host(ALICE).connect_tcp(BOB, 7_000)
    with pytest.raises(DialError, match="does not answer"):
        await network.host(ALICE).connect_tcp(BOB, 7_000)
    assert anyio.current_time() == pytest.approx(5 + 127, abs=1)

    async def heal_later():
        await anyio.sleep(10)
        network.heal()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(heal_later)
        client, _ = await connected(network)
    assert client.extra(SocketAttribute.remote_address)[0] == BOB


@simulated
async def test_a_partition_holds_data_back_and_healing_brings_it(network):
    client, server = await connected(network)
    network.partition([ALICE], [BOB])
    await client.send(b"held")
    with anyio.move_on_after(100) as scope:
        await server.receive()
    assert scope.cancelled_caught
    network.heal()
    before = anyio.current_time()
    assert await server.receive() == b"held"
    assert anyio.current_time() - before <= 60.1


@simulated
async def test_a_host_in_no_group_is_a_bridge(network):
    network.partition([ALICE], [BOB])
    await connected(network, ALICE, CAROL)
    await connected(network, CAROL, BOB)


@simulated
async def test_tcp_gives_up_after_a_quarter_of_an_hour(network):
    client, server = await connected(network)
    network.isolate(BOB)
    await client.send(b"lost")
    await anyio.sleep(900)
    await client.send(b"still hoping")
    await anyio.sleep(60)
    with pytest.raises(anyio.BrokenResourceError, match="timed out"):
        await client.send(b"no")
    network.heal()
    with anyio.move_on_after(100) as scope:
        await server.receive()
    assert scope.cancelled_caught


@simulated
async def test_a_one_way_cut_loses_one_direction(network):
    client, server = await connected(network)
    network.cut(ALICE, BOB)
    await client.send(b"into the void")
    await server.send(b"heard")
    assert await client.receive() == b"heard"
    with anyio.move_on_after(50) as scope:
        await server.receive()
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError), anyio.fail_after(20):
        await network.host(BOB).connect_tcp(ALICE, 1)


@simulated
async def test_clog_holds_and_unclog_releases_at_once(network):
    client, server = await connected(network)
    network.clog(BOB)
    await client.send(b"one")
    await client.send(b"two")
    await anyio.sleep(30)
    network.unclog(BOB)
    before = anyio.current_time()
    assert await server.receive() == b"onetwo"
    assert anyio.current_time() - before == pytest.approx(0.05, abs=1e-3)


@simulated
async def test_kill_resets_connections_and_frees_ports(network):
    dead = network.host(BOB)
    async with dead.listen_tcp("", 7_000) as listener:
        client = await network.host(ALICE).connect_tcp(BOB, 7_000)
        server = await listener.accept()
        waiting = await network.host(ALICE).connect_tcp(BOB, 7_000)
        network.kill(BOB)
        for stream in (client, waiting):
            with pytest.raises(anyio.BrokenResourceError, match="reset"):
                await stream.receive()
        with pytest.raises(anyio.ClosedResourceError):
            await server.send(b"x")
        with pytest.raises(anyio.ClosedResourceError):
            await listener.accept()
        with pytest.raises(DialError, match="killed"):
            async with dead.listen_tcp("", 7_000):
                pass
        with pytest.raises(DialError, match="refused"):
            await network.host(ALICE).connect_tcp(BOB, 7_000)
        client, server = await connected(network)
        await client.send(b"reborn")
        assert await server.receive() == b"reborn"


@simulated
async def test_power_off_is_silent_until_power_is_back(network):
    client, _ = await connected(network)
    network.power_off(BOB)
    await client.send(b"anybody?")
    with anyio.move_on_after(60) as scope:
        await client.receive()
    assert scope.cancelled_caught
    network.power_on(BOB)
    with pytest.raises(anyio.BrokenResourceError, match="reset"):
        await client.receive()


@simulated
async def test_swizzle_ends_with_everything_mended(network):
    client, server = await connected(network)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(network.swizzle, [ALICE, BOB, CAROL])
        await anyio.sleep(1)
        await client.send(b"through it all")
        assert await server.receive() == b"through it all"
    assert network.path(ALICE, BOB).open


@simulated
async def test_two_readers_or_writers_are_a_mistake(network):
    client, _ = await connected(network)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.receive)
        await anyio.sleep(1)
        with pytest.raises(anyio.BusyResourceError):
            await client.receive()
        tasks.cancel_scope.cancel()
    async with network.host(BOB).listen_tcp("", 1) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.accept)
        await anyio.sleep(1)
        with pytest.raises(anyio.BusyResourceError):
            await listener.accept()
        tasks.cancel_scope.cancel()


@simulated
async def test_nobody_accepts_a_full_backlog(network):
    async with network.host(BOB).listen_tcp("", 1) as listener:
        for _ in range(128):
            await network.host(ALICE).connect_tcp(BOB, 1)
        await anyio.sleep(1)
        assert len(listener.backlog) == 128
        with pytest.raises(TimeoutError), anyio.fail_after(10):
            await network.host(ALICE).connect_tcp(BOB, 1)


@settings(max_examples=60, deadline=None)
@given(
    sends=st.lists(st.binary(min_size=1, max_size=400), max_size=20),
    read_max=st.integers(1, 500),
    seed=st.integers(0, 2**32),
    link=st.builds(
        Link,
        latency_s=st.floats(0, 1),
        jitter_s=st.floats(0, 1),
        bytes_per_s=st.floats(100, 1e6),
        loss=st.floats(0, 0.5),
        split=st.floats(0, 1),
    ),
)
def test_a_stream_is_its_bytes_in_order_whatever_the_link(sends, read_max, seed, link):
    async def main():
        network = SimNetwork(seed, link, buffer_max=700)
        client, server = await connected(network)
        got = bytearray()

        async def read():
            try:
                while True:
                    data = await server.receive(read_max)
                    assert 1 <= len(data) <= read_max
                    got.extend(data)
            except anyio.EndOfStream:
                pass

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            for data in sends:
                await client.send(data)
            await client.aclose()
        return bytes(got), network.trace.digest

    got, digest = simulate(main, limit_s=1e6)
    assert got == b"".join(sends)
    assert simulate(main, limit_s=1e6)[1] == digest

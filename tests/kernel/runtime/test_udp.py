from __future__ import annotations

import socket

import anyio
import pytest

from skycore.errors import TransportError
from skycore.runtime.network import RealNetwork
from skycore.runtime.udp import BATCH_MAX

HERE = "127.0.0.1"


async def gather(sock, count):
    got = []
    with anyio.fail_after(5):
        while len(got) < count:
            got += await sock.receive()
    return got


async def test_a_datagram_arrives_whole_with_its_sender():
    network = RealNetwork()
    async with network.open_udp(HERE, 0) as alice, network.open_udp(HERE, 0) as bob:
        assert alice.port and alice.port != bob.port
        assert alice.send(b"hello", (HERE, bob.port))
        assert alice.send(b"", (HERE, bob.port))
        assert await gather(bob, 2) == [
            (b"hello", (HERE, alice.port)),
            (b"", (HERE, alice.port)),
        ]


async def test_one_call_takes_all_that_is_there_up_to_64_oldest_first():
    network = RealNetwork()
    async with network.open_udp(HERE, 0) as alice, network.open_udp(HERE, 0) as bob:
        for number in range(100):
            alice.send(b"%d" % number, (HERE, bob.port))
        first = list(await bob.receive())
        second = list(await bob.receive())
    assert len(first) == BATCH_MAX
    assert [data for data, _ in first + second] == [b"%d" % n for n in range(100)]


async def test_a_dual_stack_socket_names_ipv4_peers_by_their_ipv4_address():
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    network = RealNetwork()
    try:
        async with network.open_udp("::", 0) as both, network.open_udp(HERE, 0) as old:
            assert old.send(b"four", (HERE, both.port))
            assert await gather(both, 1) == [(b"four", (HERE, old.port))]
            assert both.send(b"back", (HERE, old.port))
            assert await gather(old, 1) == [(b"back", (HERE, both.port))]
            assert both.send(b"six", ("::1", both.port))
            assert await gather(both, 1) == [(b"six", ("::1", both.port))]
    except TransportError:
        pytest.skip("this machine has no IPv6")


async def test_u19_nobody_at_the_other_end_is_no_error():
    network = RealNetwork()
    async with network.open_udp(HERE, 0) as gone:
        port = gone.port
    async with network.open_udp(HERE, 0) as alice, network.open_udp(HERE, 0) as bob:
        for _ in range(3):
            alice.send(b"anybody?", (HERE, port))
        bob.send(b"yes", (HERE, alice.port))
        assert await gather(alice, 1) == [(b"yes", (HERE, bob.port))]


@pytest.mark.parametrize(
    "to", [("255.255.255.255", 9), ("::1", 9), ("no.such host", 9), ("", 9), (HERE, 99_999)]
)
async def test_what_cannot_be_sent_is_told_and_no_error(to):
    async with RealNetwork().open_udp(HERE, 0) as alice:
        assert alice.send(b"x", to) is False or to[0] == ""


async def test_too_large_a_datagram_is_thrown_away():
    async with RealNetwork().open_udp(HERE, 0) as alice:
        assert alice.send(b"x" * 70_000, (HERE, alice.port)) is False


async def test_a_taken_port_is_told_with_a_hint():
    network = RealNetwork()
    async with network.open_udp(HERE, 0) as alice:
        with pytest.raises(TransportError) as caught:
            async with network.open_udp(HERE, alice.port):
                pass
    assert caught.value.hint


async def test_a_cancelled_receive_loses_nothing():
    network = RealNetwork()
    async with network.open_udp(HERE, 0) as alice:
        with anyio.move_on_after(0):
            await alice.receive()
        alice.send(b"still", (HERE, alice.port))
        assert [data for data, _ in await gather(alice, 1)] == [b"still"]


async def test_closing_wakes_the_reader():
    network = RealNetwork()
    seen = []

    async def read(sock):
        try:
            await sock.receive()
        except anyio.ClosedResourceError:
            seen.append("closed")

    async with anyio.create_task_group() as tasks, network.open_udp(HERE, 0) as alice:
        tasks.start_soon(read, alice)
        await anyio.wait_all_tasks_blocked()
    assert seen == ["closed"]


async def test_a_busy_socket_lets_other_tasks_run():
    network = RealNetwork()
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with network.open_udp(HERE, 0) as alice, anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        for _ in range(50):
            alice.send(b"x", (HERE, alice.port))
            await alice.receive()
        tasks.cancel_scope.cancel()
    assert turns >= 5

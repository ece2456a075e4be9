from __future__ import annotations

import anyio
import pytest

from skycore.errors import DialError, TransportError
from skycore.testing import Link, NatKind, SimNetwork, Trace, sim_backend, simulate

ALICE, BOB, CAROL = "10.0.0.1", "10.0.0.2", "10.0.0.3"
HOME, AWAY = "192.168.0.2", "192.168.7.2"
STILL = Link(jitter_s=0.0)


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=3_600)


async def collect(socket, seconds=5.0):
    got = []
    with anyio.move_on_after(seconds):
        while True:
            got += await socket.receive()
    return got


async def sent_through(link, count=2_000, size=100, seed=3):
    network = SimNetwork(seed, link)
    async with (
        network.host(ALICE).open_udp("", 1) as alice,
        network.host(BOB).open_udp("", 2) as bob,
    ):
        got = []
        for number in range(count):
            assert alice.send(number.to_bytes(4, "big") + bytes(size - 4), (BOB, 2))
            await anyio.sleep(0.001)
        got = await collect(bob)
    return [(int.from_bytes(data[:4], "big"), sender) for data, sender in got]


async def test_a_datagram_arrives_with_its_sender_after_the_latency():
    network = SimNetwork(1, STILL)
    async with (
        network.host(ALICE).open_udp("", 1) as alice,
        network.host(BOB).open_udp("0.0.0.0", 0) as bob,
    ):
        alice.send(b"hello", (BOB, bob.port))
        began = anyio.current_time()
        assert list(await bob.receive()) == [(b"hello", (ALICE, 1))]
        assert anyio.current_time() - began == pytest.approx(0.02, abs=1e-4)
        alice.send(b"self", ("127.0.0.1", 1))
        assert list(await alice.receive()) == [(b"self", (ALICE, 1))]


async def test_loss_reordering_and_copies_are_as_many_as_asked_for():
    numbers = [n for n, _ in await sent_through(Link(loss=0.3, jitter_s=0.0))]
    assert 0.66 < len(numbers) / 2_000 < 0.74 and numbers == sorted(numbers)
    numbers = [n for n, _ in await sent_through(Link(duplicate=0.3, jitter_s=0.0))]
    assert 0.26 < len(numbers) / 2_000 - 1 < 0.34 and set(numbers) == set(range(2_000))
    numbers = [n for n, _ in await sent_through(Link(reorder=0.25, reorder_s=0.02, jitter_s=0.0))]
    overtaken = sum(later > n for n, later in zip(numbers[1:], numbers, strict=False))
    assert set(numbers) == set(range(2_000)) and overtaken > 200


async def test_u6_datagrams_over_the_mtu_vanish_silently():
    assert len(await sent_through(Link(mtu=1_228), count=10, size=1_200)) == 10
    assert await sent_through(Link(mtu=1_228), count=10, size=1_201) == []


async def test_a_full_queue_loses_what_comes_last():
    network = SimNetwork(1, Link(bytes_per_s=10_000, queue_s=0.5, jitter_s=0.0))
    async with (
        network.host(ALICE).open_udp("", 1) as alice,
        network.host(BOB).open_udp("", 2) as bob,
    ):
        for _ in range(100):
            alice.send(bytes(1_000), (BOB, 2))
        assert 5 <= len(await collect(bob)) <= 7


async def test_a_socket_that_nobody_reads_holds_only_so_much():
    network = SimNetwork(1, Link(bytes_per_s=1e12, jitter_s=0.0))
    async with (
        network.host(ALICE).open_udp("", 1) as alice,
        network.host(BOB).open_udp("", 2) as bob,
    ):
        for _ in range(1_000):
            alice.send(bytes(1_000), (BOB, 2))
        await anyio.sleep(1)
        assert len(await collect(bob)) == 425


async def test_u5_one_bit_of_a_broken_datagram_is_turned_over():
    network = SimNetwork(1, Link(corrupt=1.0))
    async with (
        network.host(ALICE).open_udp("", 1) as alice,
        network.host(BOB).open_udp("", 2) as bob,
    ):
        alice.send(bytes(50), (BOB, 2))
        ((data, _),) = await bob.receive()
        assert sum(byte.bit_count() for byte in data) == 1


async def test_cuts_kills_and_taken_ports():
    network = SimNetwork(1)
    host = network.host(ALICE)
    async with host.open_udp("", 1) as alice, network.host(BOB).open_udp("", 2) as bob:
        with pytest.raises(TransportError):
            async with host.open_udp("", 1):
                pass
        network.partition([ALICE], [BOB])
        alice.send(b"lost", (BOB, 2))
        network.heal()
        await anyio.sleep(1)
        alice.send(b"there", (BOB, 2))
        assert [data for data, _ in await collect(bob)] == [b"there"]
        network.kill(BOB)
        with pytest.raises(anyio.ClosedResourceError):
            await bob.receive()
        assert not bob.send(b"x", (ALICE, 1))
        async with network.host(BOB).open_udp("", 2):
            pass


async def reaches(kind_a, kind_b):
    """Tell whether hosts behind NATs meet where a third one sees them."""
    network = SimNetwork(5)
    home = network.nat(kind_a, "203.0.113.1")
    away = network.nat(kind_b, "203.0.113.2")
    async with (
        network.host(CAROL).open_udp("", 9) as carol,
        network.host(HOME, home).open_udp("", 1) as alice,
        network.host(AWAY, away).open_udp("", 2) as bob,
    ):
        for socket in (alice, bob):
            socket.send(b"where am I?", (CAROL, 9))
        seen = {sender[0]: sender for _, sender in await collect(carol, 1)}
        for _ in range(5):
            alice.send(b"punch", seen["203.0.113.2"])
            bob.send(b"punch", seen["203.0.113.1"])
            await anyio.sleep(0.2)
            # whoever is reached answers where it was reached from
            for socket in (alice, bob):
                for _, sender in await collect(socket, 0.1):
                    socket.send(b"answer", sender)
        return bool(await collect(alice, 1)) or bool(await collect(bob, 1))


HARD = {
    (NatKind.SYMMETRIC, NatKind.SYMMETRIC),
    (NatKind.SYMMETRIC, NatKind.PORT_RESTRICTED),
    (NatKind.PORT_RESTRICTED, NatKind.SYMMETRIC),
}


@pytest.mark.parametrize("kind_b", NatKind)
@pytest.mark.parametrize("kind_a", NatKind)
async def test_u10_which_pairs_can_meet_at_all(kind_a, kind_b):
    assert await reaches(kind_a, kind_b) == ((kind_a, kind_b) not in HARD)


async def test_a_host_behind_a_nat_dials_out_over_tcp_and_cannot_be_dialled():
    network = SimNetwork(1)
    nat = network.nat(NatKind.FULL_CONE, "203.0.113.1")
    home = network.host(HOME, nat)
    async with network.host(ALICE).listen_tcp("", 7) as listener, home.listen_tcp("", 7):
        near = await home.connect_tcp(ALICE, 7)
        far = await listener.accept()
        assert far.extra(anyio.abc.SocketAttribute.remote_address)[0] == "203.0.113.1"
        await near.send(b"hi")
        assert await far.receive() == b"hi"
        for address in (HOME, "203.0.113.1"):
            with pytest.raises(DialError), anyio.fail_after(1_000):
                await network.host(ALICE).connect_tcp(address, 7)
        neighbour = network.host("192.168.0.3", nat)
        inside = await neighbour.connect_tcp(HOME, 7)  # its own network
        assert inside.extra(anyio.abc.SocketAttribute.remote_address)[0] == HOME


async def test_hairpin_is_off_unless_asked_for():
    for hairpin in (False, True):
        network = SimNetwork(1)
        nat = network.nat(NatKind.FULL_CONE, "203.0.113.1", hairpin=hairpin)
        async with (
            network.host(CAROL).open_udp("", 9) as carol,
            network.host(HOME, nat).open_udp("", 1) as alice,
            network.host("192.168.0.3", nat).open_udp("", 1) as bob,
        ):
            bob.send(b"where?", (CAROL, 9))
            ((_, seen),) = await carol.receive()
            alice.send(b"around", seen)
            assert bool(await collect(bob, 1)) is hairpin
            alice.send(b"straight", ("192.168.0.3", 1))  # its own network needs no NAT
            assert await collect(bob, 1) == [(b"straight", (HOME, 1))]


def test_the_same_seed_gives_the_same_run():
    async def run():
        network = SimNetwork(11, Link(loss=0.1, reorder=0.2, duplicate=0.1), trace=Trace())
        nat = network.nat(NatKind.SYMMETRIC, "203.0.113.1")
        async with (
            network.host(HOME, nat).open_udp("", 1) as alice,
            network.host(BOB).open_udp("", 2) as bob,
        ):
            for number in range(200):
                alice.send(bytes(number), (BOB, 2))
            await collect(bob)
        return network.trace.digest

    assert simulate(run) == simulate(run)

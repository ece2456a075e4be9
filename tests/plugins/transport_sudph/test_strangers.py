"""Datagrams from nobody in particular: nothing crashes, grows, or is used against third parties."""

from __future__ import annotations

import contextlib
import random

import anyio
import pytest
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.rangeset import RangeSet

from skycore.errors import DialError
from skycore.model.addresses import Address
from skycore.model.sudph import Alive, DialBack, Punch, encode, where
from skycore.testing import Link
from skycore.testing.fakes import identity
from transport_sudph.core.certificate import configurations
from transport_sudph.core.link import QuicLink

BOB = identity("bob").public
TARGET = ("10.0.0.2", 7777)
DIALLING, _ = configurations(bytes(32), idle_s=45, window_bytes=1024 * 1024)


def first_flight(now=0.0):
    link = QuicLink(DIALLING)
    link.connect(TARGET, now)
    return link, [data for data, _ in link.outgoing(now)]


async def heard(socket, seconds):
    got = []
    with anyio.move_on_after(seconds):
        while True:
            got += [data for data, _ in await socket.receive()]
    return got


async def test_ten_thousand_malformed_datagrams_change_nothing_and_each_is_counted(
    ground, sim_seed
):
    world = ground(Link(bytes_per_s=1e9))
    dice = random.Random(sim_seed)
    _, real = first_flight()
    async with (
        world.pair() as (near, far),
        world.network.host("203.0.113.66").open_udp("", 1) as stranger,
    ):
        bob = far._endpoint
        before = sum(bob.counters.values())
        for number in range(10_000):
            match number % 5:
                case 0:
                    data = dice.randbytes(dice.randrange(0, 1_400))
                case 1:  # a real first flight with a few bytes changed
                    data = bytearray(real[0])
                    for _ in range(dice.randrange(1, 4)):
                        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
                case 2:  # cut off
                    data = real[0][: dice.randrange(len(real[0]))]
                case 3:  # for the real connection's ids, and not by its peer
                    cid = dice.choice(list(bob._by_cid) or [bytes(8)])
                    data = b"\x40" + cid + dice.randbytes(dice.randrange(0, 60))
                case _:
                    data = (
                        bytes((dice.randrange(64),)) + b"SK1" + dice.randbytes(dice.randrange(90))
                    )
            stranger.send(bytes(data), TARGET)
            if number % 100 == 99:
                await anyio.sleep(0.05)
        await anyio.sleep(10)
        assert len(bob) == 1 and len(bob._by_cid) <= 12
        assert sum(bob.counters.values()) - before > 9_000
        assert bob.counters["datagram_ignored"] > 1_500
        assert {"datagram_malformed", "datagram_unknown", "control_type"} <= set(bob.counters)
        assert bob.counters["connection_broken"] == 0
        await near.send(b"still fine")
        assert await far.receive() == b"still fine"


async def test_u1_and_u20_a_spoofed_source_is_sent_little_and_not_for_long(ground):
    world = ground()
    async with (
        world.node("bob", "10.0.0.2") as bob,
        bob.listen(),
        world.network.host("203.0.113.66").open_udp("", 1) as victim,
    ):
        _, flight = first_flight()
        for data in flight:
            victim.send(data, TARGET)
        replies = await heard(victim, 60)
        assert sum(map(len, replies)) <= 3 * sum(map(len, flight))
        assert len(replies) <= 3
        assert len(replies[0]) <= len(flight[0])
        assert len(bob.endpoint) == 0


async def test_n18_a_flood_of_first_flights_costs_50_handshakes_a_second_and_an_honest_dial_passes(
    ground, kit
):
    world = ground(Link(bytes_per_s=1e9))
    async with world.node("bob", "10.0.0.2") as bob, bob.listen() as listener:
        made = 0
        _, flight = first_flight()
        for number in range(40):
            host = world.network.host(f"203.0.{number}.1")
            async with host.open_udp("", 1) as stranger:
                for _ in range(10):
                    _, flight = first_flight()
                    stranger.send(flight[0], TARGET)
                await anyio.sleep(0.02)
            made = max(made, len(bob.endpoint))
        assert made <= 64
        assert bob.endpoint.counters["datagram_retry"] > 100
        async with world.node("alice", "10.0.0.1") as alice:
            began = anyio.current_time()
            near = await alice.dial(BOB, [kit.at("10.0.0.2:7777")])
            assert anyio.current_time() - began <= 2
            far = await listener.accept()
            await near.send(b"hi")
            assert await far.receive() == b"hi"
            await anyio.sleep(10)
            assert len(bob.endpoint) == 1  # what never finished is gone after 5 s


async def test_a_host_has_eight_unfinished_handshakes(ground):
    world = ground()
    async with (
        world.node("bob", "10.0.0.2") as bob,
        bob.listen(),
        world.network.host("203.0.113.66").open_udp("", 1) as stranger,
    ):
        for _ in range(20):
            stranger.send(first_flight()[1][0], TARGET)
        await anyio.sleep(1)
        assert len(bob.endpoint) == 8
        assert bob.endpoint.counters["datagram_crowded"] == 12
        await anyio.sleep(6)
        assert len(bob.endpoint) == 0


async def test_whoever_does_not_listen_answers_nothing(ground):
    world = ground()
    async with (
        world.node("bob", "10.0.0.2") as bob,
        world.network.host("203.0.113.66").open_udp("", 1) as stranger,
    ):
        stranger.send(first_flight()[1][0], TARGET)
        stranger.send(first_flight()[1][0][:100], TARGET)
        assert await heard(stranger, 10) == []
        assert len(bob.endpoint) == 0
        assert bob.endpoint._loaded is None  # nor does a stranger make it load QUIC
        assert bob.endpoint.counters["connection_refused"] == 2


async def test_a_64_of_ipv6_is_one_host_however_many_addresses_it_has(ground):
    world = ground()
    target = ("2001:db8:1::2", 7777)
    async with contextlib.AsyncExitStack() as stack:
        bob = await stack.enter_async_context(
            world.node("bob", target[0], listen=f"[{target[0]}]:7777")
        )
        await stack.enter_async_context(bob.listen())
        for n in range(20):
            host = world.network.host(f"2001:db8:2::{n + 1:x}")
            stranger = await stack.enter_async_context(host.open_udp("", 1))
            stranger.send(first_flight()[1][0], target)
        await anyio.sleep(1)
        assert len(bob.endpoint) == 8
        assert bob.endpoint.counters["datagram_crowded"] == 12
        await anyio.sleep(6)
        assert not bob.endpoint._quic.door._pending


async def test_a_target_that_spoofs_punches_aims_few_first_flights_at_others(ground):
    """A punch is smaller than what answers it: whom nobody but punches names is tried thrice."""
    world = ground()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(world.resolving())
        alice = await stack.enter_async_context(world.node("alice", "10.0.0.1", resolver=True))
        await world.bind(alice)
        victims = [
            await stack.enter_async_context(world.network.host(f"203.0.113.{n}").open_udp("", 9))
            for n in range(1, 21)
        ]
        tasks = await stack.enter_async_context(anyio.create_task_group())

        async def dial():
            with pytest.raises(DialError):
                await alice.dial(BOB, [Address("sudph", "10.0.0.66:1")])

        tasks.start_soon(dial)
        await anyio.sleep(0.1)
        (request,) = alice.meeting._races
        for victim in victims:
            victim.send(encode(Punch(request)), ("10.0.0.1", 7777))
        got = [await heard(victim, 5 / 20) for victim in victims]
        assert sum(map(bool, got)) <= 3
        assert alice.endpoint.counters["punch_received"] == 20


async def test_a_resolver_s_mood_costs_four_signatures_a_second(ground, monkeypatch):
    """It says over and over that it does not know a session that it has just given."""
    world = ground()
    signed = []
    async with world.resolving(), world.node("alice", "10.0.0.1", resolver=True) as alice:
        await world.bind(alice)
        own, binding = alice.meeting._identity, alice.meeting.binding

        class Counting:
            public, network = own.public, own.network

            def sign(self, text):
                signed.append(text)
                return own.sign(text)

        binding._identity = Counting()
        for _ in range(2_000):
            if binding.session is not None:
                seen = where(("10.0.0.1", 7777))
                world.resolver.say(Alive(binding._beat_count, False, seen), ("10.0.0.1", 7777))
            await anyio.sleep(0.005)
        assert 1 <= len(signed) <= 42


async def test_u8_what_is_injected_or_replayed_from_elsewhere_moves_nothing(ground, kit):
    """A thief sees every datagram and sends copies from its own address: it gets no stream."""
    world = ground()
    async with (
        world.pair() as (near, far),
        world.network.host("203.0.113.66").open_udp("", 1) as thief,
    ):
        copies = []
        send = near._endpoint._socket.send

        def copying(data, to):
            copies.append(data)
            return send(data, to)

        near._endpoint._socket.send = copying
        await kit.transfer(near, far, kit.BIG[:100_000])
        for data in copies:
            thief.send(data, TARGET)
        await anyio.sleep(2)
        assert far.link.peer == ("10.0.0.1", 7777)
        got = await heard(thief, 5)
        assert sum(map(len, got)) <= 3 * sum(map(len, copies[:8]))
        await kit.transfer(near, far, kit.BIG[:100_000])


async def test_u12_an_acknowledgement_of_what_was_never_sent_ends_the_connection(ground):
    async with ground().pair() as (near, far):
        await far.send(b"x")
        await near.receive()
        space = near.link._loss.spaces[2]
        space.ack_queue.add(50_000)
        space.ack_at = 0.0
        await near.send(b"y")
        with pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream)):
            while True:
                await far.receive()
        assert far.link.closed == "acknowledges what was never sent"


async def test_u12_an_acknowledgement_of_ten_thousand_ranges_is_looked_up_in_no_time(ground):
    """How many ranges there are the peer chooses; what is compared with them is ours to bound."""
    async with ground().pair() as (near, _):
        recovery, space = near.link._loss, near.link._loss.spaces[2]
        lost = [QuicSentPacket(epoch=2, in_flight=False, is_ack_eliciting=False,
                               is_crypto_packet=False, packet_number=n,
                               packet_type=5, sent_time=0.0, sent_bytes=100)
                for n in range(0, 512, 2)]  # fmt: skip
        recovery._remember(lost)
        compared = []

        class Ranges(RangeSet):
            def __contains__(self, number):
                compared.append(number)
                return super().__contains__(number)

        near.link._packet_number = 30_000
        acked = Ranges(range(n, n + 1) for n in range(1, 20_002, 2))
        acked.add(0)
        now = anyio.current_time()
        recovery.on_ack_received(ack_rangeset=acked, ack_delay=0.0, now=now, space=space)
        assert not compared
        assert recovery.spurious_losses == 1 and len(recovery._remembered) == 255


async def test_u15_data_beyond_the_window_ends_the_connection_and_is_not_kept(ground):
    async with ground().pair() as (near, far):
        near.link._streams[0].max_stream_data_remote = 2**40
        near.link.write(bytes(8 * 1024 * 1024))
        near._endpoint.flush(near.link)
        await anyio.sleep(10)
        assert far.link.closed and near.link.closed
        assert far.link.inbox_bytes <= 64 * 1024


async def test_a_second_stream_ends_the_connection(ground):
    async with ground().pair() as (near, far):
        near.link._remote_max_streams_bidi = 9
        near.link.send_stream_data(4, b"another")
        near._endpoint.flush(near.link)
        await anyio.sleep(1)
        assert far.link.closed


async def test_an_accept_queue_that_nobody_empties_is_bounded(ground, kit):
    world = ground()
    async with (
        world.node("alice", "10.0.0.1") as alice,
        world.node("bob", "10.0.0.2") as bob,
        bob.listen(),
    ):
        kept = []
        for _ in range(70):
            kept.append(await alice.dial(BOB, [kit.at("10.0.0.2:7777")]))
            await anyio.sleep(0.05)
        await anyio.sleep(1)
        assert len(bob.endpoint.backlog) == 64 and len(bob.endpoint) == 64
        with pytest.raises(anyio.BrokenResourceError):
            await kept[-1].receive()


async def test_a_node_has_only_so_many_connections(ground, kit):
    world = ground()
    async with (
        world.node("alice", "10.0.0.1", connections_max=2) as alice,
        world.node("bob", "10.0.0.2") as bob,
        bob.listen(),
    ):
        for _ in range(2):
            await alice.dial(BOB, [kit.at("10.0.0.2:7777")])
        with pytest.raises(DialError, match="as many"):
            await alice.dial(BOB, [kit.at("10.0.0.2:7777")])


async def test_u11_only_the_resolver_that_knows_our_session_makes_us_punch(ground):
    world = ground()
    async with (
        world.resolving(),
        world.node("bob", "10.0.0.2", resolver=True) as bob,
        world.network.host("203.0.113.66").open_udp("", 1) as stranger,
        world.network.host("203.0.113.99").open_udp("", 9) as victim,
    ):
        await world.bind(bob)
        await anyio.sleep(5)  # it is bound anew when it knows its NAT
        session = bob.meeting.binding.session
        seen = where(("203.0.113.99", 9))

        def call(session):
            return DialBack(session, bytes(8), bytes(32), seen, 0, ())

        stranger.send(encode(call(session)), TARGET)  # knows the session, is not the resolver
        world.resolver.say(call(bytes(16)), TARGET)  # is the resolver, does not know it
        assert await heard(victim, 5) == []
        for _ in range(100):
            world.resolver.say(call(session), TARGET)
        got = await heard(victim, 30)
        assert len(got) == 10 and {len(data) for data in got} == {len(encode(Punch(bytes(8))))}
        assert max(map(len, got)) <= 64
        assert bob.endpoint.counters["dial_back_foreign"] == 2


async def test_u19_unreachable_says_nothing_about_a_connection(ground):
    """No part of SUDPH hears ICMP: the socket swallows it (tests/kernel/runtime/test_udp.py)."""
    world = ground()
    async with world.pair() as (near, far):
        world.network.cut("10.0.0.1", "10.0.0.2")
        await anyio.sleep(5)
        world.network.heal()
        await near.send(b"alive")
        assert await far.receive() == b"alive"

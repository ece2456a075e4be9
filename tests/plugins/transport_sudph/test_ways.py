"""What bad ways do to a connection: loss, reordering, copies, broken bits, small MTUs, outages."""

from __future__ import annotations

import gc
import itertools
import random
import tracemalloc

import anyio
import pytest

from skycore.errors import DialError
from skycore.model.addresses import Address
from skycore.testing import Link, Trace, simulate
from skycore.testing.fakes import identity

BOB = identity("bob").public
CLEAN_LIMIT_S = 1.0


async def test_a_clean_way_of_40_ms_carries_a_mebibyte_each_way_in_a_second(ground, kit):
    async with ground().pair() as (near, far):
        assert await kit.both_ways(near, far) <= CLEAN_LIMIT_S
        assert near.link._loss.lost_packets <= 3  # probes of a size that the way does not carry


async def test_u2_30_percent_loss_each_way_is_byte_exact(ground, kit):
    async with ground(Link(loss=0.3)).pair() as (near, far):
        assert await kit.both_ways(near, far) <= 60


async def test_u3_reordering_is_byte_exact_and_few_retransmissions_are_spurious(ground, kit):
    async with ground(Link(reorder=0.25, reorder_s=0.02)).pair() as (near, far):
        assert await kit.both_ways(near, far) <= 3 * CLEAN_LIMIT_S
        sent = near.link._packet_number
        assert near.link._loss.spurious_losses < 0.3 * sent


async def test_u4_copies_are_delivered_once_and_cost_little(ground, kit):
    async with ground(Link(duplicate=0.3)).pair() as (near, far):
        assert await kit.both_ways(near, far) <= CLEAN_LIMIT_S / 0.7


async def test_u5_broken_datagrams_are_never_data(ground, kit):
    async with ground(Link(corrupt=0.01)).pair() as (near, far):
        assert await kit.both_ways(near, far) <= 3 * CLEAN_LIMIT_S


async def test_all_of_it_together_is_byte_exact(ground, kit):
    link = Link(loss=0.3, reorder=0.25, duplicate=0.3, corrupt=0.01)
    async with ground(link).pair() as (near, far):
        assert await kit.both_ways(near, far) <= 60


async def test_u6_an_mtu_black_hole_in_the_middle_is_noticed_within_5_s(ground, kit):
    world = ground(Link(bytes_per_s=1_000_000))
    async with world.pair() as (near, far), anyio.create_task_group() as tasks:
        tasks.start_soon(kit.transfer, near, far, kit.BIG * 4)
        await world.until(lambda: near.link.mtu.size > 1_200)
        await anyio.sleep(0.5)
        for ends in itertools.permutations(("10.0.0.1", "10.0.0.2")):
            world.network.set_link(*ends, Link(bytes_per_s=1_000_000, mtu=1_228))
        assert await world.until(lambda: near.link.mtu.size == 1_200, 5) <= 5
        acknowledged = far.link.consumed
        await anyio.sleep(1)
        assert far.link.consumed > acknowledged


async def test_datagrams_grow_to_what_the_way_carries(ground, kit):
    for mtu, size in ((1_228, 1_200), (1_500, 1_452), (9_000, 8_952), (65_535, 16_000)):
        async with ground(Link(mtu=mtu)).pair() as (near, far):
            await kit.transfer(near, far, kit.BIG)
            await anyio.sleep(1)
            assert near.link.mtu.size == size


async def test_u7_ten_seconds_of_outage_end_within_3_s_of_healing(ground, kit):
    world = ground(Link(bytes_per_s=500_000))
    async with world.pair() as (near, far), anyio.create_task_group() as tasks:
        tasks.start_soon(kit.transfer, near, far, kit.BIG)
        await anyio.sleep(0.7)
        world.network.partition(["10.0.0.1"], ["10.0.0.2"])
        await anyio.sleep(10)
        had = far.link.consumed
        world.network.heal()
        await world.until(lambda: far.link.consumed > had, 3)


async def test_u7_an_outage_below_30_s_resets_nothing(ground, kit):
    world = ground()
    async with world.pair() as (near, far):
        await anyio.sleep(7)
        world.network.partition(["10.0.0.1"], ["10.0.0.2"])
        await anyio.sleep(29)
        world.network.heal()
        assert await kit.both_ways(near, far) <= 10


async def test_u17_a_peer_that_vanishes_is_noticed_and_every_call_ends(ground):
    world = ground()
    async with world.pair() as (near, _):
        world.network.isolate("10.0.0.2")
        ended = []

        async def read():
            with pytest.raises(anyio.BrokenResourceError):
                await near.receive()
            ended.append(anyio.current_time())

        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            with pytest.raises(anyio.BrokenResourceError):
                while True:
                    await near.send(bytes(65_536))
            ended.append(anyio.current_time())
        assert max(ended) - began <= 60
        assert max(ended) - min(ended) <= 1


async def test_a_close_is_seen_at_once_and_through_loss(ground):
    for link, limit_s in ((None, 0.2), (Link(loss=0.3), 20)):
        async with ground(link).pair() as (near, far):
            await near.send(b"last words")
            await near.aclose()
            began = anyio.current_time()
            got = b""
            with pytest.raises(anyio.EndOfStream):
                while True:
                    got += await far.receive()
            assert got == b"last words"
            assert anyio.current_time() - began <= limit_s
            with pytest.raises(anyio.BrokenResourceError):
                for _ in range(100):
                    await far.send(b"anybody?")
                    await anyio.sleep(limit_s / 10)


async def test_one_direction_ends_and_the_other_goes_on(ground, kit):
    async with ground().pair() as (near, far):
        await near.send_eof()
        with pytest.raises(anyio.EndOfStream):
            await far.receive()
        await kit.transfer(far, near, kit.BIG)
        with pytest.raises(anyio.BrokenResourceError):
            await near.send(b"more")


async def test_a_reader_that_does_not_read_holds_the_writer(ground):
    """Back-pressure: 64 KiB before the first byte was read, a window later, never more."""
    async with ground().pair() as (near, far), anyio.create_task_group() as tasks:
        tasks.start_soon(near.send, bytes(4 * 1024 * 1024))
        await anyio.sleep(20)
        assert far.link.inbox_bytes == 64 * 1024
        got = 0
        while got < 1024 * 1024:
            got += len(await far.receive())
        await anyio.sleep(20)
        assert far.link.inbox_bytes <= far.link.window_bytes
        assert near.link.unsent_bytes > 0
        while got < 4 * 1024 * 1024:
            got += len(await far.receive())


async def test_u13_a_reader_that_never_reads_keeps_a_connection_that_still_works(ground):
    async with ground().pair() as (near, far), anyio.create_task_group() as tasks:
        tasks.start_soon(near.send, bytes(2 * 1024 * 1024))
        await anyio.sleep(300)
        await far.send(b"busy")
        assert await near.receive() == b"busy"
        got = 0
        while got < 2 * 1024 * 1024:
            got += len(await far.receive())


async def test_the_listener_may_speak_first(ground):
    async with ground().pair() as (near, far):
        await far.send(b"welcome")
        assert await near.receive() == b"welcome"


async def test_an_idle_connection_costs_a_ping_in_15_s(ground):
    world = ground()
    async with world.pair() as (near, far):
        await anyio.sleep(60)
        before = world.network.post.sent
        await anyio.sleep(600)
        assert world.network.post.sent - before <= 600 / 15 * 2 * 2
        assert near.link.closed is None and far.link.closed is None


async def test_a_dial_to_nobody_ends_in_time_and_leaves_nothing(ground, kit):
    world = ground()
    async with world.node("alice", "10.0.0.1") as alice:
        began = anyio.current_time()
        with pytest.raises(DialError, match="does not answer"):
            await alice.dial(BOB, [kit.at("10.0.0.9:1")])
        assert anyio.current_time() - began <= 8.1
        assert len(alice.endpoint) == 0 and not alice.endpoint._by_cid


async def test_of_several_addresses_the_one_that_answers_wins(ground, kit):
    world = ground()
    async with (
        world.node("alice", "10.0.0.1") as alice,
        world.node("bob", "10.0.0.2") as bob,
        bob.listen() as listener,
    ):
        addresses = [kit.at(e) for e in ("10.0.0.8:1", "10.0.0.9:1", "10.0.0.2:7777")]
        near = await alice.dial(BOB, addresses)
        far = await listener.accept()
        await near.send(b"hi")
        assert await far.receive() == b"hi"
        assert len(alice.endpoint) == 1


async def test_t1803_thousands_of_connections_come_and_go_and_leave_nothing(ground, kit):
    world = ground(Link(latency_s=0.001, jitter_s=0.0))
    async with (
        world.node("alice", "10.0.0.1") as alice,
        world.node("bob", "10.0.0.2") as bob,
        bob.listen() as listener,
    ):
        for _ in range(300):
            near = await alice.dial(BOB, [kit.at("10.0.0.2:7777")])
            far = await listener.accept()
            await near.send(b"x")
            assert await far.receive() == b"x"
            await near.aclose()
            await far.aclose()
        await anyio.sleep(10)
        for endpoint in (alice.endpoint, bob.endpoint):
            assert len(endpoint) == 0 and not endpoint._by_cid
            assert len(endpoint._timers) <= 64 and len(endpoint._gone) <= 256


async def test_t700_dials_cancelled_at_any_moment_leave_nothing(ground, kit, sim_seed):
    world = ground(Link(loss=0.1))
    dice = random.Random(sim_seed)
    async with (
        world.node("alice", "10.0.0.1") as alice,
        world.node("bob", "10.0.0.2") as bob,
        bob.listen() as listener,
    ):

        async def accept():
            while True:
                stream = await listener.accept()
                await stream.aclose()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(accept)
            for _ in range(60):
                with anyio.move_on_after(dice.uniform(0, 0.2)):
                    near = await alice.dial(BOB, [kit.at("10.0.0.2:7777")])
                    await near.aclose()
            await anyio.sleep(120)
            tasks.cancel_scope.cancel()
        assert len(alice.endpoint) == 0 and len(bob.endpoint) == 0


def test_the_same_seed_gives_the_same_run(kit):
    async def run():
        world = kit.Ground(5, Link(loss=0.1, reorder=0.2, duplicate=0.1))
        world.network.trace = Trace()
        async with world.pair() as (near, far):
            await kit.transfer(near, far, kit.BIG)
        return world.network.trace.digest

    assert simulate(run) == simulate(run)


async def test_u17_a_peer_that_vanishes_while_the_window_is_full_stops_nothing_else(ground, kit):
    """A keepalive that finds no room must not be due again at once."""
    world = ground(Link(bytes_per_s=500_000))
    async with world.pair(keepalive_s=1.0, idle_s=6.0) as (near, _):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_send_until_broken, near, kit.BIG * 8)
            await anyio.sleep(1)
            world.network.isolate("10.0.0.2")
            await anyio.sleep(20)
        assert near.link.closed is not None


async def _send_until_broken(stream, data):
    with pytest.raises(anyio.BrokenResourceError):
        await stream.send(data)


async def test_an_idle_connection_holds_little(ground):
    """1,024 of them, as many as there may be, are then 64 MiB, of which half is OpenSSL's."""
    world = ground()
    count = 12
    async with (
        world.node("alice", "10.0.0.1") as alice,
        world.node("bob", "10.0.0.2") as bob,
        bob.listen() as listener,
    ):
        ends = []

        async def meet():
            ends.append(await alice.dial(BOB, [Address("sudph", "10.0.0.2:7777")]))
            ends.append(await listener.accept())
            await anyio.sleep(1)

        await meet()  # what is made once
        gc.collect()
        tracemalloc.start()
        try:
            for _ in range(count):
                await meet()
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held / (2 * count) < 64 * 1024

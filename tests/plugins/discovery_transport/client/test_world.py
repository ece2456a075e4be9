"""Whole nodes with the service, the DHT and trouble in both, on virtual time (L12, C38)."""

from __future__ import annotations

import random

import anyio
import pytest

from discovery_transport.server.desk import TransportDesk
from skycore.contracts.transport import Transports
from skycore.testing import World
from skycore.testing.seams import SimFiles

TTL_S = 300


@pytest.fixture
def durable(monkeypatch, tmp_path):
    """Give the registry of a simulated node a real file, which outlives a restart."""

    def path(self, name):
        return tmp_path / f"{id(self.held)}-{name}" if name == "registry.db" else None

    monkeypatch.setattr(SimFiles, "path", path)


async def test_c38_l12_registration_rests_and_nothing_vanishes_over_three_lifetimes(deployment):
    async with World(seed=1) as world:
        net = await deployment(world).start(visors=3)
        await net.settled()
        assert all(len(net.carriers(v).own.entries) == 2 for v in net.visors), "both edges list"
        began = anyio.current_time()
        before, missing = net.registrations, []
        checks = sum(net.carriers(v).registrar.checks for v in net.visors)
        await net.watch(3 * TTL_S, missing)
        assert missing == []
        assert net.registrations == before, "none at all while the DHT carries"
        checks = sum(net.carriers(v).registrar.checks for v in net.visors) - checks
        assert checks <= 3 * 2, "the service is asked every eight minutes"
        beats = await net.server.get(TransportDesk).directory.beats("2027-01-15")
        passed = anyio.current_time() - began
        for visor in net.visors:
            assert beats[visor.public].slots >= passed // 300, "heartbeats go on"
            assert net.server.clock.wall_s() - beats[visor.public].last_s < 200


async def test_l12_how_many_requests_that_saves(deployment):
    """At least 80 % even if every check counts as a registration: see the test before."""
    async with World(seed=1) as world:
        net = await deployment(world).start(visors=2, hand_over=False)
        await anyio.sleep(100)
        before, missing = net.registrations, []
        await net.watch(2 * TTL_S, missing)
        assert missing == []
        assert net.registrations - before >= 2 * 6


async def test_l12_full_nodes_die_and_http_takes_over_before_anything_ends(deployment):
    async with World(seed=2) as world:
        net = await deployment(world).start(visors=2)
        await net.settled()
        missing = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(net.watch, 4 * TTL_S, missing)
            await anyio.sleep(100)
            before = net.registrations
            await world.kill(net.full[0])
            await anyio.sleep(200)
            assert net.all_carried_by_dht(), "two are left"
            assert net.registrations == before
            await world.kill(net.full[1])
            lost_s = await world.until(
                lambda: net.registrations >= before + len(net.visors), limit_s=300
            )
            assert lost_s <= 90
            assert not any(net.carriers(v).verdict.is_handed_over for v in net.visors)
            await anyio.sleep(TTL_S)
            await world.start(net.full[1])
            await net.handed_over(limit_s=400)
        assert missing == []


async def test_l12_the_service_restarts_and_nothing_is_missing(durable, deployment):
    async with World(seed=3) as world:
        net = await deployment(world).start(visors=2)
        await net.settled()
        before, missing = net.registrations, []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(net.watch, 3 * TTL_S, missing)
            await anyio.sleep(200)
            await world.stop(net.server)
            await anyio.sleep(60)
            await world.start(net.server)
            await anyio.sleep(1)
        assert missing == []
        assert net.all_carried_by_dht()
        assert net.registrations - before <= 2 * len(net.visors)


async def test_l12_a_service_that_lost_everything_is_whole_again_from_the_dht(deployment):
    async with World(seed=4) as world:
        net = await deployment(world).start(visors=2)
        await net.settled()
        await world.restart(net.server)  # its registry was in memory
        assert net.missing()
        took_s = await world.until(lambda: not net.missing(), limit_s=120)
        assert took_s <= 30


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 8))]
)
async def test_l12_links_are_cut_and_mended_at_random(seed, durable, deployment):
    """Between visors and service, visors and full nodes, service and full nodes."""
    dice = random.Random(seed)
    async with World(seed=seed) as world:
        net = await deployment(world).start(visors=3)
        await net.settled()
        missing = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(net.watch, 4 * TTL_S, missing)
            for _ in range(6):
                one = dice.choice(net.visors)
                other = dice.choice([net.server, *net.full])
                world.network.cut(one.address, other.address)
                world.network.cut(other.address, one.address)
                await anyio.sleep(dice.uniform(30, 250))
                world.heal()
        assert missing == []
        await net.handed_over(limit_s=600)


async def test_l12_a_service_that_does_not_take_from_the_dht_is_always_told(deployment):
    """It would list what it was told last until that ends, and then nothing."""
    async with World(seed=5, settings={"discovery_transport_server": {"take": False}}) as world:
        net = await deployment(world).start(visors=2)
        await anyio.sleep(60)
        missing = []
        await net.watch(2 * TTL_S, missing)
        assert missing == []
        verdicts = [net.carriers(v).verdict for v in net.visors]
        assert not any(v.is_handed_over for v in verdicts)
        assert {v.why for v in verdicts} == {"the service does not have them from the DHT (yet)"}


async def test_a_change_is_told_at_once_and_what_is_gone_is_deleted(deployment):
    async with World(seed=6) as world:
        net = await deployment(world).start(visors=5)
        await net.settled()
        first, third = net.visors[0], net.visors[2]
        desk = net.server.get(TransportDesk)
        made = await net.link(first, third)
        await world.until(lambda: len(desk.directory.having(made.id.bytes)) == 2, limit_s=60)
        await net.handed_over(limit_s=200)
        await first.get(Transports).close(made.id, "test")
        await world.until(lambda: not desk.directory.having(made.id.bytes), limit_s=30)
        await net.handed_over(limit_s=200)


async def test_l20_a_dead_edge_is_one_sided_and_then_gone_and_a_stop_is_told(deployment):
    async with World(seed=7) as world:
        net = await deployment(world).start(visors=4)
        await net.settled()
        desk = net.server.get(TransportDesk)
        dead, stopped = net.visors[0], net.visors[2]
        await world.stop(stopped)
        assert not desk.directory.of(stopped.public).entries, "it said so itself"
        await world.kill(dead)
        gone_s = await world.until(
            lambda: not desk.directory.of(dead.public).entries, limit_s=2 * TTL_S
        )
        assert gone_s <= TTL_S + 10
        net.visors = [net.visors[1], net.visors[3]]
        assert net.missing() == []


async def test_l25_a_burst_of_transports_is_few_requests(deployment):
    async with World(seed=8) as world:
        net = await deployment(world).start(visors=2)
        await net.settled()
        hub = net.visors[0]
        before = net.carriers(hub).registrar.registrations
        others = await world.spawn("visor", 10)
        began = anyio.current_time()
        for other in others:
            await net.link(hub, other)
            await anyio.sleep(0.9)
        await world.until(lambda: not net.missing(), limit_s=60)
        sent = net.carriers(hub).registrar.registrations - before
        assert sent <= 1 + (anyio.current_time() - began) / 5


async def test_a_node_without_a_service_publishes_and_one_without_a_dht_registers(deployment):
    async with World(seed=9) as world:
        net = await deployment(world).start(url="")
        assert net.carriers(net.visors[0]).registrar is None
        desk = net.server.get(TransportDesk)
        await world.until(lambda: len(desk.fleet) == 4, limit_s=120, what="taken from the DHT")
        status = await net.status(net.visors[0])
        assert status.summary == "2 transports, told to the DHT"

"""A firewall that lets the service through and not the DHT, or the other way round (L12, C38)."""

from __future__ import annotations

import pytest

from skycore.testing import World
from skycore.testing.network import SimHost, SimNetwork

TTL_S = 300
HTTP_PORT = 9080
# By UDP they would find a way around, and be right to.
TCP_ALONE = {"node": {"disable": ["transport_sudph"]}}
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in (1, 2))]


def way(address, *ports):
    """Name a host's end of a way: HTTP has its own, beside that of links and sessions."""
    return f"{address} {'http' if HTTP_PORT in ports else 'links'}"


class Firewall:
    """Cuts all visors of a deployment from all else, for HTTP or for all but HTTP."""

    def __init__(self, net):
        self.net, self.network = net, net.world.network

    def block(self, kind):
        self.network.heal()
        for visor in self.net.visors:
            for node in (self.net.server, *self.net.full):
                ends = f"{visor.address} {kind}", f"{node.address} {kind}"
                self.network.cut(*ends)
                self.network.cut(*reversed(ends))


@pytest.fixture
def firewall(monkeypatch):
    """Let connections go by ways of their own kind, which can be cut by themselves."""
    connect = SimHost._try_connect
    pipe_of = SimNetwork._pipe

    async def try_connect(self, source, target, dice):
        ends = way(source[0], target[1]), way(target[0], target[1])
        path = self._network.path
        if path(*ends).open and path(*reversed(ends)).open:
            return await connect(self, source, target, dice)
        return None

    def pipe(self, source, target):
        made = pipe_of(self, source, target)
        ports = source[1], target[1]
        made.path = self.path(way(source[0], *ports), way(target[0], *ports))
        return made

    monkeypatch.setattr(SimHost, "_try_connect", try_connect)
    monkeypatch.setattr(SimNetwork, "_pipe", pipe)
    return Firewall


@pytest.mark.parametrize("seed", SEEDS)
async def test_l12_no_way_into_the_dht_and_http_takes_over(seed, firewall, deployment):
    async with World(seed=seed, settings=TCP_ALONE) as world:
        net = await deployment(world).start(visors=3)
        await net.settled()
        before, missing = net.registrations, []
        firewall(net).block("links")
        await net.watch(3 * TTL_S, missing)
        assert missing == []
        assert not any(net.carriers(v).verdict.is_handed_over for v in net.visors)
        assert net.registrations - before >= len(net.visors) * (3 * TTL_S // 90 - 2)
        world.heal()
        await net.handed_over(limit_s=600)


@pytest.mark.parametrize("seed", SEEDS)
async def test_l12_no_way_to_http_and_the_dht_goes_on(seed, firewall, deployment):
    async with World(seed=seed, settings=TCP_ALONE) as world:
        net = await deployment(world).start(visors=3)
        await net.settled()
        before, missing = net.registrations, []
        firewall(net).block("http")
        await net.watch(3 * TTL_S, missing)
        assert missing == []
        assert any(net.carriers(v).registration.state.trouble for v in net.visors)
        assert net.registrations >= before, "tried again once the proof grew old"
        world.heal()
        await net.watch(TTL_S, missing)
        assert missing == []
        await net.handed_over(limit_s=600)


@pytest.mark.parametrize("seed", SEEDS)
async def test_l12_what_carries_is_cut_just_as_the_other_comes_back(seed, firewall, deployment):
    """Each change finds the side that was away without proof, and must not wait for a lifetime."""
    async with World(seed=seed, settings=TCP_ALONE) as world:
        net = await deployment(world).start(visors=3)
        await net.settled()
        missing, wall = [], firewall(net)
        for kind, for_s in (("http", 600), ("links", 200), ("http", 170), ("links", 350)):
            wall.block(kind)
            await net.watch(for_s, missing)
        assert missing == []
        world.heal()
        await net.handed_over(limit_s=600)

"""The timekeeper: what it hears on links, and what it says to people."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace

import pytest

from skycore.contracts.runtime import ClockCorrected
from skycore.contracts.status import Health
from skycore.events import Events
from skycore.guards.clock import VOTE_AGE_S, CorrectedClock
from skycore.guards.timekeeper import Timekeeper, open_timekeeper
from skycore.testing.contracts.status import StatusSourceContract
from skycore.testing.fakes import START_NS, FakeClock

NS = 10**9
DAY_S = 86_400
HOUR_S = 3_600


class Links:
    """As much of `Transports` as the timekeeper asks for."""

    def __init__(self, clock):
        self._clock = clock
        self._callbacks = []
        self._live = {}

    def all(self):
        return list(self._live.values())

    def find(self, remote):
        return self._live.get(remote)

    @contextmanager
    def on_change(self, callback):
        self._callbacks.append(callback)
        yield
        self._callbacks.remove(callback)

    def up(self, name, off_s=0.0, *, dialled=True):
        now = self._clock.now()
        said_ns = START_NS + round((now + off_s) * NS)
        remote = name.encode()
        link = SimpleNamespace(
            remote=remote,
            remote_hello=SimpleNamespace(wall_ns=said_ns),
            opened_at=now,
            dialled=dialled,
        )
        self._live[remote] = link
        for callback in self._callbacks:
            callback(link, True)

    def down(self, name):
        link = self._live.pop(name.encode())
        for callback in self._callbacks:
            callback(link, False)


@asynccontextmanager
async def keeping(off_s=0.0):
    own = FakeClock()
    own.wall_offset_s = off_s
    clock, events, links = CorrectedClock(own), Events(), Links(own)
    with events.subscribe(ClockCorrected) as told:
        async with open_timekeeper(clock, events, links) as keeper:
            yield SimpleNamespace(own=own, clock=clock, links=links, keeper=keeper, told=told)


def corrections(node):
    """Return the events so far."""
    found = list(node.told._held)
    node.told._held.clear()
    return [(round(event.correction_s), event.peers) for event in found]


class TestStatus(StatusSourceContract):
    @pytest.fixture
    async def source(self):
        async with keeping() as node:
            yield node.keeper


async def test_c13_in_1970_it_says_so_and_judges_by_its_peers(caplog):
    caplog.set_level(logging.INFO, "skycore")
    async with keeping(off_s=-START_NS / NS) as node:
        status = await node.keeper.status()
        assert status.health is Health.DEGRADED
        assert "fewer than 3 peers" in status.summary
        for name in "abcde":
            node.links.up(name)
        status = await node.keeper.status()
        assert status.health is Health.DEGRADED
        assert status.summary == (
            "this node's clock is 57 years behind the median of 5 peers; judging by theirs"
        )
        assert status.fields == {
            "offset_s": START_NS / NS,
            "peers_asked": 5,
            "corrected": True,
        }
        assert node.clock.wall_ns() == START_NS
        assert corrections(node) == [(START_NS // NS, 3)]
        assert [r.getMessage() for r in caplog.records] == [
            f"clock corrected by_s=+{START_NS // NS} peers=3"
        ]


async def test_a_right_clock_is_said_to_agree():
    async with keeping(off_s=12) as node:
        assert (await node.keeper.status()).summary == "fewer than 3 peers to compare with"
        for name in "abc":
            node.links.up(name)
        status = await node.keeper.status()
        assert (status.health, status.summary) == (
            Health.OK,
            "agrees with the median of 3 peers",
        )
        assert status.fields == {"offset_s": -12.0, "peers_asked": 3, "corrected": False}
        assert corrections(node) == []


@pytest.mark.parametrize(
    ("off_s", "words"),
    [
        (-400, "6 minutes behind"),
        (2 * HOUR_S, "2 hours ahead of"),
        (-3 * DAY_S, "3 days behind"),
        (800 * DAY_S, "2 years ahead of"),
    ],
)
async def test_how_far_off_is_said_in_words(off_s, words):
    async with keeping(off_s=off_s) as node:
        for name in "abc":
            node.links.up(name)
        assert f"clock is {words} the median" in (await node.keeper.status()).summary


async def test_links_that_are_up_already_are_heard_too():
    own = FakeClock()
    own.wall_offset_s = DAY_S
    clock, links = CorrectedClock(own), Links(own)
    for name in "abc":
        links.up(name)
    own.advance(100)
    async with open_timekeeper(clock, Events(), links):
        assert clock.wall_ns() == START_NS + 100 * NS


async def test_a_node_without_links_has_its_own_clock():
    clock = CorrectedClock(FakeClock())
    async with open_timekeeper(clock, Events(), None) as keeper:
        assert isinstance(keeper, Timekeeper)
        await keeper.tick()
        assert (await keeper.status()).health is Health.OK
        assert clock.wall_ns() == START_NS


async def test_c13_each_change_is_told_once(caplog):
    caplog.set_level(logging.INFO, "skycore")
    async with keeping() as node:
        for name in "abc":
            node.links.up(name)
        for off_s in (DAY_S, DAY_S, DAY_S + 30, 0, 0):
            node.own.wall_offset_s = off_s
            node.own.advance(5)
            assert abs(node.clock.wall_ns() - START_NS - node.own.now() * NS) <= 300 * NS
            await node.keeper.tick()
        assert corrections(node) == [(-DAY_S, 3), (0, 3)]
        assert [r.getMessage() for r in caplog.records] == [
            f"this machine's clock was set by_s=+{DAY_S}",
            f"clock corrected by_s=-{DAY_S} peers=3",
            "this machine's clock was set by_s=+30",
            f"this machine's clock was set by_s=-{DAY_S + 30}",
            "clock no longer corrected peers=3",
        ]


async def test_a_paused_machine_listens_to_whom_it_meets_afterwards():
    """The monotonic clock stood still for an hour; wall time is right, and old votes are not."""
    async with keeping() as node:
        for n in range(30):
            node.links.up(f"old {n}")
        node.own.advance(5)
        await node.keeper.tick()
        for n in range(30):
            node.links.down(f"old {n}")
        node.own.wall_offset_s = HOUR_S
        node.own.advance(1)
        for name in "abc":
            node.links.up(name, HOUR_S)
        await node.keeper.tick()
        assert node.clock.correction_ns == 0
        assert (await node.keeper.status()).summary == "agrees with the median of 3 peers"


async def test_a_link_that_holds_for_days_keeps_its_vote():
    async with keeping(off_s=-DAY_S) as node:
        for name in "abcd":
            node.links.up(name)
        node.links.down("d")
        for _ in range(100):
            node.own.advance(HOUR_S)
            await node.keeper.tick()
        assert node.clock.correction_ns == DAY_S * NS
        assert (await node.keeper.status()).fields["peers_asked"] == 3
        for name in "abc":
            node.links.down(name)
        node.own.advance(VOTE_AGE_S + 1)
        await node.keeper.tick()
        assert node.clock.correction_ns == 0
        assert corrections(node)[-1] == (0, 0)

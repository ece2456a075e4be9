"""The own entry with a clock that steps, and with requests whose answers are lost."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager

import anyio
import pytest

from discovery_dmsg.client.presence import Presence
from discovery_dmsg.client.settings import DmsgClientSettings
from skycore.errors import HttpUnreachableError
from skycore.model.entries import DmsgServer
from skycore.testing.fakes import identity
from skycore.testing.seams import SimClock

FACTS = DmsgServer("203.0.113.7:8081", 100)
SERVERS = [identity("one").public]


class LossyClient:
    """An HttpClient whose requests arrive, and whose answers do not while it is lossy."""

    def __init__(self, http):
        self.http, self.is_lossy = http, False

    async def request(self, method, url, **more):
        response = await self.http.request(method, url, **more)
        if self.is_lossy:
            raise HttpUnreachableError("the answer was lost")
        return response


@pytest.fixture
def present(running):
    """Return a way to run the presence of alice, who has a clock of her own."""

    @asynccontextmanager
    async def run(clock=None, *, lossy=False):
        api = running.api()
        api._http = http = LossyClient(running.http)
        http.is_lossy = lossy
        who = identity("alice", running.person("alice").identity.network)
        presence = Presence(
            DmsgClientSettings(url=running.url), api, who, clock or running.clock, random.Random(1)
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(presence.loop.run)
            yield presence, http
            await presence.loop.leave()
            tasks.cancel_scope.cancel()

    return run


@pytest.mark.parametrize("ahead_s", [3_600, 365 * 86_400])
async def test_a_clock_that_is_put_right_is_believed_at_once(running, present, ahead_s):
    clock = SimClock()
    clock.offset_s = ahead_s
    async with present(clock) as (presence, _):
        presence.set_server(FACTS)
        await anyio.sleep(300)
        assert not presence.registered and "outdated timestamp" in presence.loop.state.trouble
        clock.offset_s = 0
        await anyio.sleep(90)
        assert presence.registered, presence.loop.state
        assert await running.list("/all_servers")
    async with present() as (presence, _):  # what it handed in then is no burden either
        presence.set_server(FACTS)
        await anyio.sleep(5)
        assert presence.registered, presence.loop.state


async def test_a_clock_that_steps_back_after_it_was_believed_goes_on(running, present):
    clock = SimClock()
    clock.offset_s = 250
    async with present(clock) as (presence, _):
        presence.set_servers(SERVERS)
        await anyio.sleep(5)
        assert presence.registered
        clock.offset_s = -250
        presence.set_servers([*SERVERS, identity("two").public])
        await anyio.sleep(30)
        assert presence.registered, presence.loop.state


async def test_an_entry_whose_answer_was_lost_is_taken_back(running, present):
    async with present(lossy=True) as (presence, http):
        presence.set_servers(SERVERS)
        await anyio.sleep(1.5)
        assert await running.list("/entries") and not presence.registered
        http.is_lossy = False
    assert await running.list("/entries") == []


async def test_an_entry_whose_answer_was_lost_is_no_stranger(running, present):
    """The clock stepped back meanwhile: what is held was signed later, and by us."""
    clock = SimClock()
    clock.offset_s = 200
    async with present(clock, lossy=True) as (presence, http):
        presence.set_servers(SERVERS)
        await anyio.sleep(5)
        clock.offset_s, http.is_lossy = 0, False
        await anyio.sleep(60)
        assert presence.registered, presence.loop.state


async def test_sessions_that_flap_are_at_most_one_request_a_second(running, present):
    async with present() as (presence, _):
        for n in range(6_000):
            if n % 2:
                presence.set_servers([identity(str(n % 7)).public])
            else:
                presence.clear()
            await anyio.sleep(0.01)
        assert len(running.http.requests) <= 61
        assert len(running.http.requests) >= 30

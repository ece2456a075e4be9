"""The own entry: when it is sent, with which number, and when it is better not."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest

from discovery_dmsg.client.presence import Presence
from discovery_dmsg.client.settings import DmsgClientSettings
from skycore.errors import EntryNewerError
from skycore.model.entries import DmsgServer
from skycore.testing.fakes import identity

FACTS = DmsgServer("203.0.113.7:8081", 100)


@pytest.fixture
def present(running):
    """Return a way to run presences against the service."""

    @asynccontextmanager
    async def run(name="alice", **settings):
        api = running.api(name)
        who = identity(name, running.person(name).identity.network)
        made = DmsgClientSettings(url=running.url, **settings)
        presence = Presence(made, api, who, running.clock, random.Random(1))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(presence.loop.run)
            yield presence
            await presence.loop.leave()
            tasks.cancel_scope.cancel()

    return run


def keys(*names):
    return [identity(name).public for name in names]


async def test_nothing_is_sent_before_anybody_says_anything(running, present):
    async with present() as presence:
        await anyio.sleep(600)
        assert presence.registered and presence.kind == "nothing"
    assert running.http.requests == []


async def test_what_is_said_arrives_after_a_second_and_leaves_with_the_node(running, present):
    alice = running.person("alice")
    async with present() as presence:
        await anyio.sleep(10)
        for n in range(20):  # a burst of sessions is one request
            presence.set_servers(keys(*map(str, range(n))))
        assert not presence.registered
        await anyio.sleep(1.1)
        assert presence.registered and len(running.http.writes()) == 1
        told = await running.list(f"/entry/{alice.key}")
        servers = sorted(key.hex() for key in keys(*map(str, range(19))))
        assert told["client"]["delegated_servers"] == servers
        assert told["client_type"] == "visor"
    assert await running.list("/entries") == []


async def test_unchanged_and_not_due_is_no_request(running, present):
    """Upstream's #2302: its visors read and wrote their entry at every turn."""
    async with present() as presence:
        presence.set_servers(keys("one", "two"))
        await anyio.sleep(5)
        assert len(running.http.requests) == 1
        for _ in range(30):
            presence.set_servers(keys("two", "one"))  # the order means nothing
            await anyio.sleep(6)
        assert len(running.http.requests) == 1
        assert presence.rested >= 2
        await anyio.sleep(3_600)
        assert 3_600 / 300 <= len(running.http.requests) - 1 <= 3_600 / 200
        assert presence.registered


async def test_a_server_is_repeated_every_minute_and_always_listed(running, present):
    async with present() as presence:
        presence.set_server(FACTS)
        await anyio.sleep(2)
        for _ in range(60):
            assert len(await running.list("/available_servers")) == 1
            await anyio.sleep(20)
        assert 20 <= len(running.http.writes()) <= 23
    await running.list("/available_servers", status=404)


async def test_m14_a_flip_of_the_bootstrap_flag_goes_out_at_once(running, present):
    async with present() as presence:
        presence.set_server(FACTS)
        await anyio.sleep(2)
        for flag in (True, False):
            presence.set_server(msgspec.structs.replace(FACTS, dht_bootstrap=flag))
            await anyio.sleep(1.1)
            (told,) = await running.list("/all_servers")
            assert told["server"].get("dht_bootstrap", False) is flag


async def test_to_be_nothing_any_more_deletes_the_entry(running, present):
    async with present() as presence:
        presence.set_server(FACTS)
        await anyio.sleep(2)
        presence.clear()
        await anyio.sleep(2)
        assert await running.list("/entries") == [] and presence.registered
        presence.set_servers(keys("one"))
        await anyio.sleep(2)
        assert len(await running.list("/visorEntries")) == 1


async def test_l13_a_restarted_node_is_believed_at_once(running, present):
    async with present() as presence:
        presence.set_servers(keys("one"))
        await anyio.sleep(2)
        running.http.is_down = True  # it leaves without a goodbye
    running.http.is_down = False
    before = len(running.http.requests)
    async with present() as presence:
        presence.set_servers(keys("two"))
        await anyio.sleep(2)
        assert presence.registered
        assert len(running.http.requests) == before + 1


async def test_a_higher_number_at_the_server_is_fetched_and_passed(running, present):
    alice = running.person("alice")
    await running.post(alice.as_client(sequence=2**52))
    await anyio.sleep(1)
    async with present() as presence:
        presence.set_servers(keys("one"))
        await anyio.sleep(2)
        assert presence.registered
        assert [method for method, _ in running.http.requests] == ["POST", "GET", "POST"]
        assert (await running.list(f"/entry/{alice.key}"))["sequence"] == 2**52 + 1
        presence.set_servers(keys("two"))
        await anyio.sleep(2)
        assert len(running.http.requests) == 4


async def test_an_entry_that_was_signed_later_is_not_fought(running, present):
    alice = running.person("alice")
    late = running.clock.wall_ns() + 200 * 10**9
    await running.post(alice.as_client(sequence=2**52, timestamp=late))
    async with present() as presence:
        presence.set_servers(keys("one"))
        await anyio.sleep(3)
        assert not presence.registered
        trouble = presence.loop.state.trouble
        assert "signed 19" in trouble and "later than this one" in trouble
        with pytest.raises(EntryNewerError, match="later than this one"):
            await presence._register()
        await anyio.sleep(300)  # our clock has passed it
        assert presence.registered


async def test_a_service_that_was_away_is_told_as_soon_as_it_is_back(running, present):
    running.http.is_down = True
    async with present() as presence:
        presence.set_servers(keys("one"))
        await anyio.sleep(600)
        assert not presence.registered and presence.loop.state.trouble
        assert len(running.http.requests) <= 25
        running.http.is_down = False
        await anyio.sleep(80)
        assert presence.registered


async def test_a_lie_about_our_own_entry_is_not_believed(running, present):
    alice, bob = running.person("alice"), running.person("bob")
    await running.post(alice.as_client(sequence=2**52))
    forged = bob.as_client(static=alice.key, sequence=2**53)
    from skycore.model import dmsg_entry

    running.http.lies[f"/dmsg-discovery/entry/{alice.key}"] = dmsg_entry.encode(forged)
    async with present() as presence:
        presence.set_servers(keys("one"))
        await anyio.sleep(3)
        assert "its key did not sign" in presence.loop.state.trouble

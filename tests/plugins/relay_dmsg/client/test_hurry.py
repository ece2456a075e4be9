"""Servers that answer nobody: how many are asked at a time, and how soon the real one is."""

from __future__ import annotations

import anyio
import pytest

from relay_dmsg.client.keeper import ATTEMPTS_MAX
from relay_dmsg.client.service import open_status
from relay_dmsg.settings import DmsgClientSettings
from skycore.contracts.discovery import Record, Records
from skycore.model.entries import DmsgServerEntry
from skycore.model.keys import ED25519


class Listing:
    """A source that lists whatever it is given."""

    is_local, salts = False, frozenset((b"dmsg-server",))

    def __init__(self, name, keys):
        self.name, self.keys = name, keys

    async def find(self, salt, subject):
        return None

    async def records(self, salt):
        rows = (
            Record(salt, key, DmsgServerEntry(key.hex(), "10.6.6.6:6"), 1, 4e9, self.name, None)
            for key in self.keys
        )
        return Records(tuple(rows), self.name, 1, True)


def made_up(count):
    return [ED25519.public(ED25519.secret(n.to_bytes(32, "big"))) for n in range(1, count + 1)]


@pytest.fixture
def slow(bench, monkeypatch):
    """Let whoever is listed here take a connection and then some time, or for ever."""
    takes_s, asked = {}, {"now": 0, "most": 0}

    def on(door):
        ensure = door.links.ensure

        async def slowly(remote, *args, **named):
            asked["now"] += 1
            asked["most"] = max(asked["most"], asked["now"])
            try:
                await anyio.sleep(takes_s.get(bytes(remote), 0))
                return await ensure(remote, *args, **named)
            finally:
                asked["now"] -= 1

        monkeypatch.setattr(door.links, "ensure", slowly)
        return asked

    on.takes_s = takes_s
    return on


@pytest.mark.parametrize("name", ["alice", "bob", "carol", "dave", "erin"])
async def test_c40_64_silent_servers_cost_seconds_and_a_bounded_number_of_dials(bench, slow, name):
    """Whatever the order in which they are tried; the old way was 5 s for each two of them."""
    await bench.server("real")
    flood = made_up(64)
    slow.takes_s.update((key, 3_600) for key in flood)
    sources = (Listing("dht", flood), Listing("http", [bench.key("real")]))
    door = await bench.client(name, sources=sources)
    asked = slow(door)
    await bench.until(lambda: door.can_ask, limit_s=25)
    assert asked["most"] <= ATTEMPTS_MAX
    await anyio.sleep(3_600)
    assert set(door.client.keeper.sessions) == {bench.key("real")}
    assert door.client.counters["attempts"] <= 64 * 16  # in an hour, with one session lacking


async def test_a_silent_server_is_one_more_dial_in_the_first_moment_and_no_failure(bench, slow):
    """The one that worked last is slow today: another answers, and it is not waited for."""
    for n in range(4):
        await bench.server(f"s{n}")
    keys = [bench.key(f"s{n}") for n in range(4)]
    door = await bench.client("alice", sources=(Listing("dht", keys),))
    slow(door)
    slow.takes_s.update(dict.fromkeys(keys[:2], 2.0))
    assert await bench.until(lambda: len(door.client.keeper.sessions) == 2, limit_s=1) <= 1
    await anyio.sleep(10)
    keeper = door.client.keeper
    assert set(keeper.sessions) == set(keys[2:])
    for key in keys[:2]:
        assert not keeper.is_server(key) and not door.client.servers.find(key).trouble


async def test_servers_that_answer_are_asked_no_more_than_are_wanted(bench, slow):
    """Quick ones: nothing is asked beside them, and no session is too many."""
    keys = []
    for n in range(8):
        await bench.server(f"s{n}")
        keys.append(bench.key(f"s{n}"))
    door = await bench.client("alice", sources=(Listing("dht", keys),))
    await bench.until(lambda: len(door.client.keeper.sessions) == 2, limit_s=5)
    await anyio.sleep(3_600)
    assert door.client.counters["attempts"] == 2


@pytest.mark.parametrize("takes_s", [0.24, 0.25, 0.26, 0.5, 1.0, 4.9])
async def test_servers_that_are_all_slow_leave_no_session_too_many(bench, slow, takes_s):
    """Several answers come at nearly one time: those beyond what is wanted are let go."""
    keys = []
    for n in range(20):
        await bench.server(f"s{n}")
        keys.append(bench.key(f"s{n}"))
    slow.takes_s.update((key, takes_s) for key in keys)
    door = await bench.client("alice", sources=(Listing("dht", keys),))
    asked = slow(door)
    await bench.until(lambda: len(door.client.keeper.sessions) == 2, limit_s=8)
    await anyio.sleep(60)
    assert len(door.client.keeper.sessions) == 2 and asked["most"] <= ATTEMPTS_MAX


async def test_a_configured_server_that_comes_late_is_not_kept_waiting_by_silent_ones(bench, slow):
    """It was down at the start; a source lists more silent ones than are asked at a time."""
    bench.exchange.down.add(bench.key("mine"))
    flood = made_up(64)
    slow.takes_s.update((key, 3_600) for key in flood)
    door = await bench.client("alice", "mine", sources=(Listing("dht", flood),))
    asked = slow(door)
    await anyio.sleep(6.3)
    assert asked["now"] == ATTEMPTS_MAX and not door.can_ask
    await bench.server("mine")
    bench.exchange.down.clear()
    await bench.until(lambda: door.can_ask, limit_s=10)


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_sessions_max_holds_whoever_answers_first(bench, slow, most):
    """Configured and found ones are asked at one time."""
    for n in range(6):
        await bench.server(f"s{n}")
    keys = [bench.key(f"s{n}") for n in range(6)]
    slow.takes_s.update(dict.fromkeys(keys, 1.0))
    door = await bench.client(
        "alice", "s0", "s1", "s2", sources=(Listing("dht", keys),), sessions_max=most
    )
    slow(door)
    counts = set()
    for _ in range(600):
        await anyio.sleep(0.05)
        counts.add(len(door.client.keeper.sessions))
    assert max(counts) == most == len(door.client.keeper.sessions)
    assert door.client.counters["attempts"] < 30


async def test_a_status_without_a_session_says_which_server_failed_and_why(bench):
    """Else the reason stands in the log only, once."""
    bench.exchange.down.add(bench.key("mine"))
    door = await bench.client("alice", "mine")
    await anyio.sleep(3)
    async with open_status(door.client, DmsgClientSettings()) as source:
        status = await source.status()
    assert "10.0.0.9:1: nobody answers" in status.fields["trouble"]

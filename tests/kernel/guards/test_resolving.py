"""Where a key can be dialled: who is asked, when, and for how long."""

from __future__ import annotations

import random
from collections import Counter

import anyio
import pytest

from skycore import Live
from skycore.contracts.discovery import Record
from skycore.errors import DialError, DiscoveryError
from skycore.guards.dials import Dials
from skycore.guards.links import LABELS
from skycore.guards.resolving import AT_ONCE, Resolver
from skycore.model.addresses import Address
from skycore.model.entries import AddressBind, AddressEntry
from skycore.model.keys import PubKey
from skycore.model.limits import HELLO_ADDRESSES_MAX
from skycore.testing.fakes import identity
from skycore.testing.loop import sim_backend
from skycore.testing.seams import SimClock

KEY = identity("bob").public


@pytest.fixture
def anyio_backend():
    return sim_backend(100_000)


class Source:
    """A source of address records that knows one answer, and how long it takes."""

    is_local = False

    def __init__(self, name, *hosts, takes_s=0.0, fails="", salts=frozenset({b"addr"})):
        self.name, self.salts = name, salts
        self.hosts, self.takes_s, self.fails = hosts, takes_s, fails
        self.asked = 0

    async def find(self, salt, subject):
        self.asked += 1
        await anyio.sleep(self.takes_s)
        if self.fails:
            raise DiscoveryError(self.fails)
        if not self.hosts:
            return None
        body = AddressEntry(stcpr=AddressBind("7777", self.hosts))
        return Record(salt, subject, body, 1, 2**40, self.name)

    async def records(self, salt):
        raise DiscoveryError("not here")


def resolver(*sources, wait_s=1.5, listens_at="10.0.0.9"):
    counters = Counter()
    made = Resolver(
        Live(sources), SimClock(), counters, wait_s=wait_s, listening=lambda: to(listens_at)
    )
    return made, counters


def to(*hosts):
    return tuple(Address("stcpr", f"{host}:7777") for host in hosts)


async def test_c21_all_sources_are_asked_together_and_each_is_heard():
    asked, counters = resolver(
        Source("slow", "10.0.0.1", takes_s=60),
        Source("broken", fails="no such host"),
        Source("right", "10.0.0.2", takes_s=1),
        Source("empty"),
    )
    began = anyio.current_time()
    found = await asked.look_up(KEY)
    assert found.addresses == to("10.0.0.2")
    assert anyio.current_time() - began == pytest.approx(1.5)
    assert counters == {"lookups": 1, "lookups_found": 1}


async def test_c21_no_sources_many_addresses_leave_no_room_for_anothers():
    lying = Source("http", *(f"10.9.9.{i}" for i in range(60)))
    asked, _ = resolver(lying, Source("dht", "10.0.0.2"))
    found = await asked.look_up(KEY)
    assert len(found.addresses) == HELLO_ADDRESSES_MAX
    assert to("10.0.0.2")[0] in found.addresses[:2]


async def test_what_is_said_where_nothing_is_found():
    asked, _ = resolver(Source("dht"), Source("http", fails="it is down"))
    assert await asked.look_up(KEY) == ((), "http: it is down")
    asked, _ = resolver(Source("dht"))
    assert (await asked.look_up(KEY)).said == "no source lists one"


async def test_who_does_not_know_addresses_is_not_somebody_to_ask():
    other = Source("http", salts=frozenset({b"tp"}))
    assert not resolver(other)[0].has_sources
    assert resolver(other, Source("dht", salts=None))[0].has_sources


class Said(Source):
    """A source that tells one record, signed or not."""

    def __init__(self, bind, *, signed):
        super().__init__("dht" if signed else "http")
        self.bind, self.signed = bind, signed

    async def find(self, salt, subject):
        body = AddressEntry(stcpr=self.bind)
        return Record(salt, subject, body, 1, 2**40, self.name, subject if self.signed else None)


INSIDE = (
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "::", "::1", "::ffff:127.0.0.1", "[::ffff:10.0.0.1]:22",
    "localhost", "LOCALHOST.", "x.localhost", "127.1", "2130706433", "0x7f000001", "017700000001",
    "169.254.169.254", "192.168.1.1:80", "10.0.0.1", "fe80::1", "fe80::1%eth0", "255.255.255.255",
    "224.0.0.1", "ff02::1", "fd00::1",
)  # fmt: skip


@pytest.mark.parametrize("listens_at", ["", "8.8.8.8"])
@pytest.mark.parametrize("host", INSIDE)
async def test_a_strangers_record_sends_nobody_into_his_own_house(host, listens_at):
    """Else records would have our machine knock at what only we can reach, port by port."""
    for bind in (
        AddressBind("6379", (host,)),
        AddressBind("6379", (host,), "8.8.4.4", is_local=True),
        AddressBind("6379", (host,), host, is_local=True),
        AddressBind("6379", ("8.8.4.4",), remote_addr_v6=host),
    ):
        asked, _ = resolver(Said(bind, signed=True), listens_at=listens_at)
        found = (await asked.look_up(KEY)).addresses
        assert {a.endpoint for a in found} <= {"8.8.4.4:6379"}


async def test_behind_the_same_router_by_the_resolvers_word():
    bind = AddressBind("7777", ("192.168.1.5", "127.0.0.1"), "8.8.4.4", is_local=True)
    asked, _ = resolver(Said(bind, signed=False), listens_at="")
    assert (await asked.look_up(KEY)).addresses == to("192.168.1.5", "8.8.4.4")


async def test_who_listens_nearby_is_sent_nearby():
    bind = AddressBind("7777", ("192.168.1.5", "127.0.0.1"), "8.8.4.4")
    asked, _ = resolver(Said(bind, signed=True), listens_at="192.168.1.9")
    assert (await asked.look_up(KEY)).addresses == to("8.8.4.4", "192.168.1.5")
    here = AddressBind("7777", remote_addr="127.0.0.1")
    asked, _ = resolver(Said(here, signed=True), listens_at="127.0.0.1")
    assert (await asked.look_up(KEY)).addresses == to("127.0.0.1")


async def test_lookups_take_turns_and_a_persons_does_not_wait():
    """A resolver answers one signed question after the other: it must come to the last in time."""
    source = Source("http", takes_s=1)
    asked, _ = resolver(source)
    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(asked.look_up, KEY)
        await anyio.sleep(0.5)
        assert source.asked == AT_ONCE
        began = anyio.current_time()
        await asked.look_up(KEY, is_urgent=True)
        assert anyio.current_time() - began == pytest.approx(1)
        tasks.cancel_scope.cancel()


# --- the two moments of a dial -------------------------------------------------------------------


class Peer:
    """Dials to a key of which all known addresses fail after a second, and a lookup of 1.5 s."""

    def __init__(self, tasks, *, found=False):
        self.lookups = 0
        self.found = found
        self.dials = Dials(
            self.work, tasks, SimClock(), random.Random(1),
            at_once_max=8, limit_s=10, first_s=0.5, longest_s=20,
        )  # fmt: skip

    async def work(self, remote, dial):
        await anyio.sleep(1)
        if dial.known_failed(DialError("known ones failed")):
            self.lookups += 1
            await anyio.sleep(1.5)
            if self.found:
                return self
            raise DialError("looked up in vain")
        raise DialError("known ones failed")

    async def join(self, look_up):
        def stronger(one, other):
            return max(one, other, key=LABELS.index)

        began = anyio.current_time()
        try:
            await self.dials.join(PubKey(KEY), "ephemeral", stronger, look_up=look_up)
            said = ""
        except DialError as bad:
            said = str(bad)
        return said, pytest.approx(anyio.current_time() - began)


async def test_who_answers_lookups_waits_for_none():
    async with anyio.create_task_group() as tasks:
        peer, told = Peer(tasks, found=True), {}

        async def one(name, look_up, after_s):
            await anyio.sleep(after_s)
            told[name] = await peer.join(look_up)

        async with anyio.create_task_group() as callers:
            callers.start_soon(one, "person", True, 0)
            callers.start_soon(one, "dht", False, 0.5)
            callers.start_soon(one, "dht, late", False, 2)
        assert told["person"] == ("", 2.5)
        assert told["dht"] == ("known ones failed", 0.5)
        assert told["dht, late"] == ("known ones failed", 0)
        assert peer.lookups == 1


async def test_a_later_caller_may_turn_a_dial_into_one_that_looks_up():
    async with anyio.create_task_group() as tasks:
        peer, told = Peer(tasks, found=True), {}

        async def one(name, look_up, after_s):
            await anyio.sleep(after_s)
            told[name] = await peer.join(look_up)

        async with anyio.create_task_group() as callers:
            callers.start_soon(one, "dht", False, 0)
            callers.start_soon(one, "person", True, 0.5)
        assert told["dht"] == ("known ones failed", 1)
        assert told["person"] == ("", 2)


async def test_a_failure_without_a_lookup_keeps_nobody_from_looking_up():
    async with anyio.create_task_group() as tasks:
        peer = Peer(tasks)
        assert (await peer.join(False))[0] == "known ones failed"
        assert "again in" in (await peer.join(False))[0]
        assert (await peer.join(True))[0] == "looked up in vain"
        assert "again in" in (await peer.join(True))[0]
        assert peer.lookups == 1


async def test_who_waits_for_a_lookup_has_no_turn():
    """Else lookups take all turns, and the dials by which they are answered wait behind them."""
    ended = []

    async def work(remote, dial):
        if remote == KEY:
            async with dial.without_turn():
                await anyio.sleep(5)
        ended.append(remote)
        raise DialError("nobody")

    async with anyio.create_task_group() as tasks:
        dials = Dials(
            work, tasks, SimClock(), random.Random(1),
            at_once_max=1, limit_s=10, first_s=0.5, longest_s=20,
        )  # fmt: skip

        async def dial(key):
            with pytest.raises(DialError, match="nobody"):
                await dials.join(key, LABELS[0], max)

        other = identity("carol").public
        async with anyio.create_task_group() as two:
            two.start_soon(dial, KEY)
            await anyio.sleep(1)
            two.start_soon(dial, other)
        assert ended == [other, KEY]
        await dial(identity("dave").public)  # the turn was given back, once
        tasks.cancel_scope.cancel()


async def test_a_dial_that_ends_in_a_lookup_leaves_its_turn_to_others():
    async def work(remote, dial):
        async with dial.without_turn():
            await anyio.sleep(60)

    async with anyio.create_task_group() as tasks:
        dials = Dials(
            work, tasks, SimClock(), random.Random(1),
            at_once_max=1, limit_s=10, first_s=0.5, longest_s=20,
        )  # fmt: skip
        for name in ("bob", "carol"):
            with pytest.raises(DialError, match="no connection within 10 s"):
                await dials.join(identity(name).public, LABELS[0], max)
        tasks.cancel_scope.cancel()

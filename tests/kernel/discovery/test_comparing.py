"""Two sources side by side: what differs is named, and what is merely on its way is not."""

from __future__ import annotations

import hashlib
import random
import uuid

import anyio
import msgspec
import pytest
from msgspec.structs import replace

from namespaces_skywire.declarations import ALL
from skycore.contracts.discovery import Record, Records
from skycore.contracts.namespace import Namespaces
from skycore.discovery.comparing import compare
from skycore.errors import DiscoveryError
from skycore.model.entries import AddressBind, AddressEntry, TransportEntry
from skycore.testing import sim_backend
from skycore.testing.seams import SimClock
from skycore.testing.sources import DictSource

SALT = b"tp"
NAMESPACES = Namespaces(ALL)


@pytest.fixture
def anyio_backend():
    return sim_backend()


def key(name):
    return hashlib.sha256(name.encode()).digest()


def transport(name, other, n, **more):
    t_id = uuid.UUID(bytes=hashlib.sha256(f"{n}".encode()).digest()[:16])
    return TransportEntry(t_id, (key(name).hex(), key(other).hex()), "stcpr", **more)


class Two:
    def __init__(self):
        self.clock = SimClock()
        self.dht, self.http = DictSource("dht"), DictSource("http", is_local=False)

    def tell(self, source, name, *ns, body=None, **more):
        entries = tuple(transport(name, "other", n, **more) for n in ns) if body is None else body
        clock = self.clock
        signer = key(name) if source is self.dht else None
        record = Record(
            SALT, key(name), entries, clock.wall_ns(), clock.wall_s() + 300,
            source.name, signer,
        )  # fmt: skip
        source.tell(record)

    async def compare(self, **more):
        return await compare(self.dht, self.http, SALT, NAMESPACES, **more)


@pytest.fixture
async def two():
    return Two()


async def test_l23_subject_by_subject_it_is_said_who_has_what(two):
    for source in (two.dht, two.http):
        two.tell(source, "alice", 1, 2)
    two.tell(two.dht, "bob", 3, 4)
    two.tell(two.http, "bob", 4, 5, 6)
    two.tell(two.dht, "carol", 7)
    two.tell(two.http, "dave", 8)
    found = await two.compare()
    assert (found.same, found.different, found.complete) == (1, 3, True)
    by = {one.subject: one for one in found.divergences}
    bob, carol, dave = by[key("bob")], by[key("carol")], by[key("dave")]
    assert (bob.what, bob.only_here, bob.only_there) == ("different", 1, 2)
    assert (carol.what, carol.there) == ("extra", None) and carol.here.signer == key("carol")
    assert (dave.what, dave.here) == ("missing", None) and dave.there.source == "http"


async def test_order_and_what_changes_by_itself_are_no_difference(two):
    two.tell(two.dht, "alice", 1, 2, 3)
    two.tell(two.http, "alice", 3, 1, 2, latency=12.5)
    two.tell(two.http, "bob", body=())
    found = await two.compare()
    assert (found.same, found.different) == (1, 0)


async def test_what_a_resolver_says_to_a_neighbour_alone_is_no_difference(two):
    bind = AddressBind(port="7777", remote_addr="192.0.2.1")
    for source, near in ((two.dht, False), (two.http, True)):
        told = replace(bind, is_local=near)
        entry = AddressEntry(pk=key("alice").hex(), stcpr=told, sudph=told, is_local=near)
        now = two.clock.wall_ns()
        until_s = two.clock.wall_s() + 300
        source.tell(Record(b"addr", key("alice"), entry, now, until_s, source.name))
    found = await compare(two.dht, two.http, b"addr", NAMESPACES)
    assert (found.same, found.different) == (1, 0)


async def test_what_is_on_its_way_is_no_difference(two):
    two.tell(two.http, "alice", 1)
    async with anyio.create_task_group() as tasks:

        async def later():
            await anyio.sleep(20)
            two.tell(two.dht, "alice", 1)

        tasks.start_soon(later)
        found = await two.compare(within_s=30)
    assert (found.same, found.different, found.is_equal) == (1, 0, True)


async def test_a_difference_stands_once_both_sides_stood_by_it(two):
    """Each change begins the wait anew: whoever has just said something else may be followed."""
    two.tell(two.http, "alice", 1)
    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:

        async def later():
            await anyio.sleep(25)
            two.tell(two.http, "alice", 2)

        tasks.start_soon(later)
        found = await two.compare(within_s=30)
    assert (found.different, found.changing, found.is_equal) == (1, 0, False)
    assert found.divergences[0].there.body == (transport("alice", "other", 2),)
    assert 55 <= anyio.current_time() - began <= 62


async def test_what_changes_all_the_while_is_neither_same_nor_different(two):
    two.tell(two.dht, "alice", 0)
    two.tell(two.http, "bob", 1)
    two.tell(two.dht, "bob", 1)
    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:

        async def always():
            for n in range(1, 1000):
                two.tell(two.http, "alice", n)
                await anyio.sleep(7)

        tasks.start_soon(always)
        found = await two.compare(within_s=30)
        tasks.cancel_scope.cancel()
    assert (found.same, found.different, found.changing, found.is_equal) == (1, 0, 1, False)
    assert [one.what for one in found.divergences] == ["changing"]
    assert 120 <= anyio.current_time() - began <= 130


async def test_not_to_wait_is_to_look_twice(two):
    two.tell(two.http, "alice", 1)
    began = anyio.current_time()
    found = await two.compare(within_s=0)
    assert found.different == 1 and anyio.current_time() - began < 1


async def test_sources_are_free_between_two_looks(two):
    turn = anyio.Lock()
    two.tell(two.http, "alice", 1)
    held = []
    async with anyio.create_task_group() as tasks:

        async def somebody():
            while True:
                await anyio.sleep(0.5)
                held.append(turn.locked())

        tasks.start_soon(somebody)
        await two.compare(turn=turn)
        tasks.cancel_scope.cancel()
    assert held.count(False) > 40


async def test_a_local_list_is_read_again_and_nobody_else_is_asked(two):
    """What another node holds makes up for nothing that this one lacks."""
    two.tell(two.http, "alice", 1)

    async def find(salt, subject):
        raise AssertionError("another question")

    two.dht.find = find
    assert (await two.compare()).different == 1


async def test_what_a_partial_side_tells_by_itself_counts_too(two):
    """False equality: nobody but the side that has not everything knows of bob."""
    two.tell(two.http, "alice", 1)
    two.tell(two.http, "bob", 2)
    two.tell(two.dht, "alice", 1)
    whole = two.http.records

    async def partial(salt):
        return msgspec.structs.replace(await whole(salt), complete=False, note="some left out")

    two.http.records = partial
    found = await two.compare()
    assert (found.same, found.different, found.complete) == (1, 1, False)
    assert found.divergences[0].what == "missing"


def words(dice):
    """Return what a subject may say: nothing, or a few of a few entries."""
    return tuple(sorted(dice.sample(range(6), dice.randrange(4))))


SEEDS = [*range(40), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(40, 2_000))]


@pytest.mark.parametrize("seed", SEEDS)
async def test_never_false_equal_and_never_false_different(seed):
    """One side follows the other with a lag below the limit; some subjects are off for good."""
    two, dice = Two(), random.Random(seed)
    first, other = dice.sample((two.dht, two.http), 2)
    off = {}
    for n in range(dice.randrange(30)):
        name, said = f"visor{n}", words(dice)
        two.tell(first, name, *said)
        if dice.random() < 0.2:
            off[key(name)] = said
            said = words(dice)
            if said == off[key(name)]:
                del off[key(name)]
        two.tell(other, name, *said)

    async def change(name, at_s, lag_s):
        await anyio.sleep(at_s)
        said = words(dice)
        two.tell(first, name, *said)
        await anyio.sleep(lag_s)
        two.tell(other, name, *said)

    if dice.random() < 0.5:
        whole = other.records

        async def partial(salt):
            records = await whole(salt)
            some = tuple(r for r in records.records if dice.random() < 0.5)
            return msgspec.structs.replace(records, records=some, complete=False, note="partial")

        other.records = partial
    async with anyio.create_task_group() as tasks:
        for n in range(dice.randrange(10)):
            tasks.start_soon(change, f"new{n}", dice.uniform(0, 40), dice.uniform(0, 25))
        await anyio.sleep(dice.uniform(0, 20))
        found = await two.compare(within_s=30)
        tasks.cancel_scope.cancel()
    assert {one.subject for one in found.divergences} == set(off)
    assert (found.different, found.changing) == (len(off), 0)


async def test_l18_a_side_that_has_not_everything_is_asked_for_each(two):
    for n in range(40):
        two.tell(two.http, f"visor{n}", n)
        if n != 7:
            two.tell(two.dht, f"visor{n}", n)

    async def partial(salt):
        return Records((), "dht", 1, complete=False, note="a regular node")

    two.dht.records = partial
    done = []
    found = await two.compare(progress=lambda n, total: done.append((n, total)))
    assert (found.same, found.different, found.complete) == (39, 1, False)
    assert found.divergences[0].subject == key("visor7")
    assert found.notes == ("dht: a regular node",)
    assert done == sorted(done) and done[-1] == (40, 40)


async def test_who_cannot_say_is_no_equality(two):
    two.tell(two.dht, "alice", 1)
    two.http.fail("connection refused")
    with pytest.raises(DiscoveryError, match="connection refused"):
        await two.compare()


async def test_nonsense_is_named_after_who_tells_it(two):
    two.tell(two.dht, "alice", 1)
    two.tell(two.http, "alice", body=("nonsense",))
    with pytest.raises(DiscoveryError, match="http tells"):
        await two.compare()

"""Two sources side by side: what differs is named, and what is merely on its way is not."""

from __future__ import annotations

import hashlib
import uuid

import anyio
import pytest

from namespaces_skywire.declarations import ALL
from skycore.contracts.discovery import Record, Records
from skycore.contracts.namespace import Namespaces
from skycore.discovery.comparing import compare
from skycore.errors import DiscoveryError
from skycore.model.entries import TransportEntry
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


async def test_what_is_on_its_way_is_looked_at_again(two):
    two.tell(two.http, "alice", 1)
    async with anyio.create_task_group() as tasks:

        async def later():
            await anyio.sleep(2)
            two.tell(two.dht, "alice", 1)

        tasks.start_soon(later)
        found = await two.compare()
    assert (found.same, found.different) == (1, 0)


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

"""What counts as proof that the DHT carries: one peer is one copy, one record is this record."""

from __future__ import annotations

import random
from types import SimpleNamespace

import anyio
import pytest

from discovery_transport.client.carriers import Carriers
from discovery_transport.client.core.entries import TP
from discovery_transport.client.publication import Publication, ReadBack
from discovery_transport.client.registrar import Listed
from discovery_transport.client.settings import TransportDiscoverySettings
from skycore.contracts.transport import Transports
from skycore.model.items import Kind, StoredItem, make_item
from skycore.testing import World
from skycore.testing.fakes import FakeClock, identity

OWN = identity("visor")
SEQ = 1_800_000_000 * 10**9


def stored(seq=SEQ):
    item = make_item(
        OWN.network, OWN.secret, subject=OWN.public, salt=TP, seq=seq, kind=Kind.VALUE,
        until=seq // 10**9 + 300, v=b"value",
    )  # fmt: skip
    return StoredItem(bytes(32), 3, b"", b"", item, b"", 0, 0, 0)


async def test_l12_a_full_node_that_says_it_twice_is_one_copy():
    peers = [identity(name).public for name in ("liar", "empty")]

    async def ask(peer, subject, salt):
        return [stored(), stored()] if peer == peers[0] else []

    async def find_full_nodes():
        return peers

    dht = SimpleNamespace(ask=ask, find_full_nodes=find_full_nodes)
    publication = Publication(None, None, dht, OWN.public, random.Random(1))
    back = await publication.read_back(SEQ, 2)
    assert back.holders == 1 and back.asked == 2


class _Sides:
    """A publication and a registrar that say what a test lets them say."""

    def __init__(self, clock):
        self.clock = clock
        self.seq = self.listed_seq = SEQ
        self.looks = 0
        self.ids = frozenset()

    async def publish(self, entries):
        return self.seq

    async def read_back(self, seq, wanted):
        return ReadBack(2, self.clock.wall_s() + 300, 2)

    async def look(self):
        self.looks += 1
        return Listed(self.ids, self.listed_seq)

    async def withdraw(self):
        pass

    async def leave(self):
        pass


@pytest.fixture
async def sides():
    clock = FakeClock()
    sides = _Sides(clock)
    own = SimpleNamespace(version=1, entries=[SimpleNamespace(t_id="one")], look=lambda: False)
    sides.ids = frozenset({"one"})
    settings = TransportDiscoverySettings()
    sides.carriers = Carriers(settings, own, sides, sides, clock, random.Random(1))
    sides.carriers.note(version=1, count=1)
    return sides


async def test_l12_a_record_signed_anew_is_to_be_seen_at_the_service_again(sides):
    """What the service has may be the record before it, which nobody prolongs any more."""
    await sides.carriers._prove()
    assert sides.carriers.verdict.is_handed_over and sides.looks == 1
    await sides.carriers._prove()
    assert sides.looks == 1
    sides.seq += 1
    await sides.carriers._prove()
    assert sides.looks == 2 and not sides.carriers.verdict.is_handed_over
    sides.listed_seq = sides.seq
    await sides.carriers._prove()
    assert sides.carriers.verdict.is_handed_over


async def test_what_is_gone_is_deleted_though_the_own_clock_is_slow(deployment):
    """What HTTP said is newer by the service's clock than any record that could take it away."""
    async with World(seed=6) as world:
        net = await deployment(world).start(visors=3)
        first, second = net.visors[:2]
        first.clock.offset_s = -240  # less than what other nodes correct
        await net.settled()
        listing = net.desk.directory.of
        await net.link(first, second)
        await anyio.sleep(100)
        await net.handed_over(limit_s=200)
        for turn in range(4):
            made = await net.link(first, second)
            await anyio.sleep(3 + 20 * turn)
            await first.get(Transports).close(made.id, "test")
            await anyio.sleep(30)
            assert [len(listing(v.public).entries) for v in net.visors] == [1, 1, 2], turn
        await net.handed_over(limit_s=200)

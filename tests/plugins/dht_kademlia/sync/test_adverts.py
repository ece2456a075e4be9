"""Adverts of full nodes: who may be believed to be one, and since when."""

import msgspec
import pytest

from dht_kademlia.sync.adverts import ADVERT_LIFE_S, FULLNODE, find_full_nodes, read_advert
from dht_kademlia.sync.pull import Cursors
from skycore.model.entries import FullNodeAdvert
from skycore.model.items import Kind, StoredItem
from skycore.model.limits import CLOCK_SKEW_MAX_S
from skycore.testing.fakes import START_NS, MemoryFiles, identity

QUIET = {"full_nodes_max": 0, "repair_interval_s": 0}


def advert(make, name, *, pk=None, ts=START_NS, full=True, version=1, **more):
    pk = identity(name).public.hex() if pk is None else pk
    v = msgspec.msgpack.encode([version, FullNodeAdvert(pk, 7, full, ts)], order="sorted")
    return make(name, v=v, salt=FULLNODE, **more)


def stored(item):
    return StoredItem(item.target, 3, b"", b"", item, b"", 0, 1, 1)


def test_a_good_advert_says_who_how_many_and_when(make):
    told = read_advert(stored(advert(make, "n1")), START_NS)
    assert told == (identity("n1").public, 7, START_NS)


@pytest.mark.parametrize(
    ("age_s", "believed"),
    [
        (0, True),
        (-CLOCK_SKEW_MAX_S, True),
        (-CLOCK_SKEW_MAX_S - 1, False),
        (ADVERT_LIFE_S, True),
        (ADVERT_LIFE_S + 1, False),
        (-(10**6), False),
    ],
)
def test_c6_d27_neither_from_the_future_nor_from_yesterday(make, age_s, believed):
    item = advert(make, "n1", ts=START_NS - age_s * 10**9)
    assert (read_advert(stored(item), START_NS) is not None) == believed


def test_c6_d27_for_another_key_or_of_no_full_node_or_unreadable(make):
    bad = [
        advert(make, "n1", pk=identity("n2").public.hex()),
        advert(make, "n1", full=False),
        advert(make, "n1", version=2),
        make("n1", v=b"", salt=FULLNODE, kind=Kind.TOMBSTONE),
        make("n1", v=b"\xc1", salt=FULLNODE),
        make("n1", v=msgspec.msgpack.encode([1, {}]), salt=FULLNODE),
    ]
    assert [read_advert(stored(item), START_NS) for item in bad] == [None] * len(bad)


def test_a_regular_node_pulls_the_adverts_and_a_lonely_one_says_what_it_has(
    virtual, make_network, make
):
    async def story():
        network = make_network()
        async with network.node("n0", full_node=True, **QUIET) as alice:
            adverts = [advert(make, f"n{n}", ts=START_NS + n * 10**9) for n in range(5, 9)]
            await alice.items.admit([*adverts, make("u1")], sender=b"")
            async with network.node("n1", seeds=("n0",), **QUIET) as bob:
                found = await find_full_nodes(bob.node, Cursors(MemoryFiles()))
                assert found == [identity(f"n{n}").public for n in (8, 7, 6, 5)]
                assert len(bob.items.held) == 4
                network.exchange.stop(alice.public)
                again = await bob.dht.find_full_nodes()
                assert again == found

    virtual(story)

"""Bulk sync: everything once, little the second time, and no patience with liars."""

from contextlib import asynccontextmanager

import anyio
import pytest

from dht_kademlia.core.codec import MsgpackCodec
from dht_kademlia.core.messages import GetItems, Page, Pong
from dht_kademlia.sync.pull import CURSORS_FILE, CURSORS_MAX, Cursors
from skycore.errors import DialError
from skycore.model.items import Cursor, make_lease
from skycore.testing.fakes import TEST_NETWORK, MemoryFiles, identity

CODEC = MsgpackCodec()


async def fill(member, make, count, size=40, start=0):
    items = [make(f"u{i}", v=bytes(size)) for i in range(start, start + count)]
    await member.items.admit(items, sender=b"")
    return items


@asynccontextmanager
async def pair(network, **settings):
    """A full node with the items, and a reader."""
    async with (
        network.node("n0", full_node=True, full_nodes_max=0, repair_interval_s=0) as alice,
        network.node("n1", seeds=("n0",), repair_interval_s=0, **settings) as bob,
    ):
        await anyio.sleep(1)
        yield alice, bob


@asynccontextmanager
async def liar(network, answer, name="n9"):
    """A peer whose pages come from `answer(request, how many before)`."""
    asked = []

    async def speak(stream, method, request):
        if isinstance(request, GetItems):
            reply = answer(request, len(asked))
            asked.append(request)
        else:
            reply = Pong(1, (), "full")
        await stream.send(CODEC.encode(method, reply))

    async with network.puppet(name, speak):
        yield network.contact_of(name).public, asked


def test_c23_c53_five_thousand_items_in_small_pages(virtual, make_network, make):
    async def story():
        network = make_network()
        async with pair(network, sync_page_bytes=65_536) as (alice, bob):
            items = await fill(alice, make, 5_000)
            before = network.exchange.bytes_moved
            told = []
            report = await bob.dht.sync(progress=lambda done, more: told.append((done, more)))
            moved = network.exchange.bytes_moved - before
            assert report.complete
            assert (report.received, report.stored, report.refused) == (5_000, 5_000, 0)
            assert len(bob.items.held) == 5_000
            assert told[-1] == (5_000, False)
            raw = sum(
                len(i.signer) + len(i.subject) + len(i.salt) + len(i.v) + len(i.sig) + 17
                for i in items
            )
            assert moved <= 1.1 * raw

    virtual(story)


def test_c24_the_second_sync_moves_next_to_nothing(virtual, make_network, make):
    async def story():
        network = make_network()
        async with pair(network) as (alice, bob):
            await fill(alice, make, 500)
            await bob.dht.sync()
            await anyio.sleep(1)
            before = network.exchange.bytes_moved
            report = await bob.dht.sync(alice.public)
            assert network.exchange.bytes_moved - before <= 1_024
            assert (report.received, report.complete) == (0, True)
            await fill(alice, make, 5, start=500)
            assert (await bob.dht.sync()).stored == 5

    virtual(story)


def test_g8_c24_writes_during_a_sync_lose_and_repeat_nothing(virtual, make_network, make):
    async def story():
        network = make_network(latency_s=0.01)
        async with pair(network, sync_page_bytes=4_096) as (alice, bob):
            await fill(alice, make, 300)
            before = {i.item.sig for i in alice.items.held.values()}

            async def write():
                for n in range(40):
                    await fill(alice, make, 3, start=1_000 + 3 * n)
                    await alice.items.admit([make(f"u{n}", seq=2 + n)], sender=b"")
                    await anyio.sleep(0.01)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write)
                report = await bob.dht.sync(alice.public)
            assert report.complete
            throughout = before & {i.item.sig for i in alice.items.held.values()}
            got = [i.item.sig for i in bob.items.held.values()]
            assert throughout <= set(got)
            assert report.held == 0  # nothing came twice
            await bob.dht.sync(alice.public)
            assert {i.item for i in bob.items.held.values()} == {
                i.item for i in alice.items.held.values()
            }

    virtual(story)


def test_o01_an_item_of_any_seq_is_synced(virtual, make_network, make):
    async def story():
        network = make_network()
        async with pair(network) as (alice, bob):
            await alice.items.admit([make("u1", seq=0), make("u2", seq=2**63 - 1)], sender=b"")
            assert (await bob.dht.sync()).stored == 2

    virtual(story)


def test_a_loss_in_the_middle_is_gone_on_from(virtual, make_network, make):
    async def story():
        network = make_network(latency_s=0.01)
        files = MemoryFiles()
        async with network.node("n0", full_node=True, full_nodes_max=0) as alice:
            await fill(alice, make, 400)
            async with network.node(
                "n1", seeds=("n0",), files=files, sync_page_bytes=10_000
            ) as bob:
                await anyio.sleep(1)

                def cut(received, more):
                    if received > 100:
                        network.exchange.stop(alice.public)

                report = await bob.dht.sync(alice.public, progress=cut)
                assert not report.complete
                assert report.reasons
                assert report.stored == len(bob.items.held) < 400
                got, items = report.stored, bob.items
            network.exchange.down.clear()
            async with network.node("n1", seeds=("n0",), files=files, items=items) as bob:
                await anyio.sleep(1)
                report = await bob.dht.sync(alice.public)
                assert (report.stored, report.held) == (400 - got, 0)
                assert report.complete

    virtual(story)


def test_the_peers_store_was_made_anew(virtual, make_network, make):
    async def story():
        network = make_network()
        files, items = MemoryFiles(), None
        async with pair(network, files=files) as (alice, bob):
            await fill(alice, make, 20)
            await bob.dht.sync()
            items = bob.items
            alice.items.store_id = b"another store id"
            report = await bob.dht.sync()
            assert (report.held, report.complete) == (20, True)
        assert len(items.held) == 20

    virtual(story)


def test_leases_travel_and_what_lives_by_one_arrives(virtual, make_network, make):
    async def story():
        network = make_network()
        async with pair(network) as (alice, bob):
            old = make("u1", until=network.clock.wall_s() + 30)
            fresh = make("u2")
            await alice.items.admit([old, fresh], sender=b"")
            lease = make_lease(
                TEST_NETWORK,
                identity("u1").secret,
                alice.items.judge(old),
                network.clock.wall_s() + 600,
            )
            await alice.items.renew([lease], sender=b"")
            await anyio.sleep(60)  # the item's own end is past
            report = await bob.dht.sync()
            assert (report.stored, report.refused) == (2, 0)
            longer = make_lease(
                TEST_NETWORK,
                identity("u1").secret,
                (await alice.items.get(old.target))[0],
                network.clock.wall_s() + 900,
            )
            await alice.items.renew([longer], sender=b"")
            report = await bob.dht.sync()
            assert (report.received, report.renewed) == (0, 1)

    virtual(story)


def test_c15_o14_g6_counts_are_the_stores(virtual, make_network, make):
    async def story():
        network = make_network()
        bad = make("u0")
        forged = type(bad)(*[getattr(bad, f) for f in bad.__struct_fields__[:7]], bytes(64))

        def answer(request, before):
            good = tuple(make(f"u{10 * before + n}") for n in range(1, 9))
            end = Cursor(b"s" * 16, before + 1).encode()
            return Page((*good, forged), (), before < 3, end)

        async with liar(network, answer) as (mallory, _), network.node("n1") as bob:
            report = await bob.dht.sync(mallory)
            assert (report.received, report.stored, report.refused) == (36, 32, 4)
            assert len(bob.items.held) == 32
            assert report.complete
            assert len(report.reasons) == 1

    virtual(story)


def test_g5_another_salt_than_asked_for_is_dropped(virtual, make_network, make):
    async def story():
        network = make_network()

        def answer(request, before):
            return Page((make("u1"), make("u2", salt=b"x")), (), False, b"")

        async with liar(network, answer) as (mallory, _), network.node("n1") as bob:
            report = await bob.dht.sync(mallory, b"t")
            assert (report.stored, report.refused) == (1, 1)

    virtual(story)


LIES = {
    "the same page again": lambda make: (
        lambda request, n: Page((make("u1"),), (), True, Cursor(b"s" * 16, n + 1).encode())
    ),
    "has more for ever, and stands still": lambda make: (
        lambda request, n: Page((make(f"u{n}"),), (), True, Cursor(b"s" * 16, 5).encode())
    ),
    "a cursor in circles": lambda make: (
        lambda request, n: Page((make(f"u{n}"),), (), True, Cursor(b"s" * 16, 1 + n % 2).encode())
    ),
    "more than asked for": lambda make: (
        lambda request, n: Page(
            tuple(make(f"u{i}", v=bytes(60_000)) for i in range(10)), (), False, b""
        )
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_g4_g11_a_lying_server_is_left_within_three_pages(virtual, make_network, make, lie):
    async def story():
        network = make_network()
        async with liar(network, LIES[lie](make)) as (mallory, asked), network.node("n1") as bob:
            report = await bob.dht.sync(mallory)
            assert not report.complete
            assert len(asked) <= 4
            assert report.reasons

    virtual(story)


def test_g7_many_items_of_one_seq(virtual, make_network, make):
    async def story():
        network = make_network()
        async with pair(network, sync_page_bytes=8_192) as (alice, bob):
            await alice.items.admit([make(f"u{i}", seq=7) for i in range(1_000)], sender=b"")
            report = await bob.dht.sync()
            assert report.stored == 1_000
            assert report.pages > 30

    virtual(story)


def test_by_salt_and_nobody_to_ask(virtual, make_network, make):
    async def story():
        network = make_network()
        async with pair(network) as (alice, bob):
            await alice.items.admit([make("u1"), make("u2", salt=b"x")], sender=b"")
            assert (await bob.dht.sync(salt=b"x")).stored == 1
            assert (await bob.dht.sync()).stored == 1
            assert bob.node.stats.last_sync.held == 1
        async with network.node("n5") as alone:
            with pytest.raises(DialError, match="no full node"):
                await alone.dht.sync()

    virtual(story)


def test_full_nodes_keep_in_step(virtual, make_network, make):
    async def story():
        network = make_network()
        async with (
            network.node("n0", full_node=True) as alice,
            network.node("n1", seeds=("n0",), full_node=True) as bob,
        ):
            await fill(alice, make, 50)
            await anyio.sleep(61)
            assert len(bob.items.held) == 50

    virtual(story)


def test_cursors_are_bounded_and_survive_rubbish():
    files = MemoryFiles()
    cursors = Cursors(files)
    for n in range(CURSORS_MAX + 9):
        assert cursors.put(n.to_bytes(2, "big"), bytes(24))
    cursors.save()
    assert len(Cursors(files)._held) == CURSORS_MAX
    files.write(CURSORS_FILE, b"\xc1rubbish")
    assert Cursors(files).find(b"\0\0") == b""

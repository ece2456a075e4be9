"""Serving Watch: changes as they happen, no queue for anybody, and no reader that costs others."""

from contextlib import asynccontextmanager

import anyio
import pytest

from dht_kademlia.client import DHT_SERVICE
from dht_kademlia.core.codec import MsgpackCodec
from dht_kademlia.core.messages import WATCH_BEAT_S, ErrorCode, GetItems, Ping, Watch
from skycore.errors import ReplyError, StreamError
from skycore.frames import FrameReader
from skycore.model.items import Cursor, make_lease
from skycore.testing.fakes import TEST_NETWORK, identity

CODEC = MsgpackCodec()
LIMIT = 4 * 1024 * 1024


class Reader:
    """A watch as a peer keeps it, frame by frame."""

    def __init__(self, stream):
        self.stream = stream
        self._frames = FrameReader(stream, LIMIT)

    async def page(self, within_s=None):
        """Return the next page; None where none came in time."""
        with anyio.move_on_after(within_s):
            body = await self._frames.read()
            if body is None:
                raise StreamError("ended")
            return CODEC.decode_reply(9, body)
        return None


@asynccontextmanager
async def watch(network, name, member, salt=None, cursor=b""):
    stream = await network.exchange.dial(identity(name).public, member.public, DHT_SERVICE)
    await stream.send(CODEC.encode(9, Watch(salt, cursor)))
    yield Reader(stream)
    await stream.aclose()


async def admit(member, *items, sender=b"s" * 32):
    outcomes = await member.items.admit(items, sender=sender)
    assert all(o.accepted for o in outcomes)


@asynccontextmanager
async def server(network, **settings):
    async with network.node("n0", full_node=True, full_nodes_max=0, **settings) as alice:
        yield alice


def test_c33_the_first_page_at_once_then_changes_as_they_happen(virtual, make_network, make):
    async def story():
        network = make_network()
        async with server(network) as alice, watch(network, "n1", alice) as reader:
            await admit(alice, make("u0", v=b"before"))
            first = await reader.page(0.1)
            assert first.items == ()
            assert Cursor.decode(first.cursor).store_id == alice.items.store_id
            for n in range(1, 6):
                began = anyio.current_time()
                await admit(alice, make(f"u{n}"))
                page = await reader.page(5)
                assert [i.subject for i in page.items] == [identity(f"u{n}").public]
                assert anyio.current_time() - began < 0.2

    virtual(story)


def test_a_beat_every_20_s_and_nothing_between(virtual, make_network, make):
    async def story():
        network = make_network()
        async with server(network) as alice, watch(network, "n1", alice, b"t") as reader:
            await reader.page(0.1)
            for n in range(5):
                began = anyio.current_time()
                await admit(alice, make(f"u{n}", salt=b"other"))
                page = await reader.page(60)
                assert page.items == ()
                assert WATCH_BEAT_S - 0.1 <= anyio.current_time() - began <= WATCH_BEAT_S + 0.1

    virtual(story)


def test_a_watcher_that_is_the_only_writer_still_gets_its_beats(virtual, make_network, make):
    async def story():
        network = make_network()
        me = identity("n1").public
        async with server(network) as alice, watch(network, "n1", alice) as reader:
            await reader.page(0.1)
            pages = []

            async def read():
                while True:
                    pages.append((await reader.page(), anyio.current_time()))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                for n in range(70):
                    await admit(alice, make("u1", seq=n + 1), sender=me)
                    await anyio.sleep(1)
                tasks.cancel_scope.cancel()
            assert [p.items for p, _ in pages] == [()] * 3
            places = [Cursor.decode(p.cursor).position for p, _ in pages]
            assert places == sorted(set(places))

    virtual(story)


def test_what_a_watcher_brought_is_left_out_but_not_others_leases(virtual, make_network, make):
    async def story():
        network = make_network()
        me = identity("n1").public
        async with server(network) as alice, watch(network, "n1", alice) as reader:
            await reader.page(0.1)
            mine, theirs = make("u1"), make("u2")
            await admit(alice, mine, sender=me)
            await admit(alice, theirs)
            assert (await reader.page(1)).items == (theirs,)
            lease = make_lease(
                TEST_NETWORK, identity("u1").secret, alice.items.judge(mine), mine.until + 60
            )
            await alice.items.renew([lease], sender=b"s" * 32)
            page = await reader.page(1)
            assert (page.items, page.leases) == ((), (lease,))

    virtual(story)


def test_a_cursor_goes_on_where_it_stood_and_each_record_comes_once(virtual, make_network, make):
    async def story():
        network = make_network()
        async with server(network) as alice:
            async with watch(network, "n1", alice) as reader:
                start = (await reader.page(0.1)).cursor
            for seq in range(1, 20):
                await admit(alice, *[make(f"u{n}", seq=seq) for n in range(5)])
            async with watch(network, "n1", alice, cursor=start) as reader:
                page = await reader.page(0.1)
                assert [i.seq for i in page.items] == [19] * 5
                assert await reader.page(1) is None

    virtual(story)


def test_many_changes_come_in_full_pages(virtual, make_network, make):
    async def story():
        network = make_network()
        async with server(network) as alice:
            async with watch(network, "n1", alice) as reader:
                start = (await reader.page(0.1)).cursor
            items = [make(f"u{n}", v=bytes(50_000)) for n in range(60)]
            await admit(alice, *items)
            got = []
            async with watch(network, "n1", alice, cursor=start) as reader:
                while len(got) < 60:
                    page = await reader.page(1)
                    assert sum(len(i.v) for i in page.items) <= 1024 * 1024
                    got += page.items
            assert got == items

    virtual(story)


def test_g3_foreign_cursors_are_refused_by_name(virtual, make_network):
    async def story():
        network = make_network()
        async with server(network) as alice:
            for cursor in (Cursor(b"f" * 16, 1).encode(), b"short"):
                async with watch(network, "n1", alice, cursor=cursor) as reader:
                    with pytest.raises(ReplyError) as refused:
                        await reader.page(1)
                    assert refused.value.code == ErrorCode.CURSOR_INVALID

    virtual(story)


def test_few_watches_of_a_peer_and_not_too_many_in_all(virtual, make_network):
    async def story():
        network = make_network()
        async with (
            server(network, peer_watches_max=1, watches_max=2) as alice,
            watch(network, "n1", alice) as one,
            watch(network, "n1", alice) as again,
        ):
            assert await one.page(0.1)
            with pytest.raises(ReplyError, match="no room") as refused:
                await again.page(0.1)
            assert refused.value.code == ErrorCode.BUSY
            async with watch(network, "n2", alice) as two, watch(network, "n3", alice) as three:
                assert await two.page(0.1)
                with pytest.raises(ReplyError, match="no room"):
                    await three.page(0.1)
            await anyio.sleep(0.1)  # whoever hangs up makes room
            async with watch(network, "n3", alice) as three:
                assert await three.page(0.1)

    virtual(story)


def test_o04_a_reader_that_does_not_read_is_dropped_and_nobody_waits(virtual, make_network, make):
    async def story():
        network = make_network()
        async with (
            server(network) as alice,
            watch(network, "n1", alice) as deaf,
            watch(network, "n2", alice) as reader,
        ):
            await reader.page(0.1)
            for n in range(80):
                await admit(alice, make(f"u{n}", v=bytes(60_000)))
                assert (await reader.page(1)).items
            assert not deaf.stream._broken
            await anyio.sleep(40)
            assert deaf.stream.other._broken
            held = alice.exchange._listeners  # the server itself goes on
            assert held
            assert await reader.page(25)

    virtual(story)


def test_a_word_on_a_watching_stream_ends_it(virtual, make_network):
    async def story():
        network = make_network()
        async with server(network) as alice, watch(network, "n1", alice) as reader:
            await reader.page(0.1)
            await reader.stream.send(CODEC.encode(1, Ping()))
            with pytest.raises(StreamError):
                await reader.page(1)

    virtual(story)


def test_a_word_that_is_never_finished_ends_it_too(virtual, make_network):
    async def story():
        network = make_network()
        async with server(network) as alice, watch(network, "n1", alice) as reader:
            await reader.page()
            await reader.stream.send(LIMIT.to_bytes(4, "big") + b"\x01")
            with pytest.raises(StreamError):
                await reader.page(5)

    virtual(story)


def test_g1_a_watch_pays_from_the_peers_budget(virtual, make_network, make):
    async def story():
        network = make_network()
        async with server(network, peer_bytes_per_s=65_536) as alice:
            async with watch(network, "n1", alice) as reader:
                start = (await reader.page(0.1)).cursor
            await admit(alice, *[make(f"u{n}", v=bytes(60_000)) for n in range(5)])
            async with watch(network, "n1", alice, cursor=start) as reader:
                began = anyio.current_time()
                assert len((await reader.page(1)).items) == 5
                await admit(alice, make("u9"))
                assert len((await reader.page(10)).items) == 1
                assert anyio.current_time() - began > 2
            stream = await network.exchange.dial(identity("n2").public, alice.public, DHT_SERVICE)
            await stream.send(CODEC.encode(5, GetItems(None, None, 0, b"", 1, 1)))
            assert await FrameReader(stream, LIMIT).read()

    virtual(story)

"""The server: no peer stops it for the others, and nothing in a request is believed."""

import anyio
import msgspec

from dht_kademlia.client import DHT_SERVICE
from dht_kademlia.core.codec import MsgpackCodec
from dht_kademlia.core.messages import (
    Batch,
    ErrorCode,
    FindNode,
    GetItems,
    GetValue,
    Ping,
    PutValue,
)
from skycore.errors import NotClosestError, ReplyError, StreamError
from skycore.frames import FrameReader
from skycore.model.items import Cursor, Lease
from skycore.testing.fakes import identity

CODEC = MsgpackCodec()
LIMIT = 4 * 1024 * 1024


async def talk(network, name, to, *requests):
    """Open one stream as `name` and return the replies; None where the stream was closed."""
    stream = await network.exchange.dial(identity(name).public, to.public, DHT_SERVICE)
    reader = FrameReader(stream, LIMIT)
    replies = []
    for method, request in requests:
        raw = request if isinstance(request, bytes) else None
        frame = (
            CODEC.encode(method, request)
            if raw is None
            else (1 + len(raw)).to_bytes(4, "big") + bytes([method]) + raw
        )
        try:
            await stream.send(frame)
            body = await reader.read()
            replies.append(None if body is None else CODEC.decode_reply(method, body))
        except (ReplyError, StreamError) as error:
            replies.append(error)
    await stream.aclose()
    return replies


def test_every_method_on_one_stream(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.node("n0", full_node=True) as alice:
            item = make("u1")
            pong, put, again, found, batch, page = await talk(
                network,
                "n1",
                alice,
                (1, Ping()),
                (4, PutValue(item)),
                (4, PutValue(item)),
                (3, GetValue(item.target)),
                (6, Batch((PutValue(make("u2")), PutValue(make("u3", v=b"x"))))),
                (5, GetItems(None, None, 0, b"", 2, 1_000_000)),
            )
            assert (pong.mode, pong.items) == ("full", 0)
            assert (put.code, again.code) == (0, 2)
            assert found.items == (item,)
            assert not found.held
            assert [o.code for o in batch.outcomes] == [0, 0]
            assert len(page.items) == 2
            assert page.has_more

    virtual(story)


def test_known_rank_makes_an_equal_answer_short(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.node("n0", full_node=True) as alice:
            item = make("u1")
            (outcome,) = await alice.items.admit([item], sender=b"")
            assert outcome.accepted
            (stored,) = await alice.items.get(item.target)
            rank = bytes([stored.item_class]) + stored.rank
            above = bytes([3]) + b"\xff" * 40
            same, more, all_ = await talk(
                network,
                "n1",
                alice,
                (3, GetValue(item.target, rank)),
                (3, GetValue(item.target, above)),
                (3, GetValue(item.target, b"\x01")),
            )
            assert (same.items, same.held) == ((), True)
            assert (more.items, more.held) == ((), False)
            assert all_.items == (item,)

    virtual(story)


def test_c51_unknown_method_is_answered_and_the_stream_goes_on(virtual, make_network):
    async def story():
        network = make_network()
        async with network.node("n0") as alice:
            error, pong = await talk(network, "n1", alice, (99, b"\x90"), (1, Ping()))
            assert error.code == ErrorCode.METHOD_UNKNOWN
            assert "unsupported method 99" in str(error)
            assert pong.version == 1

    virtual(story)


def test_c9_garbage_closes_its_own_stream_only(virtual, make_network):
    async def story():
        network = make_network()
        async with network.node("n0") as alice:
            bad, closed = await talk(network, "n1", alice, (2, b"\xc1\xc1"), (1, Ping()))
            assert bad.code == ErrorCode.PROTOCOL
            assert closed is None or isinstance(closed, StreamError)
            (short,) = await talk(network, "n1", alice, (2, FindNode(b"short")))
            assert "32 bytes" in str(short)
            (pong,) = await talk(network, "n1", alice, (1, Ping()))
            assert pong.version == 1

    virtual(story)


def test_o04_c9_silent_streams_do_not_stop_the_server(virtual, make_network):
    async def story():
        network = make_network()
        async with network.node("n0", streams_max=16, peer_streams_max=4) as alice:
            silent = [
                await network.exchange.dial(identity(f"n{i}").public, alice.public, DHT_SERVICE)
                for i in (*[1] * 129, *range(10, 40))
            ]
            await anyio.sleep(0.1)
            with anyio.fail_after(0.1):
                (pong,) = await talk(network, "n2", alice, (1, Ping()))
            assert pong.version == 1
            assert sum(not s._broken and not s._ended for s in silent) <= 16
            await anyio.sleep(70)
            assert all(s._broken or s._ended for s in silent)  # reaped

    virtual(story)


def test_o07_c4_only_who_is_on_the_stream_enters_the_table(virtual, make_network):
    async def story():
        network = make_network()
        async with network.node("n0") as alice:
            made_up = identity("mallory").public
            body = msgspec.msgpack.encode([None, None, 0, b"", 10, 1000, made_up, made_up])
            await talk(network, "n1", alice, (5, body))
            assert [e.contact.public for e in alice.node.table] == [identity("n1").public]
            # and a caller that nobody could call back does not
            await talk(network, "stranger", alice, (1, Ping()))
            assert identity("stranger").public not in alice.node.table

    virtual(story)


def test_g2_limits_are_clamped_and_a_page_has_at_least_one_item(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.node("n0", full_node=True) as alice:
            await alice.items.admit([make(f"u{i}", v=bytes(500)) for i in range(5)], sender=b"")
            pages = await talk(
                network,
                "n1",
                alice,
                (5, GetItems(None, None, -5, b"", -1, -1)),
                (5, GetItems(None, None, 0, b"", 0, 0)),
                (5, GetItems(None, None, 0, b"", 2**63, 2**63)),
                (5, GetItems(b"other", None, 0, b"", 10, 10_000)),
                (5, GetItems(None, None, 2**64 - 1, b"", 10, 10_000)),
            )
            assert [len(p.items) for p in pages] == [1, 1, 5, 0, 0]

    virtual(story)


def test_g3_foreign_and_forged_cursors(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.node("n0", full_node=True) as alice:
            foreign = Cursor(b"f" * 16, 1).encode()
            future = Cursor(alice.items.store_id, 10**9).encode()
            replies = await talk(
                network,
                "n1",
                alice,
                *[(5, GetItems(None, None, 0, c, 9, 999)) for c in (foreign, future, b"short")],
            )
            assert [r.code for r in replies] == [ErrorCode.CURSOR_INVALID] * 3

    virtual(story)


def test_a_lease_alone_renews_and_travels_as_a_lease(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.node("n0", full_node=True) as alice:
            item = make("u1")
            await alice.items.admit([item], sender=b"")
            (stored,) = await alice.items.get(item.target)
            lease = Lease(item.target, 3, stored.digest, item.until + 60, bytes(64))
            first, renewed, wrong, none, page = await talk(
                network,
                "n1",
                alice,
                (5, GetItems(None, None, 0, b"", 10, 10_000)),
                (4, PutValue(None, lease=lease)),
                (4, PutValue(None, lease=Lease(bytes(32), 3, bytes(32), 1, b""))),
                (4, PutValue(None)),
                (1, Ping()),
            )
            assert (renewed.code, wrong.code) == (1, 4)
            assert none.code == ErrorCode.PROTOCOL
            (page,) = await talk(
                network, "n1", alice, (5, GetItems(None, None, 0, first.cursor, 10, 10_000))
            )
            assert page.items == ()
            assert page.leases == (lease,)
            (whole,) = await talk(
                network, "n1", alice, (5, GetItems(None, None, 0, b"", 10, 10_000))
            )
            assert whole.items == (item,)
            assert whole.item_leases[0].lease == lease

    virtual(story)


def test_c26_a_far_regular_node_refuses_by_name(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.nodes(60) as members:
            item = make("u1")
            target = int.from_bytes(item.target, "big")
            by_distance = sorted(members, key=lambda m: m.node.table.own_id ^ target)
            (far,) = await talk(network, "n1", by_distance[-1], (4, PutValue(item)))
            (near,) = await talk(network, "n1", by_distance[0], (4, PutValue(item)))
            assert far.code == NotClosestError.code
            assert near.code == 0

    virtual(story)


def test_g1_a_greedy_peer_waits_and_others_do_not(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.node("n0", full_node=True, peer_bytes_per_s=65_536) as alice:
            await alice.items.admit([make(f"u{i}", v=bytes(60_000)) for i in range(5)], sender=b"")
            ask = (5, GetItems(None, None, 0, b"", 10, 1_000_000))
            start = anyio.current_time()
            await talk(network, "n1", alice, ask, ask)
            assert anyio.current_time() - start > 2
            start = anyio.current_time()
            await talk(network, "n2", alice, (1, Ping()))
            assert anyio.current_time() == start
            replies = await talk(network, "n1", alice, ask)
            assert anyio.current_time() - start > 2 or replies[0].code == ErrorCode.BUSY

    virtual(story)


async def half_send(network, name, to, size):
    """Open a stream and send a request of 4 MiB but for its last bytes."""
    stream = await network.exchange.dial(identity(name).public, to.public, DHT_SERVICE)
    await stream.send(LIMIT.to_bytes(4, "big") + b"\x01")
    for _ in range(size // 65_536):
        await stream.send(bytes(65_536))
    return stream


def test_requests_that_are_never_finished_are_bounded_for_all_peers_together(virtual, make_network):
    async def story():
        network = make_network()
        async with network.node("n0", full_node=True) as alice:
            kept = await half_send(
                network, "n9", alice, LIMIT // 2
            )  # has least: the last to suffer
            streams = [
                await half_send(network, f"n{1 + n % 3}", alice, 1024 * 1024) for n in range(36)
            ]
            await anyio.sleep(1)
            broken = [s for s in streams if s._broken or s._ended]
            assert len(streams) + 1 - len(broken) == 16  # times 4 MiB
            assert not (kept._broken or kept._ended)
            (pong,) = await talk(network, "n8", alice, (1, Ping()))
            assert pong.mode == "full"

    virtual(story)

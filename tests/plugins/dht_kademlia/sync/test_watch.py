"""Following a peer: in step within moments, at no liar's mercy, and back by itself after a loss."""

from contextlib import asynccontextmanager

import anyio
import pytest

from dht_kademlia.core.codec import MsgpackCodec
from dht_kademlia.core.messages import ErrorCode, ErrorReply, GetItems, Page, Pong, Watch
from dht_kademlia.core.watching import SILENCE_S
from dht_kademlia.sync.pull import Cursors
from dht_kademlia.sync.watch import TURN_S, FirstPull, Follower
from skycore.errors import DialError
from skycore.model.items import Cursor
from skycore.testing.fakes import MemoryFiles, identity

CODEC = MsgpackCodec()
STORE = b"s" * 16
QUIET = {"full_nodes_max": 0, "repair_interval_s": 0}


def at(position, store=STORE):
    return Cursor(store, position).encode()


def page(position, *items, more=False, store=STORE):
    return Page(tuple(items), (), more, at(position, store))


@asynccontextmanager
async def peer(network, pages, name="n9", mode="full", pull=lambda n: page(0)):
    """A peer whose watch is what the async generator `pages(request)` yields."""
    said = []

    async def speak(stream, method, request):
        said.append(request)
        if isinstance(request, Watch):
            async for reply in pages(request):
                code = 0 if isinstance(reply, ErrorReply) else method
                await stream.send(CODEC.encode(code, reply))
            await stream.aclose()
        elif isinstance(request, GetItems):
            reply = pull(len(said))
            if reply is None:
                await anyio.sleep_forever()
            await stream.send(CODEC.encode(method, reply))
        else:
            await stream.send(CODEC.encode(method, Pong(1, (), mode)))

    async with network.puppet(name, speak):
        yield network.contact_of(name).public, said


async def no_compare(contact):
    return True


async def in_vain(contact):
    return False


def follower(member, public, salt=None, *, files=None, first=None, compare=no_compare):
    cursors = Cursors(files or MemoryFiles())
    return Follower(member.node, cursors, public, salt, first or FirstPull(), compare)


async def beats(request):
    yield page(1)
    while True:
        await anyio.sleep(20)
        yield page(1)


def lies(make):
    async def backwards(request):
        yield page(5, make("u1"))
        yield page(4, make("u2"))

    async def same_place(request):
        while True:
            yield page(5, make("u1"))

    async def empty(request):
        for n in range(10_000):
            yield page(n)

    async def other_store(request):
        yield page(1)
        yield page(2, make("u1"), store=b"x" * 16)

    async def too_large(request):
        yield page(1, *[make(f"u{n}", v=bytes(60_000)) for n in range(30)])

    async def no_cursor(request):
        yield Page((make("u1"),), (), False, b"")

    async def rubbish(request):
        yield ErrorReply(ErrorCode.SERVER, "no")

    return {f.__name__: f for f in locals().values() if callable(f) and f is not make}


LIES = ("backwards", "same_place", "empty", "other_store", "too_large", "no_cursor", "rubbish")


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_peer_is_left_at_once(virtual, make_network, make, lie):
    async def story():
        network = make_network()
        async with (
            network.node("n1", **QUIET) as bob,
            peer(network, lies(make)[lie]) as (mallory, _),
        ):
            run = follower(bob, mallory)
            with anyio.fail_after(1):
                await run.session()
            assert not run.state.is_live
            assert run.state.trouble
            assert len(bob.items.held) <= 1

    virtual(story)


def test_a_silent_peer_is_dead_after_two_and_a_half_beats(virtual, make_network):
    async def silence(request):
        yield page(1)
        await anyio.sleep_forever()

    async def story():
        network = make_network()
        async with network.node("n1", **QUIET) as bob, peer(network, silence) as (mute, _):
            run, began = follower(bob, mute), anyio.current_time()
            await run.session()
            assert anyio.current_time() - began == pytest.approx(SILENCE_S, abs=0.5)
            assert "silent for 50 s" in run.state.trouble

    virtual(story)


def test_g5_another_salt_than_followed_is_not_stored(virtual, make_network, make):
    async def mixed(request):
        yield page(1)
        yield page(2, make("u1"), make("u2", salt=b"x"))
        await anyio.sleep_forever()

    async def story():
        network = make_network()
        async with network.node("n1", **QUIET) as bob, peer(network, mixed) as (other, said):
            run = follower(bob, other, b"t")
            await run.session()
            assert [s.item.salt for s in bob.items.held.values()] == [b"t"]
            assert [r.salt for r in said if isinstance(r, Watch)] == [b"t"]

    virtual(story)


def test_the_cursor_is_kept_and_a_restart_goes_on_from_there(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.node("n0", full_node=True, **QUIET) as alice:
            files, items = MemoryFiles(), None
            for turn in range(2):
                async with network.node("n1", files=files, items=items, seeds=("n0",)) as bob:
                    items = bob.items
                    async with bob.dht.watch():
                        await anyio.sleep(1)
                        new = [make(f"u{turn}{n}") for n in range(50)]
                        await alice.items.admit(new, sender=b"")
                        await anyio.sleep(1)
                    assert len(items.held) == 50 * (turn + 1)
            (key,) = Cursors(files)._held
            assert Cursor.decode(Cursors(files).find(key)).store_id == alice.items.store_id

    virtual(story)


def test_a_cursor_that_is_the_peers_no_more_compares_and_goes_on_from_now(virtual, make_network):
    compared = []

    async def compare(contact):
        compared.append(anyio.current_time())
        return True

    async def fresh_store(request):
        if request.cursor:
            yield ErrorReply(ErrorCode.CURSOR_INVALID, "made anew")
            return
        async for one in beats(request):
            yield one

    async def story():
        network = make_network()
        async with network.node("n1", **QUIET) as bob, peer(network, fresh_store) as (other, said):
            run = follower(bob, other, compare=compare)
            run._cursors.put(run._key, at(77, b"o" * 16))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run.run)
                await anyio.sleep(1)
                assert run.state.is_live
                assert [bool(r.cursor) for r in said if isinstance(r, Watch)] == [True, False]
                assert len(compared) == 1
                assert run._cursors.find(run._key) == at(1)
                tasks.cancel_scope.cancel()

    virtual(story)


def test_comparing_comes_after_each_connect_and_each_interval(virtual, make_network):
    compared = []

    async def compare(contact):
        compared.append(anyio.current_time())
        if len(compared) == 1:
            raise DialError("not now")
        return True

    async def story():
        network = make_network()
        async with (
            network.node("n1", reconcile_interval_s=300, **QUIET) as bob,
            peer(network, beats) as (other, _),
            anyio.create_task_group() as tasks,
        ):
            run, began = follower(bob, other, compare=compare), anyio.current_time()
            tasks.start_soon(run.run)
            await anyio.sleep(5)
            assert [t - began < 4 for t in compared] == [True, True]  # the first failed
            await anyio.sleep(400)
            assert len(compared) == 3
            network.exchange.stop(other)
            network.exchange.down.clear()
            await anyio.sleep(60)
            assert len(compared) == 4
            tasks.cancel_scope.cancel()

    virtual(story)


def test_a_peer_that_is_no_full_node_is_not_followed(virtual, make_network):
    async def story():
        network = make_network()
        async with (
            network.node("n1", **QUIET) as bob,
            peer(network, beats, mode="regular") as (other, said),
        ):
            run = follower(bob, other)
            await run.session()
            assert "no full node" in run.state.trouble
            assert not [r for r in said if isinstance(r, Watch)]

    virtual(story)


def test_one_first_pull_for_all_and_a_slow_one_holds_nobody_for_long(virtual, make_network, make):
    async def story():
        network = make_network()
        first = FirstPull()
        async with (
            network.node("n1", **QUIET) as bob,
            peer(network, beats, "n7", pull=lambda n: None) as (slow, _),
            peer(network, beats, "n8", pull=lambda n: page(9, make("u1"))) as (quick, said),
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(follower(bob, slow, first=first).run)
            await anyio.sleep(1)
            run = follower(bob, quick, first=first, compare=in_vain)
            tasks.start_soon(run.run)
            await anyio.sleep(TURN_S + 1)
            assert run.state.is_live
            assert not [r for r in said if isinstance(r, GetItems)]
            assert not first.is_done
            tasks.cancel_scope.cancel()
        async with network.node("n1", **QUIET) as bob:
            first, done = FirstPull(), []
            first = FirstPull(lambda: done.append(1))
            async with (
                peer(network, beats, "n7", pull=lambda n: page(9, make("u1"))) as (one, _),
                peer(network, beats, "n8", pull=lambda n: page(9, make("u1"))) as (two, said),
                anyio.create_task_group() as tasks,
            ):
                for public in (one, two):
                    tasks.start_soon(follower(bob, public, first=first).run)
                    await anyio.sleep(1)
                assert done == [1]
                assert not [r for r in said if isinstance(r, GetItems)]
                tasks.cancel_scope.cancel()

    virtual(story)


def test_a_lost_peer_is_tried_ever_less_often(virtual, make_network):
    async def story():
        network = make_network()
        async with network.node("n1", **QUIET) as bob, anyio.create_task_group() as tasks:
            run = follower(bob, identity("n9").public)
            tasks.start_soon(run.run)
            await anyio.sleep(60)
            early = network.exchange.dials
            await anyio.sleep(600)
            assert 4 <= early <= 20
            assert 15 <= network.exchange.dials - early <= 60
            assert run.state.is_lost(network.clock.now(), 600)
            tasks.cancel_scope.cancel()

    virtual(story)

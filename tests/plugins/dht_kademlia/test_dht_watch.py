"""Dht.watch and watch_salts: a regular node that keeps some records in step with a full node."""

import anyio
import pytest

from dht_kademlia.sync.fullnode import _salt
from skycore.contracts.dht import DhtMode
from skycore.errors import LocalProtocolError
from skycore.testing.fakes import identity

QUIET = {"full_nodes_max": 0, "repair_interval_s": 0}


async def collect(member, salt, into):
    async with member.dht.watch(salt) as changes:
        async for stored in changes:
            into.append((anyio.current_time(), stored))


async def admit(member, *items):
    assert all(o.accepted for o in await member.items.admit(items, sender=b"s" * 32))


def test_a_regular_node_hears_of_changes_at_a_full_node(virtual, make_network, make):
    async def story():
        network, got = make_network(), []
        async with (
            network.node("n0", full_node=True, **QUIET) as alice,
            network.node("n1", seeds=("n0",), **QUIET) as bob,
            anyio.create_task_group() as tasks,
        ):
            await anyio.sleep(1)
            tasks.start_soon(collect, bob, b"t", got)
            await anyio.sleep(2)
            for n in range(10):
                began = anyio.current_time()
                await admit(alice, make(f"u{n}"), make(f"u{n}", salt=b"other"))
                await anyio.sleep(1)
                when, stored = got[-1]
                assert stored.item.subject == identity(f"u{n}").public
                assert when - began < 0.5
            assert {s.item.salt for _, s in got} == {b"t"}
            assert len(got) == 10
            tasks.cancel_scope.cancel()
        assert not bob.node.standing.followed

    virtual(story)


def test_the_next_full_node_is_asked_where_one_is_lost(virtual, make_network, make):
    async def story():
        network, got = make_network(), []
        async with (
            network.node("n0", full_node=True, **QUIET) as alice,
            network.node("n2", full_node=True, seeds=("n0",), **QUIET) as carol,
            network.node("n1", seeds=("n0", "n2"), **QUIET) as bob,
            anyio.create_task_group() as tasks,
        ):
            await anyio.sleep(1)
            tasks.start_soon(collect, bob, b"t", got)
            await anyio.sleep(2)
            (followed,) = bob.node.standing.followed
            followed_by_now = {alice.public: alice, carol.public: carol}
            lost = followed_by_now.pop(followed.peer)
            (left,) = followed_by_now.values()
            network.exchange.stop(lost.public)
            await anyio.sleep(30)
            (followed,) = bob.node.standing.followed
            assert followed.is_live
            assert followed.peer == left.public
            await admit(left, make("u1"))
            await anyio.sleep(1)
            assert [s.item.subject for _, s in got] == [identity("u1").public]
            tasks.cancel_scope.cancel()

    virtual(story)


@pytest.mark.parametrize(("salts", "expected"), [(("t",), {b"t"}), (("*",), {b"t", b"x"})])
def test_watch_salts_are_kept_from_the_start(virtual, make_network, make, salts, expected):
    async def story():
        network = make_network()
        async with network.node("n0", full_node=True, **QUIET) as alice:
            await admit(alice, make("u1"), make("u2", salt=b"x"))
            async with network.node("n1", seeds=("n0",), watch_salts=salts, **QUIET) as bob:
                await anyio.sleep(10)
                assert {s.item.salt for s in bob.items.held.values()} == expected
                await admit(alice, make("u3"), make("u4", salt=b"x"))
                await anyio.sleep(1)
                assert len(bob.items.held) == 2 * len(expected)

    virtual(story)


def test_two_watches_of_a_salt_are_one_at_the_peer(virtual, make_network, make):
    async def story():
        network, one, two = make_network(), [], []
        async with (
            network.node("n0", full_node=True, **QUIET) as alice,
            network.node("n1", seeds=("n0",), **QUIET) as bob,
            anyio.create_task_group() as tasks,
        ):
            await anyio.sleep(1)
            tasks.start_soon(collect, bob, None, one)
            tasks.start_soon(collect, bob, None, two)
            await anyio.sleep(2)
            assert len(bob.node.standing.followed) == 1
            await admit(alice, make("u1"))
            await anyio.sleep(1)
            assert len(one) == len(two) == 1
            tasks.cancel_scope.cancel()

    virtual(story)


def test_a_full_node_needs_no_extra_watch_and_one_that_turns_regular_does(virtual, make_network):
    async def story():
        network, got = make_network(), []
        async with (
            network.node("n0", full_node=True, **QUIET),
            network.node("n1", seeds=("n0",), full_node=True, repair_interval_s=0) as bob,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(collect, bob, b"t", got)
            await anyio.sleep(12)
            assert [f.salt for f in bob.node.standing.followed] == [None]
            await bob.dht.set_mode(DhtMode.REGULAR)
            await anyio.sleep(5)
            assert [f.salt for f in bob.node.standing.followed] == [b"t"]
            await bob.dht.set_mode(DhtMode.FULL)
            await anyio.sleep(30)
            assert [f.salt for f in bob.node.standing.followed] == [None]
            tasks.cancel_scope.cancel()

    virtual(story)


def test_a_salt_too_long_is_our_own_mistake(virtual, make_network):
    async def story():
        network = make_network()
        async with network.node("n1", **QUIET) as bob:
            with pytest.raises(LocalProtocolError, match="200 bytes"):
                async with bob.dht.watch(bytes(201)):
                    pass

    virtual(story)


def test_salts_as_people_write_them():
    assert [_salt(t) for t in ("*", "tp", "hex:00ff")] == [None, b"tp", b"\0\xff"]

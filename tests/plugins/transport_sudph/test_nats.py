"""Two nodes behind NATs of every kind, a resolver between them, virtual time."""

from __future__ import annotations

import contextlib

import anyio
import pytest

from skycore.errors import DialError
from skycore.model.sudph import NAT_WORDS, Beat
from skycore.testing import NatKind
from skycore.testing.fakes import identity

HOME, AWAY = "192.168.0.2", "192.168.7.2"
HARD = {
    (NatKind.SYMMETRIC, NatKind.SYMMETRIC),
    (NatKind.SYMMETRIC, NatKind.PORT_RESTRICTED),
    (NatKind.PORT_RESTRICTED, NatKind.SYMMETRIC),
}
FOUND_AS = {
    NatKind.FULL_CONE: "cone",
    NatKind.ADDRESS_RESTRICTED: "cone",
    NatKind.PORT_RESTRICTED: "port-restricted",
    NatKind.SYMMETRIC: "symmetric",
}
BOB = identity("bob").public


@pytest.mark.parametrize("there", NatKind)
@pytest.mark.parametrize("here", NatKind)
async def test_u10_open_pairs_meet_every_time_and_hard_pairs_fail_cleanly(ground, here, there):
    world = ground()
    nats = [
        world.network.nat(kind, host)
        for kind, host in ((here, "203.0.113.1"), (there, "203.0.113.2"))
    ]
    async with (
        world.resolving(),
        world.node("alice", HOME, nats[0], resolver=True) as alice,
        world.node("bob", AWAY, nats[1], resolver=True) as bob,
        bob.listen() as listener,
    ):
        await world.bind(alice, bob)
        assert NAT_WORDS[alice.meeting.binding.nat] == FOUND_AS[here]
        assert NAT_WORDS[bob.meeting.binding.nat] == FOUND_AS[there]
        began = anyio.current_time()
        if (here, there) in HARD:
            with pytest.raises(DialError, match=r"punching failed: NAT here .*, there "):
                await alice.dial(BOB, ())
            assert anyio.current_time() - began <= 10
            assert not alice.endpoint._seats  # nothing is left of it
            return
        near = await alice.dial(BOB, ())
        assert anyio.current_time() - began <= 1.5
        far = await listener.accept()
        await near.send(b"hello")
        assert await far.receive() == b"hello"
        await far.send(b"you too")
        assert await near.receive() == b"you too"


async def test_neighbours_behind_one_nat_meet_inside_it(ground):
    world = ground()
    nat = world.network.nat(NatKind.SYMMETRIC, "203.0.113.1")
    async with (
        world.resolving(),
        world.node("alice", HOME, nat, resolver=True) as alice,
        world.node("bob", "192.168.0.3", nat, resolver=True) as bob,
        bob.listen() as listener,
    ):
        await world.bind(alice, bob)
        near = await alice.dial(BOB, ())
        await listener.accept()
        assert near.link.peer == ("192.168.0.3", 7777)


@pytest.mark.parametrize("kind", NatKind)
async def test_neighbours_that_listen_everywhere_meet_behind_a_nat_without_hairpin(ground, kind):
    """What is behind the router is told to the resolver, and to neighbours by it alone."""
    world = ground()
    nat, far_nat = (world.network.nat(kind, f"203.0.113.{n}") for n in (1, 2))
    everywhere = {"resolver": True, "listen": "0.0.0.0:7777"}
    async with (
        world.resolving(),
        world.node("alice", HOME, nat, **everywhere) as alice,
        world.node("bob", "192.168.0.3", nat, **everywhere) as bob,
        world.node("carol", AWAY, far_nat, **everywhere) as carol,
        bob.listen() as listener,
    ):
        await world.bind(alice, bob, carol)
        near = await alice.dial(BOB, ())
        await listener.accept()
        assert near.link.peer == ("192.168.0.3", 7777)
        for node in (alice, bob, carol):
            assert not any("192.168" in address.endpoint for address in node.told())
        with contextlib.suppress(DialError):  # hard pairs do not meet; neither is told
            await carol.dial(BOB, ())
        assert ("192.168.0.3", 7777) not in carol_was_told(world)


def carol_was_told(world):
    """Return every address that the resolver told to whoever is at carol's public address."""
    return [
        place.endpoint
        for message, to in world.resolver.said
        if to[0] == "203.0.113.2"
        for place in (*getattr(message, "local", ()), getattr(message, "seen", None))
        if place is not None
    ]


async def test_a_public_node_that_listens_everywhere_has_no_nat(ground):
    world = ground()
    async with (
        world.resolving(),
        world.node("alice", "10.0.0.1", resolver=True, listen="0.0.0.0:7777") as alice,
    ):
        await world.bind(alice)
        assert NAT_WORDS[alice.meeting.binding.nat] == "none"


async def test_a_public_node_knows_that_it_has_no_nat_and_tells_where_it_is(ground):
    world = ground()
    async with (
        world.resolving(),
        world.node("alice", "10.0.0.1", resolver=True) as alice,
        alice.listen() as listener,
    ):
        await world.bind(alice)
        assert NAT_WORDS[alice.meeting.binding.nat] == "none"
        assert [a.endpoint for a in listener.addresses] == ["10.0.0.1:7777"]


async def test_a_node_behind_a_nat_tells_where_the_resolver_sees_it(ground):
    world = ground()
    nat = world.network.nat(NatKind.PORT_RESTRICTED, "203.0.113.1")
    async with (
        world.resolving(),
        world.node("alice", HOME, nat, resolver=True, listen="0.0.0.0:0") as alice,
        alice.listen() as listener,
    ):
        assert listener.addresses[0].endpoint.startswith(":")
        await world.bind(alice)
        assert listener.addresses[0].endpoint.startswith("203.0.113.1:")


async def test_t4921_a_connection_outlives_a_nat_that_forgets_after_30_s(ground):
    world = ground()
    nats = [
        world.network.nat(NatKind.PORT_RESTRICTED, f"203.0.113.{n}", mapping_s=30) for n in (1, 2)
    ]
    async with (
        world.resolving(),
        world.node("alice", HOME, nats[0], resolver=True) as alice,
        world.node("bob", AWAY, nats[1], resolver=True) as bob,
        bob.listen() as listener,
    ):
        await world.bind(alice, bob)
        near = await alice.dial(BOB, ())
        far = await listener.accept()
        await anyio.sleep(3_600)
        await far.send(b"still here")
        assert await near.receive() == b"still here"
        await near.send(b"me too")
        assert await far.receive() == b"me too"
        assert alice.meeting.binding.session and bob.meeting.binding.session


async def test_u16_a_nat_that_forgets_after_2_s_and_a_keepalive_of_1_s(ground):
    world = ground()
    nat = world.network.nat(NatKind.PORT_RESTRICTED, "203.0.113.1", mapping_s=2)
    async with (
        world.node("alice", HOME, nat, keepalive_s=1.0) as alice,
        world.node("bob", "10.0.0.2") as bob,
        bob.listen() as listener,
    ):
        near = await alice.dial(BOB, [_at("10.0.0.2:7777")])
        far = await listener.accept()
        await anyio.sleep(300)
        await far.send(b"alive")
        assert await near.receive() == b"alive"


@pytest.mark.parametrize("who", ["dialler", "listener"])
async def test_u9_a_nat_that_rebinds_mid_transfer_breaks_nothing(ground, kit, who):
    world = ground()
    nat = world.network.nat(NatKind.FULL_CONE, "203.0.113.1")
    behind = {"dialler": "alice", "listener": "bob"}[who]
    homes = {"alice": "10.0.0.1", "bob": "10.0.0.2"}
    async with (
        world.resolving(),
        world.node("alice", homes["alice"], nat if behind == "alice" else None, resolver=True) as a,
        world.node("bob", homes["bob"], nat if behind == "bob" else None, resolver=True) as b,
        b.listen() as listener,
    ):
        await world.bind(a, b)
        near = await a.dial(BOB, ())
        far = await listener.accept()
        other = near if behind == "bob" else far
        before = other.link.peer
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kit.both_ways, near, far)
            await anyio.sleep(0.1)
            nat.rebind()
        assert other.link.peer != before and other.link.peer[0] == "203.0.113.1"


async def test_a_rebinding_while_nothing_is_said_is_found_by_the_keepalive(ground):
    world = ground()
    nat = world.network.nat(NatKind.FULL_CONE, "203.0.113.1")
    async with (
        world.node("alice", HOME, nat) as alice,
        world.node("bob", "10.0.0.2") as bob,
        bob.listen() as listener,
    ):
        near = await alice.dial(BOB, [_at("10.0.0.2:7777")])
        far = await listener.accept()
        await anyio.sleep(5)
        nat.rebind()
        await anyio.sleep(20)
        await far.send(b"found you")
        assert await near.receive() == b"found you"


async def test_the_binding_follows_a_rebinding_and_beats_every_10_s(ground):
    world = ground()
    nat = world.network.nat(NatKind.PORT_RESTRICTED, "203.0.113.1")
    async with world.resolving(), world.node("alice", HOME, nat, resolver=True) as alice:
        await world.bind(alice)
        was = alice.meeting.binding.seen
        world.resolver.heard.clear()
        await anyio.sleep(60)
        assert 5 <= sum(kind is Beat for kind, _ in world.resolver.heard) <= 7
        nat.rebind()
        await world.until(lambda: alice.meeting.binding.seen not in (None, was), 15)


async def test_t3106_a_resolver_that_restarts_has_every_node_again_within_70_s(ground):
    world = ground()
    nodes = 20
    async with anyio.create_task_group() as tasks, world.resolving():
        up = []

        async def live(number):
            async with world.node(f"n{number}", f"10.0.1.{number}", resolver=True) as sudph:
                up.append(sudph)
                await anyio.sleep_forever()

        for number in range(1, nodes + 1):
            tasks.start_soon(live, number)
        await world.until(lambda: len(world.resolver.bound) == nodes)
        world.resolver.bound.clear()  # a restart that took no time: it knows nobody
        assert await world.until(lambda: len(world.resolver.bound) == nodes, 70) <= 70
        world.resolver.silent = True  # one that took ten minutes
        await anyio.sleep(600)
        assert not any(s.meeting.binding.session for s in up)
        world.resolver.silent = False
        world.resolver.bound.clear()
        assert await world.until(lambda: len(world.resolver.bound) == nodes, 70) <= 70
        tasks.cancel_scope.cancel()


async def test_a_node_that_stops_says_goodbye_to_the_resolver(ground):
    world = ground()
    async with world.resolving():
        async with world.node("alice", "10.0.0.1", resolver=True) as alice:
            await world.bind(alice)
            assert world.resolver.bound
        await anyio.sleep(1)
        assert not world.resolver.bound


async def test_a_key_that_the_resolver_does_not_know_is_told_at_once(ground):
    world = ground()
    async with world.resolving(), world.node("alice", "10.0.0.1", resolver=True) as alice:
        await world.bind(alice)
        began = anyio.current_time()
        with pytest.raises(DialError, match="does not know"):
            await alice.dial(BOB, ())
        assert anyio.current_time() - began < 1


async def test_a_resolver_that_does_not_answer_is_told(ground):
    world = ground()
    async with world.node("alice", "10.0.0.1", resolver=True) as alice:
        with pytest.raises(DialError, match="resolver does not answer"):
            await alice.dial(BOB, ())


def _at(endpoint):
    from skycore.model.addresses import Address

    return Address("sudph", endpoint)

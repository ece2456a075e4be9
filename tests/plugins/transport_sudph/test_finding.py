"""The resolver by name, by what the node's address resolver says, and after it moved."""

from __future__ import annotations

from contextlib import asynccontextmanager

import anyio
import pytest

from skycore import Live
from skycore.contracts.status import Health
from skycore.errors import DialError, DiscoveryError
from skycore.testing import NatKind
from skycore.testing.contracts.status import StatusSourceContract
from skycore.testing.fakes import AlwaysReady, SeededEntropy, identity
from transport_sudph.finding import UNTELL_S
from transport_sudph.service import open_sudph
from transport_sudph.settings import SudphSettings
from transport_sudph.status import open_status

NAME = "ar.example"
RESOLVER = "198.51.100.1"
BOB = identity("bob").public


class Http:
    """`contracts.services.AddressResolver`: says an address, or nothing, or cannot be asked."""

    def __init__(self, says=""):
        self.says, self.asked = says, 0

    async def udp_address(self):
        self.asked += 1
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


class Own:
    """`contracts.services.OwnAddress` that remembers."""

    def __init__(self):
        self.said = []

    def told(self, kind, bind):
        if not self.said or self.said[-1] != (kind, bind):
            self.said.append((kind, bind))

    @property
    def last(self):
        return self.said[-1][1].remote_addr if self.said and self.said[-1][1] else None


@asynccontextmanager
async def node(world, name, address="10.0.0.1", nat=None, *, http=None, own=None, **settings):
    async with open_sudph(
        SudphSettings(listen=f"{address}:7777", **settings), identity(name), world.clock,
        SeededEntropy(world.seed), world.network.host(address, nat), AlwaysReady(),
        Live([http] if http else []), Live([own] if own else []),
    ) as sudph:  # fmt: skip
        yield sudph


async def bound(world, sudph, limit_s=60):
    return await world.until(lambda: sudph.can_ask, limit_s)


async def test_a_resolver_may_be_a_name(ground):
    world = ground()
    world.network.names[NAME] = (RESOLVER,)
    async with world.resolving(), node(world, "alice", resolver=f"{NAME}:30178") as alice:
        assert await bound(world, alice) < 2


async def test_the_resolver_is_what_the_nodes_own_one_says(ground):
    world = ground()
    http = Http(f"{RESOLVER}:30178")
    async with world.resolving(), node(world, "alice", http=http) as alice:
        assert await bound(world, alice) < 2
        await anyio.sleep(3_600)
        assert http.asked == 1  # nobody is asked while the binding stands


async def test_without_a_resolver_nothing_is_looked_for(ground):
    world = ground()
    async with node(world, "alice") as alice:
        await anyio.sleep(600)
        assert not alice.can_ask and alice.meeting.binding is None
        with pytest.raises(DialError, match="no sudph address is known"):
            await alice.dial(BOB, ())


async def test_c21_a_resolver_that_comes_late_is_found(ground):
    world = ground()
    http = Http(DiscoveryError("no way"))
    async with node(world, "alice", http=http) as alice, open_status((alice,), world.clock) as it:
        await anyio.sleep(300)
        assert 5 <= http.asked <= 15
        assert "no resolver" in (await it.status()).summary
        http.says = f"{RESOLVER}:30178"
        async with world.resolving():
            assert await bound(world, alice, 70) <= 70


async def test_t3106_a_resolver_that_moves_is_found_again(ground):
    world = ground()
    world.network.names[NAME] = ("198.51.100.9",)  # nobody is there
    async with world.resolving(), node(world, "alice", resolver=f"{NAME}:30178") as alice:
        await anyio.sleep(100)
        assert not alice.can_ask
        world.network.names[NAME] = ("198.51.100.9", RESOLVER)  # the next one is tried
        assert await bound(world, alice, 70) <= 70


async def test_what_the_resolver_sees_is_told_anew_when_the_mapping_changes(ground):
    world = ground()
    nat = world.network.nat(NatKind.PORT_RESTRICTED, "203.0.113.1")
    own = Own()
    async with (
        world.resolving(),
        node(world, "alice", "192.168.0.2", nat, own=own, resolver=f"{RESOLVER}:30178") as alice,
    ):
        await bound(world, alice)
        await world.until(lambda: own.last)
        was = own.last
        assert was.startswith("203.0.113.1:") and not was.endswith(":7777")
        nat.rebind()
        await world.until(lambda: own.last not in (None, was), 20)
        assert [kind for kind, _ in own.said] == ["sudph"] * len(own.said)
        world.resolver.silent = True
        await anyio.sleep(UNTELL_S + 60)
        assert own.said[-1] == ("sudph", None)
        world.resolver.silent = False
        await world.until(lambda: own.last, 60)


async def test_who_takes_no_connections_tells_nobody(ground):
    world = ground()
    own = Own()
    async with (
        world.resolving(),
        node(world, "alice", own=own, resolver=f"{RESOLVER}:30178", accept=False) as alice,
    ):
        await bound(world, alice)
        await anyio.sleep(5)
        assert not own.said


async def test_an_address_may_be_a_name(ground):
    world = ground()
    world.network.names["bob.example"] = ("10.0.0.2",)
    async with (
        world.node("alice", "10.0.0.1") as alice,
        world.node("bob", "10.0.0.2") as bob,
        bob.listen() as listener,
    ):
        from skycore.model.addresses import Address

        near = await alice.dial(BOB, [Address("sudph", "bob.example:7777")])
        await listener.accept()
        assert near.link.peer == ("10.0.0.2", 7777)
        with pytest.raises(DialError):
            await alice.dial(BOB, [Address("sudph", "nobody.example:7777")])


async def test_the_status_says_nat_mapping_and_resolver(ground):
    world = ground()
    nat = world.network.nat(NatKind.SYMMETRIC, "203.0.113.1")
    async with (
        world.resolving(),
        node(world, "alice", "192.168.0.2", nat, resolver=f"{RESOLVER}:30178") as alice,
        open_status((alice,), world.clock) as source,
    ):
        await world.bind(alice)
        said = await source.status()
        assert said.health is Health.OK and "NAT symmetric" in said.summary
        assert said.fields["nat"] == "symmetric"
        assert said.fields["mapped"].startswith("203.0.113.1:")
        assert said.fields["resolver"] == f"{RESOLVER}:30178"
        world.resolver.silent = True
        await anyio.sleep(120)
        said = await source.status()
        assert said.health is Health.DEGRADED and "does not answer" in said.summary


class TestSudphStatus(StatusSourceContract):
    @pytest.fixture
    async def source(self, ground):
        world = ground()
        async with (
            node(world, "alice") as alice,
            open_status((alice,), world.clock) as source,
        ):
            yield source

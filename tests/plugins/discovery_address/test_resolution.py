"""M27: two nodes that know no more of each other than their keys."""

from __future__ import annotations

import anyio
import pytest

from discovery_address.server.desk import AddressDesk
from skycore.contracts.dht import Dht
from skycore.contracts.transport import Transports
from skycore.errors import DialError
from skycore.model.addresses import Address, Contact
from skycore.model.entries import AddressBind
from skycore.testing.fakes import identity


def bound(resolver):
    """Return the resolver's table."""
    return resolver.get(AddressDesk).directory


def counters(node):
    return node.get(Transports).counters


async def ensure(node, other, label="user"):
    """Link two nodes; return the seconds that it took."""
    began = anyio.current_time()
    link = await node.get(Transports).ensure(other.public, label)
    assert link.remote == other.public
    return anyio.current_time() - began


def forget(node, *others):
    for other in others:
        node.get(Transports).addresses.forget(other.public)


async def unlinked(node, other):
    """Cut all links between two nodes, and what is known of their addresses."""
    for one, two in ((node, other), (other, node)):
        if one.node is None:
            continue
        for link in list(one.get(Transports).all()):
            if link.remote == two.public:
                await link.aclose("a test")
        forget(one, two)


async def test_m27_through_an_address_resolver(country):
    resolver = await country.resolver()
    alice, bob = [await country.visor(country.url(resolver)) for _ in range(2)]
    await country.world.until(lambda: len(bound(resolver)) == 2, limit_s=10)
    assert alice.get(Transports).addresses.find(bob.public) == ()
    assert await ensure(alice, bob) < 1
    assert counters(alice)["lookups_found"] == 1
    await unlinked(alice, bob)
    assert await ensure(alice, bob, "ephemeral") < 1


@pytest.fixture
async def dht(country):
    """A full node; alice and bob know it, and have published where they are."""
    (full,) = await country.world.spawn("fullnode")
    alice, bob = [await country.visor(seeds=[full]) for _ in range(2)]

    async def is_there(node):
        found = await full.get(Dht).get(node.public, b"addr", local=True)
        return found is not None

    for node in (alice, bob):
        with anyio.fail_after(120):
            while not await is_there(node):
                await anyio.sleep(1)
    await unlinked(alice, bob)
    return full, alice, bob


async def test_m27_through_the_dht_alone(dht):
    _, alice, bob = dht
    await unlinked(alice, bob)
    assert await ensure(alice, bob) < 1.5
    assert counters(alice)["lookups_found"] == 1


@pytest.mark.parametrize("trouble", ["slow", "down", "lying", "nonsense"])
async def test_c21_a_resolver_in_trouble_never_hides_the_dht(country, dht, trouble):
    full, _, bob = dht
    resolver = await country.resolver()
    carol = await country.visor(country.url(resolver), seeds=[full])
    await country.world.until(lambda: len(bound(resolver)) == 1, limit_s=10)
    desk = resolver.get(AddressDesk)
    if trouble == "slow":
        country.world.network.clog(resolver.address)
    elif trouble == "down":
        await country.world.kill(resolver)
    else:
        host = "10.9.9.9" if trouble == "lying" else "no host at all \u2603"
        others = tuple(f"10.9.9.{i}" for i in range(1, 16))
        await desk.bind("stcpr", bob.public, AddressBind("7777", others, host))
    await unlinked(carol, bob)
    await ensure(carol, bob)
    assert counters(carol)["lookups_found"] == 1


async def test_c21_the_dht_in_trouble_never_hides_the_resolver(country):
    resolver = await country.resolver()
    (full,) = await country.world.spawn("fullnode")
    alice, bob = [await country.visor(country.url(resolver), seeds=[full]) for _ in range(2)]
    await country.world.until(lambda: len(bound(resolver)) == 2, limit_s=10)
    await country.world.until(lambda: alice.get(Dht).peer_count, limit_s=60)
    await country.world.kill(full)
    await unlinked(alice, bob)
    assert await ensure(alice, bob) < 3
    assert counters(alice)["lookups_found"] == 1


async def test_a_stale_address_is_tried_and_then_looked_up(country):
    resolver = await country.resolver()
    alice, bob, carol = [await country.visor(country.url(resolver)) for _ in range(3)]
    await country.world.until(lambda: len(bound(resolver)) == 3, limit_s=10)
    stale = (Address("stcpr", "10.7.7.7:7777"), Address("stcpr", f"{carol.address}:7777"))
    alice.get(Transports).addresses.learn(Contact(bob.public, stale))  # nobody, and another node
    assert await ensure(alice, bob) < 8
    best = alice.get(Transports).addresses.find(bob.public)[0]
    assert best.endpoint == f"{bob.address}:7777"
    assert counters(alice)["lookups"] == 1


async def test_nobody_knows_is_a_clear_answer_within_two_seconds(country, dht):
    full, alice, _ = dht
    resolver = await country.resolver()
    carol = await country.visor(country.url(resolver), seeds=[full])
    await country.world.until(lambda: carol.get(Dht).peer_count, limit_s=60)
    (stranger,) = country.world.prepare("visor", 1)
    for node in (alice, carol):
        began = anyio.current_time()
        with pytest.raises(DialError, match="no address is known") as caught:
            await ensure(node, stranger)
        assert anyio.current_time() - began < 2
        assert "--address" in caught.value.hint
    await country.world.kill(resolver)
    country.world.network.clog(full.address)
    began = anyio.current_time()
    with pytest.raises(DialError, match="http: ") as caught:
        await ensure(carol, stranger)
    assert anyio.current_time() - began < 2


async def test_a_lookup_is_made_once_for_all_who_wait_and_not_again_at_once(country, dht):
    _, alice, _ = dht
    (stranger,) = country.world.prepare("visor", 1)
    before = counters(alice)["lookups"]

    async def one():
        with pytest.raises(DialError):
            await ensure(alice, stranger, "ephemeral")

    for _ in range(2):
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(one)
    assert counters(alice)["lookups"] == before + 1


async def test_the_dhts_own_dials_look_nothing_up(country, dht):
    full, alice, bob = dht
    await country.world.kill(bob)
    before = counters(alice)["lookups"], counters(full)["lookups"]
    await anyio.sleep(3_600)  # an hour of refreshes and republishing towards a dead peer
    assert (counters(alice)["lookups"], counters(full)["lookups"]) == before


async def test_a_lookup_for_a_peer_of_the_dht_does_not_wait_for_itself(country, dht):
    """The DHT dials bob to ask for bob's address, while that very dial waits for the answer."""
    full, alice, bob = dht
    stale = (Address("stcpr", "10.7.7.7:7777"),)
    await country.world.kill(bob)
    for node in (full, alice):
        await unlinked(node, bob)  # nobody has noticed yet that he is gone
        node.get(Transports).addresses.learn(Contact(bob.public, stale))
    began = anyio.current_time()
    with pytest.raises(DialError, match="cannot reach"):
        await ensure(alice, bob)
    assert anyio.current_time() - began < 10
    await country.world.start(bob)
    await anyio.sleep(100)
    forget(alice, bob)
    await ensure(alice, bob)


@pytest.mark.parametrize("with_dht", [False, True])
async def test_a_storm_of_unknown_keys_hides_nobody_who_is_known(country, with_dht):
    """Each costs a lookup, and none of them a turn among the dials, or a person's time."""
    resolver = await country.resolver()
    seeds = await country.world.spawn("fullnode") if with_dht else []
    alice, bob = [await country.visor(country.url(resolver), seeds=seeds) for _ in range(2)]
    await country.world.until(lambda: len(bound(resolver)) >= 2, limit_s=10)
    await unlinked(alice, bob)
    ended = []

    async def try_one(n):
        with pytest.raises(DialError):
            await alice.get(Transports).ensure(identity(f"nobody {n}").public)
        ended.append(n)

    async with anyio.create_task_group() as tasks:
        for n in range(300):
            tasks.start_soon(try_one, n)
        await anyio.sleep(0.2)
        assert await ensure(alice, bob) < 2
        await anyio.sleep(11)
        assert len(ended) == 300

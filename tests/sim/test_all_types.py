"""All types at once: whole visors behind every kind of NAT that have stcpr, sudph and a relay."""

from __future__ import annotations

import itertools
import random

import anyio
import pytest

from relay_dmsg.server.relay import Relay
from skycore.contracts.transport import Transports
from skycore.model.addresses import Contact
from skycore.testing import Link, NatKind, World

HTTP, UDP = 9_080, 30_178
HARD = {
    (NatKind.SYMMETRIC, NatKind.SYMMETRIC),
    (NatKind.SYMMETRIC, NatKind.PORT_RESTRICTED),
    (NatKind.PORT_RESTRICTED, NatKind.SYMMETRIC),
}
QUIET = ("dht_kademlia",)
"""Nobody dials but the test."""
KINDS = ("stcpr", "sudph", "dmsg")
CENTRE = {
    "node": {
        "enable": ["dmsg_server", "registry_sqlite", "http_server", "discovery_address_server"]
    },
    "discovery_address_server": {
        "private_addresses": True,
        "requests_per_minute": 0,
        "udp_listen": f":{UDP}",
    },
    "discovery_address": {"publish": False},
    "http_server": {"listen": f":{HTTP}", "requests_per_minute": 0},
}


def kind(node, name):
    """Return a node's type of transport; None where it has none of this name."""
    return node.get(Transports)._types.get(name)


class Land:
    """A full node that is relay and resolver, and visors that know it and have all types."""

    def __init__(self, world):
        self.world = world

    async def found(self):
        self.centre = await self.world.full_node(CENTRE)
        return self

    async def visor(self, nat=None, *, disable=(), **sections):
        settings = {
            "node": {"enable": ["transport_sudph", "dmsg_client"], "disable": list(disable)},
            "dmsg_client": {"servers": [self.centre.contact]},
            "transport_sudph": {"listen": "0.0.0.0:7777"},
            "discovery_address": {"url": f"http://{self.centre.address}:{HTTP}/ar"},
        }
        (node,) = await self.world.spawn("visor", settings=settings | sections, nat=nat)
        return node

    async def ready(self, *nodes, limit_s=60):
        """Wait until visors are bound at the resolver and attached to the relay."""

        def is_ready(node):
            return all(
                one is None or one.can_ask for one in (kind(node, "sudph"), kind(node, "dmsg"))
            )

        await self.world.until(lambda: all(map(is_ready, nodes)), limit_s=limit_s, what="ready")


@pytest.fixture
async def land(world):
    return await Land(world).found()


def links(node, other):
    """Return a node's live links to another one, as types by id."""
    return {t.id: t.type for t in node.get(Transports).all() if t.remote == other.public}


async def part(*pair):
    """Close every link of a pair. The DHT may dial at once anew; what it gets is checked, too."""
    async with anyio.create_task_group() as tasks:
        for one, other in itertools.permutations(pair):
            for transport in one.get(Transports).all():
                if transport.remote == other.public:
                    tasks.start_soon(transport.aclose, "the test goes on")
    await anyio.sleep(1)  # goodbyes have arrived


async def agreed(world, one, other):
    """Wait until both name the same live links, at most one of each type; return the types."""

    def same():
        here, there = links(one, other), links(other, one)
        return here and here == there

    await world.until(same, limit_s=10, what="both sides agree")
    types = [*links(one, other).values()]
    ends = [t for n, o in ((one, other), (other, one)) for t in n.get(Transports).all()
            if t.remote == o.public]  # fmt: skip
    assert len(types) == len(set(types)) and len(ends) == 2 * len(types)
    assert one.get(Transports).find(other.public).type == min(types, key=KINDS.index)
    return set(types)


async def dial(*sides):
    """Let nodes dial others, all in one moment; return the types of what they got, and seconds."""
    got = []
    began = anyio.current_time()

    async def one(node, other):
        got.append((await node.get(Transports).ensure(other.public, "user")).type)

    async with anyio.create_task_group() as tasks:
        for node, other in sides:
            tasks.start_soon(one, node, other)
    return got, anyio.current_time() - began


async def every_pair(land, open_by=frozenset(("sudph",))):
    """Dial all 16 pairs, from here, from there and from both ends at once."""
    visors = {(kind, side): await land.visor(kind) for kind in NatKind for side in range(2)}
    await land.ready(*visors.values())
    dice = random.Random(land.world.seed)
    todo = [
        (here, there, way)
        for here in NatKind for there in NatKind for way in ("out", "in", "both")
    ]  # fmt: skip
    dice.shuffle(todo)
    for here, there, way in todo:
        alice, bob = visors[here, 0], visors[there, 1]
        await part(alice, bob)
        sides = {"out": [(alice, bob)], "in": [(bob, alice)], "both": [(alice, bob), (bob, alice)]}
        got, took_s = await dial(*sides[way])
        expected = {"dmsg"} if (here, there) in HARD else open_by
        assert set(got) <= expected, (here, there, way, got)
        assert took_s <= 10, (here, there, way)
        assert await agreed(land.world, alice, bob) <= expected, (here, there, way)
    return visors


async def test_u10_the_16_pairs_with_all_types_have_one_agreed_link(land):
    """Open pairs meet by UDP every time, hard ones through the relay, whoever dials."""
    visors = await every_pair(land)
    for (_, side), node in visors.items():
        for (_, other_side), other in visors.items():
            if side != other_side:
                await part(node, other)
    await anyio.sleep(60)
    for node in visors.values():  # nothing of all those dials is left
        assert connections(node) == [t.type for t in node.get(Transports).all()].count("sudph")


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 120))
async def test_u10_the_same_for_other_seeds(seed):
    async with World(seed) as world:
        await every_pair(await Land(world).found())


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(200, 210))
async def test_u10_the_16_pairs_over_bad_lines_agree_all_the_same(seed):
    """A relay may be quicker than a hole through loss; links are agreed on, one of each type."""
    line = Link(latency_s=0.06, jitter_s=0.03, loss=0.1, duplicate=0.05, reorder=0.1)
    async with World(seed, link=line) as world:
        await every_pair(await Land(world).found(), frozenset(("sudph", "dmsg")))


# --- which type of several -----------------------------------------------------------------------

NO_TCP = {"transport_stcpr": {"listen": ""}}
TAKES = {"stcpr": ({}, ()), "sudph": (NO_TCP, ()), "dmsg": (NO_TCP, ("transport_sudph",))}


@pytest.mark.parametrize("best", KINDS)
async def test_m9_stcpr_before_sudph_before_a_relay_and_losers_are_closed(land, best):
    """A public node that takes less and less is reached by the best of what it takes."""
    sections, disabled = TAKES[best]
    alice = await land.visor(disable=QUIET, **NO_TCP)
    bob = await land.visor(disable=(*QUIET, *disabled), **sections)
    await land.ready(alice, bob)
    told = Contact(bob.public, tuple(bob.get(Transports).listening()))
    alice.get(Transports).addresses.learn(told, pinned=True)
    back = "dmsg" if best == "dmsg" else "sudph"
    for sides, expected in (
        ([(alice, bob)], {best}),
        ([(bob, alice)], {back}),
        ([(alice, bob), (bob, alice)], {best, back}),
    ):
        await part(alice, bob)
        got, took_s = await dial(*sides)
        assert set(got) <= expected and took_s <= 2
        assert await agreed(land.world, alice, bob) <= expected
        await anyio.sleep(30)  # a loser has drained
        up = [*links(alice, bob).values()]
        assert connections(alice) == connections(bob) == up.count("sudph")
        assert len(land.centre.get(Relay).splices) == up.count("dmsg")


def connections(node):
    """Return how many QUIC connections a node has, handshakes included."""
    sudph = kind(node, "sudph")
    return len(sudph.endpoint) if sudph else 0

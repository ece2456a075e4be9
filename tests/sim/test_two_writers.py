"""Two writers of one record, at whole nodes, under delay, loss and a cut that heals.

The two are programs under one key: two visors that carry its items, or two machines that run with
it. With `cas`, of two that write at once exactly one succeeds, and the other is told whose seq won
(C10). Without it the higher rank stays, everywhere the same (C8).
"""

from __future__ import annotations

import anyio
import pytest

from dht_kademlia.node import Kademlia
from skycore.contracts.dht import Dht
from skycore.contracts.publish import Fact, Publisher
from skycore.contracts.store import Items
from skycore.errors import CasMismatchError
from skycore.model.items import make_item, mutable_item_target
from skycore.model.keys import ED25519
from skycore.testing import Link

LIFE_S = 7_000
MISMATCH = CasMismatchError.code
TURNS = 8
"""Records, each with a target of its own: anybody may be the nearest to it."""


@pytest.fixture
def world_options():
    return {"link": Link(latency_s=0.03, jitter_s=0.05, loss=0.02)}


class TwoVisors:
    """Two visors, either of which puts what a third key has signed: no publisher between."""

    shares_a_key = False

    async def start(self, world):
        self.secret = ED25519.secret(bytes(32))
        self.subject = ED25519.public(self.secret)
        full = [await world.full_node() for _ in range(2)]
        visors = await world.spawn("visor", n=3)
        self.nodes = [*full, *visors]
        self.writers = visors[:2]
        await world.until(lambda: all(n.get(Dht).peer_count == 4 for n in self.nodes), limit_s=120)

    async def write(self, node, salt, text, cas=None):
        """Return the seq that was signed, whether anybody took it, and what refused it."""
        item = make_item(
            node.node.identity.network, self.secret, salt=salt, seq=node.clock.wall_ns(),
            until=node.clock.wall_s() + LIFE_S, v=text.encode(),
        )  # fmt: skip
        report = await node.get(Dht).put(item, cas=cas)
        return item.seq, report.stored > 0, report.outcome

    async def catch_up(self, salt):
        """Every node is told."""


class OneKey(TwoVisors):
    """Two machines that run with one key, each with the publisher of a node.

    Who has a message for the key reaches the one that called last; the other learns by asking.
    """

    shares_a_key = True

    async def start(self, world):
        full = [await world.full_node() for _ in range(2)]
        one, other = await world.spawn("visor", n=2)
        (twin,) = world.prepare("visor")
        twin.secret, twin.public = one.secret, one.public
        await world.start(twin)
        self.subject = one.public
        self.nodes = [*full, other, one, twin]
        self.writers = [one, twin]
        await world.until(lambda: all(n.get(Dht).peer_count == 3 for n in self.nodes), limit_s=300)

    async def write(self, node, salt, text, cas=None):
        done = await node.get(Publisher).publish(Fact(salt, text.encode()), cas=cas)
        (report,) = done.reports
        return done.seq, report.stored > 0, report.outcome

    async def catch_up(self, salt):
        for node in self.writers:
            await node.get(Dht).get(self.subject, salt, age_max_s=0)


@pytest.fixture(params=[TwoVisors, OneKey])
def story(request):
    return request.param()


async def at_once(story, salt, cas):
    """Let both write; return what became of each."""
    said = [None, None]

    async def write(at):
        said[at] = await story.write(story.writers[at], salt, f"writer {at}", cas)

    async with anyio.create_task_group() as tasks:
        for at in (0, 1):
            tasks.start_soon(write, at)
    return said


async def held(story, salt):
    """Return what each node holds of the record, all that two stores must share."""
    target = mutable_item_target(story.subject, salt)
    rows = [await node.get(Items).get(target) for node in story.nodes]
    return [{(s.item_class, s.rank, s.item) for s in row} for row in rows]


async def until_equal(world, story, salt, limit_s):
    """Wait until all nodes hold the same; return its one item."""
    began = anyio.current_time()
    while True:
        rows = await held(story, salt)
        if rows[0] and all(row == rows[0] for row in rows):
            ((_, _, item),) = rows[0]
            return item
        world.check()
        assert anyio.current_time() - began < limit_s, [[i.seq for _, _, i in r] for r in rows]
        await story.catch_up(salt)
        await anyio.sleep(1)


def calls_failed(story):
    return sum(node.get(Kademlia).stats.calls_failed for node in story.writers)


async def test_c10_of_two_that_expect_the_same_exactly_one_succeeds(world, story):
    """Two machines of one key take each other's links away, so that calls fail now and then.

    That is no healthy network, and the two may be heard by different nodes. Then the higher rank
    stays; whoever is refused is told whose seq won all the same.
    """
    await story.start(world)
    exactly_one = 0
    for turn in range(TURNS):
        salt, seq = b"cas/%d" % turn, 0
        for _ in range(2):  # first there is nothing, then there is what won
            before = calls_failed(story)
            said = await at_once(story, salt, cas=seq)
            item = await until_equal(world, story, salt, limit_s=300)
            taken = [seq for seq, took, _ in said if took]
            refusals = [refusal for _, took, refusal in said if not took]
            exactly_one += len(taken) == 1
            assert len(taken) == 1 or calls_failed(story) > before, (turn, said)
            assert len(taken) == 1 or story.shares_a_key
            assert all((r.code, r.seq) == (MISMATCH, taken[0]) for r in refusals), (turn, said)
            seq = item.seq
            assert seq in taken
    assert exactly_one >= TURNS


async def test_c8_without_cas_the_higher_rank_stays_everywhere(world, story):
    await story.start(world)
    for turn in range(TURNS):
        salt = b"plain/%d" % turn
        said = await at_once(story, salt, cas=None)
        item = await until_equal(world, story, salt, limit_s=300)
        assert any(took for _, took, _ in said)
        assert item.seq == max(seq for seq, _, _ in said)


async def test_c10_c8_both_sides_of_a_cut_write_and_agree_when_it_heals(world, story):
    """A cut lets both sides succeed; then one of them stays, and the next to expect is told."""
    await story.start(world)
    one, other = story.writers
    salts = [b"cut/%d" % turn for turn in range(TURNS)]
    firsts = {salt: (await story.write(one, salt, "before", 0))[0] for salt in salts}
    for salt in salts:
        await until_equal(world, story, salt, limit_s=300)
    full = story.nodes[:2]
    rest = [n for n in story.nodes[2:] if n not in story.writers]
    world.partition([full[0], one], [full[1], other, *rest])
    await anyio.sleep(60)
    for at, salt in enumerate(salts):
        await at_once(story, salt, cas=firsts[salt] if at % 2 else None)
    await anyio.sleep(60)
    world.heal()
    for salt in salts:
        item = await until_equal(world, story, salt, limit_s=600)
        assert item.seq > firsts[salt]
        for node in story.writers:
            _, took, refusal = await story.write(node, salt, "late", firsts[salt])
            assert not took
            assert (refusal.code, refusal.seq) == (MISMATCH, item.seq)
        now, took, _ = await story.write(one, salt, "after", item.seq)
        assert took
        assert (await until_equal(world, story, salt, limit_s=300)).seq == now

"""Puts that expect something: decided at one place, so that of two writers one wins."""

import random

import anyio
import pytest

from skycore.errors import CasMismatchError
from skycore.testing.streams import MemoryExchange

QUIET = {"check_interval_s": 1e6, "bootstrap_interval_s": 1e6, "repair_interval_s": 0}


class Jittery(MemoryExchange):
    """Every message takes a time of its own."""

    def __init__(self, seed):
        super().__init__()
        self.dice = random.Random(seed)
        self.on = False

    async def delay(self, local, remote):
        if self.on:
            await anyio.sleep(self.dice.uniform(0.001, 0.08))


def won(report):
    return report.stored > 0


async def both(one, other, items, cas, gap_s):
    """Let two nodes put at nearly the same time."""
    reports = [None, None]

    async def write(at, member):
        await anyio.sleep(at * gap_s)
        reports[at] = await member.dht.put(items[at], cas=cas)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, 0, one)
        tasks.start_soon(write, 1, other)
    return reports


@pytest.mark.parametrize("count", [2, 9, 30])
def test_c10_of_two_concurrent_writers_exactly_one(virtual, make_network, make, count):
    """Many seeds: any two nodes, any order of arrival, one network of each size."""

    async def story():
        network = make_network()
        network.exchange = exchange = Jittery(count)
        async with network.nodes(count, **QUIET) as members:
            exchange.on = True
            for seed in range(40):
                dice = random.Random(seed)
                one, other = dice.sample(members, 2)
                name = f"w{seed}"
                before = dice.choice((0, 5))
                if before:
                    await dice.choice(members).dht.put(make(name, seq=before))
                    await anyio.sleep(1)
                items = [make(name, seq=7, v=b"one"), make(name, seq=8, v=b"other")]
                dice.shuffle(items)
                reports = await both(one, other, items, before, dice.uniform(0, 0.05))
                assert sorted(won(r) for r in reports) == [False, True], (seed, reports)
                winner = items[won(reports[1])]
                lost = reports[won(reports[0])]
                assert lost.outcome.code == CasMismatchError.code
                assert lost.outcome.seq == winner.seq
                await anyio.sleep(1)
                found = await dice.choice(members).dht.get(winner.subject, b"t", age_max_s=0)
                assert found.item == winner
                held = {s.item for m in members for s in await m.items.get(winner.target)}
                assert winner in held
                assert items[won(reports[0])] not in held  # the loser's is nowhere

    virtual(story)


def test_c10_the_refusal_is_the_only_thing_that_happens(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.nodes(30, **QUIET) as members:
            old = make("u1", seq=3)
            await members[4].dht.put(old)
            before = sum(m.node.stats.calls_served for m in members)
            report = await members[9].dht.put(make("u1", seq=9), cas=2)
            assert (report.outcome.code, report.outcome.seq) == (301, 3)
            assert len(report.replicas) <= 1
            assert sum(m.node.stats.calls_served for m in members) - before < 20
            assert (await members[9].dht.get(old.subject, b"t")).item == old
            again = await members[9].dht.put(make("u1", seq=9), cas=3)
            assert 19 <= again.stored <= 21

    virtual(story)


def test_cas_goes_on_to_the_next_where_the_closest_does_not_answer(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.nodes(8, **QUIET) as members:
            item = make("u1")
            target = int.from_bytes(item.target, "big")
            order = sorted(members, key=lambda m: m.node.table.own_id ^ target)
            network.exchange.deaf = {order[0].public}
            report = await order[5].dht.put(item, cas=0)
            assert report.stored == 7
            network.exchange.deaf = {m.public for m in members if m is not order[5]}
            alone = await order[5].dht.put(make("u1", seq=2), cas=1)
            assert alone.stored == 1  # it keeps this target itself, and nobody else answers

    virtual(story)


def test_cas_in_a_batch_is_decided_item_by_item(virtual, make_network, make):
    async def story():
        network = make_network()
        async with network.nodes(5, **QUIET) as members:
            await members[0].dht.put(make("u1", seq=4))
            items = [make("u1", seq=6), make("u2", seq=6)]
            first, second = await members[1].mirror.mirror(items, cas=0)
            assert first.outcome.code == 301
            assert second.stored == 5
            bad = make("u3", until=1)
            assert (await members[1].dht.put(bad, cas=0)).outcome.code == 404

    virtual(story)


def test_c10_a_signer_does_not_decide_about_its_own_item(virtual, make_network, make):
    """It may run twice under its key: what the other of the two wrote stands elsewhere."""

    async def story():
        network = make_network()
        async with network.nodes(8, **QUIET) as members:
            for number in range(100):  # a record that its signer is the closest to
                salt = b"%d" % number
                target = int.from_bytes(make("n3", salt=salt).target, "big")
                order = sorted(members, key=lambda m: m.node.table.own_id ^ target)
                if order[0].public == make("n3").signer:
                    break
            signer, decider = order[:2]
            twins = make("n3", seq=5, salt=salt)
            for member in order[1:]:
                await member.items.admit([twins], sender=twins.signer)
            mine = make("n3", seq=9, salt=salt)
            refused = await signer.dht.put(mine, cas=0)
            assert (refused.outcome.code, refused.outcome.seq) == (301, 5)
            assert [r.peer for r in refused.replicas] == [decider.public]
            assert (await signer.dht.get(mine.subject, salt, age_max_s=0)).item == twins
            by_another = await order[4].dht.put(mine, cas=0)  # the same node decides for all
            assert [r.peer for r in by_another.replicas] == [decider.public]
            taken = await signer.dht.put(mine, cas=5)
            assert taken.stored == 8
            # where nobody else answers there is nobody else to ask
            network.exchange.deaf = {m.public for m in order[1:]}
            assert (await signer.dht.put(make("n3", seq=11, salt=salt), cas=9)).stored == 1

    virtual(story)

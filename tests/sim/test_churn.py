"""Churn: a thousand Kademlia cores, a fifth of them replaced a minute; partitions; late seeds."""

from __future__ import annotations

from dht_kademlia.core.contacts import id_of
from dht_kademlia.core.lookup import Outcome
from dht_kademlia.core.routing_table import K
from tests.sim.cores import REPUBLISH_S, RTT_S, SETTLE, Node, World, grown


def churned(seed, count, minutes, gets, share=0.2, loss=0.05):
    """Run W-churn; return (found, asked, lookups that reached a bound, the world)."""
    world = grown(seed, count, loss)
    dice = world.dice
    targets = [dice.randbytes(32) for _ in range(200)]

    def republish(target, seq):
        """Publish, and do so again at once where the report is bad or never came."""
        told = []
        dice.choice(world.order).put(target, seq, told.append)
        world.at(12.0, check, target, seq, told)
        world.at(REPUBLISH_S, republish, target, seq + 1)

    def check(target, seq, told):
        if not told or sum(r.code == 0 for r in told[0]) < K // 2:
            again = []
            dice.choice(world.order).put(target, seq, again.append)
            world.at(12.0, check, target, seq, again)

    def replace():
        world.kill(dice.choice(world.order))
        world.spawn(*[lambda: dice.choice(world.order).contact] * 3)
        world.at(60.0 / (share * count), replace)

    results = []

    def read():
        asked_s = world.now
        world.settled().look(
            int.from_bytes(dice.choice(targets), "big"),
            lambda lookup: results.append((lookup.outcome, world.now - asked_s)),
            method="get",
        )
        world.at(60.0 * minutes / gets, read)

    for index, target in enumerate(targets):
        world.at(index * 0.01, republish, target, 1)
    world.run(world.now + 30.0)
    replace()
    read()
    world.run(world.now + 60.0 * minutes)
    return results, world


def found_share(results):
    return sum(outcome is Outcome.FOUND for outcome, _ in results) / len(results)


def test_c39_w_churn_small():
    """300 nodes, a fifth replaced a minute, 5 % of calls lost, 1,500 gets."""
    results, world = churned(1, 300, 3, 1_500)
    assert len(results) >= 1_450  # but for the readers that died while reading
    assert found_share(results) >= 0.999
    assert sorted(s for _, s in results)[len(results) // 2] < 6 * RTT_S
    assert all(len(node.table) > K for node in world.order if node.entered_s < world.now - 60)


def test_c39_w_churn():
    """W-churn: 1,000 nodes, 20 % replaced a minute, 5 % of calls lost, 10,000 gets."""
    results, _ = churned(7, 1_000, 5, 10_000)
    assert found_share(results) >= 0.999


def test_the_same_seed_is_the_same_run():
    one, other, third = (churned(seed, 60, 1, 100)[1].trace.digest() for seed in (3, 3, 4))
    assert one == other != third


def test_c40_bootstrap_timers():
    """A seed that comes up late is found within 30 s, and asked again every 5 min."""
    world = World(1)
    seed = Node(world, bytes(32))
    late = world.spawn(seed.contact)
    world.run(45.0)
    assert len(late.table) == 0
    world.nodes[seed.public] = seed
    world.run(60.5)
    assert [e.contact.public for e in late.table] == [seed.public]
    before = world.calls
    world.run(359.0)
    pings = world.calls - before
    assert 3 <= pings <= 12  # the contact's own checks, no bootstrap round every 30 s


def test_partition_and_heal():
    """Two halves go on by themselves; healed, what one half wrote is found from the other."""
    world = grown(5, 80)
    left = {n.public for n in world.order[:40]}
    world.cut = lambda a, b: (a in left) != (b in left)
    world.run(world.now + 120.0)
    targets = [world.dice.randbytes(32) for _ in range(20)]
    writer, reader = world.order[3], world.order[60]
    for target in targets:
        writer.put(target, 1)
    world.run(world.now + 30.0)
    world.cut = lambda a, b: False
    world.run(world.now + 330.0)  # one round of bootstrap
    for target in targets:
        writer.put(target, 2)
    world.run(world.now + 30.0)
    found = []
    for target in targets:
        reader.look(
            int.from_bytes(target, "big"), lambda lookup: found.append(lookup.best), method="get"
        )
    world.run(world.now + 30.0)
    assert found == [b"\x03" + (2).to_bytes(8, "big")] * 20


def test_c26_a_node_keeps_its_share_and_the_closest_are_found():
    """Lookups end at the true closest nodes of a settled network."""
    world = grown(9, 200)
    everybody = list(world.nodes)
    wrong = []
    for _ in range(50):
        target = world.dice.getrandbits(256)

        def check(lookup, target=target):
            best = sorted(everybody, key=lambda p: id_of(p) ^ target)[:K]
            mine = [c.public for c in lookup.closest()]
            wrong.append(len(set(best) - set(mine)))

        world.dice.choice(world.order).look(target, check, settle=SETTLE)
    world.run(world.now + 20.0)
    assert len(wrong) == 50
    assert sum(wrong) <= 50 + 25  # the asker itself may be one of the closest

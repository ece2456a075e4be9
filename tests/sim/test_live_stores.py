"""Live full nodes after trouble: stores that are equal again, byte for byte, with nobody's help.

Owners publish once and never again here: what heals, heals by the full nodes alone.
"""

from __future__ import annotations

import itertools

import anyio
import pytest

from dht_kademlia.node import Kademlia
from skycore.contracts.dht import Dht
from skycore.contracts.store import ItemKey, Items
from skycore.model.items import Kind, make_item
from skycore.model.trie import plant_value

RECONCILE_S = 300


@pytest.fixture(autouse=True)
def no_repair(monkeypatch):
    """Keep the repair of replicas out of it, which would bring what these tests wait for too."""

    async def nothing(node):
        await anyio.sleep_forever()

    monkeypatch.setattr("dht_kademlia.service.keep_replicas", nothing)


async def test_c34_w_restart_an_empty_full_node_is_complete_in_one_pass(world, live):
    keeper, loser = await live.start(world, 2)
    items = [live.item_by(keeper, f"writer {n}", "x" * 100) for n in range(3_500)]
    outcomes = await keeper.get(Items).admit(items, sender=keeper.public)
    assert all(o.accepted for o in outcomes)
    await world.kill(loser)
    loser.disk.clear()
    await world.start(loser)
    targets = {item.target for item in items}

    def done():
        return live.standing(loser).is_complete

    assert await world.until(done, limit_s=30) < 30
    held = await live.contents(loser)
    assert targets <= {target for target, _ in held}
    report = loser.get(Kademlia).stats.last_sync
    assert report.complete
    assert report.stored >= 3_500
    assert report.refused == 0
    await live.equal(world, [keeper, loser], limit_s=30)


async def test_c11_o12_a_node_that_slept_through_a_delete_does_not_bring_it_back(world, live):
    nodes = await live.start(world, 3)
    item = await live.write_at(nodes[0], "alice", "soon gone")
    await live.equal(world, nodes, limit_s=10)
    sleeper = nodes[2]
    await world.stop(sleeper)
    await anyio.sleep(60)
    grave = await live.delete_at(nodes[0], "alice")
    await anyio.sleep(600)
    await world.start(sleeper)
    await world.until(lambda: live.links(sleeper) == 2, limit_s=60)
    _, held = await live.equal(world, nodes, limit_s=60)
    assert held[(item.target, 3)][1] == grave
    for node in nodes:
        found = await node.get(Dht).get(item.subject, item.salt, local=True)
        assert found.item.kind == Kind.TOMBSTONE


async def test_c11_o12_who_was_cut_off_during_a_delete_brings_nothing_back(world, live):
    """It still has the old value when it is back; nobody takes it, and it serves it no longer."""
    nodes = await live.start(world, 3)
    item = await live.write_at(nodes[0], "alice", "soon gone")
    await live.equal(world, nodes, limit_s=10)
    *awake, sleeper = nodes
    world.network.isolate(sleeper.address)
    await anyio.sleep(60)
    grave = await live.delete_at(nodes[0], "alice")
    await live.equal(world, awake, limit_s=10)
    await anyio.sleep(600)

    async def served(node):
        return (await node.get(Dht).get(item.subject, item.salt, local=True)).item

    assert await served(sleeper) == item
    world.heal()
    for _ in range(RECONCILE_S):
        assert [await served(node) for node in awake] == [grave, grave]
        if await served(sleeper) == grave:
            break
        await anyio.sleep(1)
    assert await served(sleeper) == grave
    await live.equal(world, nodes, limit_s=RECONCILE_S)
    await anyio.sleep(live.life_s)  # the value's own life is over long before the tombstone's
    assert [await served(node) for node in nodes] == [grave] * 3


@pytest.mark.parametrize("trouble", ["", "a clock jumps", "one side restarts, empty"])
async def test_partition_and_heal_of_full_nodes_that_both_write_and_delete(world, live, trouble):
    nodes = await live.start(world, 5)
    left, right = nodes[:3], nodes[3:]
    for turn in range(20):
        await live.write_at(nodes[turn % 5], f"writer {turn}", "before")
    await live.equal(world, nodes, limit_s=10)
    world.partition(left, right)
    if trouble == "a clock jumps":
        nodes[1].clock.offset_s = 200
    sides = itertools.cycle([left, right])
    for turn in range(60):
        side, writer = next(sides), f"writer {turn % 25}"
        node = side[turn % len(side)]
        if turn % 7 == 0:
            await live.delete_at(node, writer)
        else:
            await live.write_at(node, writer, f"during {turn}", must=False)
        await anyio.sleep(5)
    nodes[1].clock.offset_s = 0
    if trouble == "one side restarts, empty":  # no cursor of before is worth anything now
        for node in right:
            await world.kill(node)
            node.disk.clear()
            await world.start(node)
            await world.until(lambda n=node: live.standing(n).is_complete, limit_s=60)
        await live.equal(world, right, limit_s=60)
    assert await live.contents(left[0]) != await live.contents(right[0])
    world.heal()
    took, held = await live.equal(world, nodes, limit_s=RECONCILE_S)
    assert took <= RECONCILE_S
    assert len(held) >= 25


async def test_c18_a_value_in_blocks_follows_whole_and_soon(world, live):
    nodes = await live.start(world, 3)
    value = bytearray(bytes(range(256)) * 2_500)  # 640 kB
    for turn in range(3):
        value[turn * 200_000] ^= 255
        tree = plant_value(bytes(value))
        item = live.item_by(nodes[turn], "alice", tree.manifest, kind=Kind.MANIFEST)
        blocks = list(tree.blocks.values())
        (outcome,) = await nodes[turn].get(Items).admit([item], sender=item.signer, blocks=blocks)
        assert outcome.accepted, outcome
        began = anyio.current_time()
        for node in nodes:
            items = node.get(Items)
            while not (held := await items.get(item.target)) or held[0].item != item:
                assert anyio.current_time() - began < 5
                await anyio.sleep(0.05)
            assert await items.value(held[0]) == value


async def test_what_was_written_while_nobody_listened_arrives_by_reconciling(world, live):
    """The peer's log cannot tell of it: the reader's own store lost what it once had."""
    nodes = await live.start(world, 2)
    items = [await live.write_at(nodes[0], f"writer {n}", "kept") for n in range(50)]
    await live.equal(world, nodes, limit_s=10)
    lost = await live.contents(nodes[1])
    keys = [k for k in lost if k[0] in {i.target for i in items[:20]}]
    assert await nodes[1].get(Items).drop([ItemKey(*k) for k in keys]) == 20
    took, _ = await live.equal(world, nodes, limit_s=2 * RECONCILE_S)
    assert took <= 1.3 * RECONCILE_S


async def test_two_nodes_of_one_key_at_once_do_not_break_the_others(world, live):
    nodes = await live.start(world, 3)
    (twin,) = world.prepare("fullnode", 1)
    twin.secret, twin.public = nodes[2].secret, nodes[2].public
    await world.start(twin)
    for turn in range(30):
        await live.write_at([*nodes, twin][turn % 4], f"writer {turn % 11}", f"{turn}", must=False)
        own = (nodes[2], twin)[turn % 2]
        identity = own.node.identity
        await own.get(Dht).put(
            make_item(
                identity.network,
                identity.secret,
                salt=b"note",
                seq=own.clock.wall_ns(),
                until=own.clock.wall_s() + live.life_s,
                v=f"twin {turn}".encode(),
            )
        )
        await anyio.sleep(10)
    world.check()
    await live.equal(world, nodes[:2], limit_s=30)
    await world.stop(twin)
    await live.equal(world, nodes, limit_s=2 * RECONCILE_S)
    found = await nodes[0].get(Dht).find_full_nodes()
    assert sorted(found) == sorted({n.public for n in nodes})

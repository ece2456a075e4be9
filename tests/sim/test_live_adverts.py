"""Full nodes say that they are, and stop saying so when they are not, or have no room."""

from __future__ import annotations

import anyio

from dht_kademlia.node import Kademlia
from dht_kademlia.status import DhtStatus
from dht_kademlia.sync.adverts import fresh_adverts
from skycore.contracts.dht import Dht, DhtMode
from skycore.contracts.status import Health
from skycore.contracts.store import Items
from skycore.errors import QuotaError
from skycore.model.items import mutable_item_target


def status_of(node):
    return DhtStatus(node.get(Kademlia)).status()


async def full_nodes_as_seen_by(node):
    return sorted(await node.get(Dht).find_full_nodes())


async def advert_at(reader, public):
    """Return when the advert that a node holds says it was made, Unix ns; 0 for none."""
    adverts = {a.public: a for a in await fresh_adverts(reader.get(Kademlia))}
    return adverts[public].ts_ns if public in adverts else 0


async def test_m3_every_five_minutes_and_found_by_everybody(world, live):
    nodes = await live.start(world, 3)
    (visor,) = await world.spawn("visor")
    await anyio.sleep(30)
    public = sorted(n.public for n in nodes)
    for node in (*nodes, visor):
        assert await full_nodes_as_seen_by(node) == public
    first = await advert_at(nodes[1], nodes[0].public)
    await anyio.sleep(301)
    second = await advert_at(nodes[1], nodes[0].public)
    assert 299 <= (second - first) / 1e9 <= 302


async def test_o13_a_restarted_full_node_is_seen_at_once(world, live):
    nodes = await live.start(world, 3)
    await anyio.sleep(3_600)
    restarted = nodes[2]
    await world.kill(restarted)
    restarted.disk.clear()
    await anyio.sleep(60)
    await world.start(restarted)
    began_ns = restarted.clock.wall_ns()
    took = 0
    while await advert_at(nodes[0], restarted.public) < began_ns:
        await anyio.sleep(1)
        took += 1
        assert took < 30
    assert await full_nodes_as_seen_by(nodes[1]) == sorted(n.public for n in nodes)


async def test_a_full_node_by_a_switch_and_back(world, live):
    nodes = await live.start(world, 2)
    (visor,) = await world.spawn("visor")
    for n in range(30):
        await live.write_at(nodes[0], f"writer {n}")
    dht = visor.get(Dht)
    assert dht.mode is DhtMode.REGULAR
    await dht.set_mode(DhtMode.FULL)
    await world.until(lambda: live.standing(visor).is_advertised, limit_s=60)
    await live.equal(world, [*nodes, visor], limit_s=10)
    await world.until(lambda: live.links(nodes[0]) == 2, limit_s=310)
    item = await live.write_at(visor, "somebody")
    await anyio.sleep(5)
    assert await nodes[0].get(Items).get(item.target)
    assert visor.public in await full_nodes_as_seen_by(nodes[1])
    before = await live.contents(visor)
    await dht.set_mode(DhtMode.REGULAR)
    await anyio.sleep(30)
    assert live.links(visor) == 0
    assert visor.public not in await full_nodes_as_seen_by(nodes[1])
    assert set(before) <= set(await live.contents(visor))  # they stay until they end
    assert dht.mode is DhtMode.REGULAR


async def test_a_former_full_node_takes_its_advert_back_at_the_next_start(world, live):
    nodes = await live.start(world, 2)
    await world.stop(nodes[1])
    nodes[1].settings["dht_kademlia"] = {**nodes[1].settings["dht_kademlia"], "full_node": False}
    await world.start(nodes[1])
    await world.until(lambda: nodes[1].get(Dht).peer_count, limit_s=60)
    await nodes[1].get(Dht).sync(nodes[0].public)
    await anyio.sleep(400)
    assert await full_nodes_as_seen_by(nodes[0]) == [nodes[0].public]


async def test_c25_o23_a_loud_refusal_ends_the_advert_until_there_is_room(world, live):
    nodes = await live.start(world, 2)
    small = await world.full_node({"gate": {"items_max": 60}})
    await world.until(
        lambda: live.links(small) == 2 and live.standing(small).is_advertised, limit_s=60
    )
    items = [live.item_by(nodes[0], f"writer {n}", life_s=600) for n in range(100)]
    assert all(o.accepted for o in await nodes[0].get(Items).admit(items, sender=b"x" * 32))
    await anyio.sleep(30)
    status = await status_of(small)
    assert status.health is Health.DEGRADED
    assert "refuses new items: full" in status.summary
    assert await full_nodes_as_seen_by(nodes[1]) == sorted(n.public for n in nodes)
    usage = await small.get(Items).usage()
    assert sum(used.items for used in usage.values()) <= 62  # our own records always fit
    more = live.item_by(small, "one more")
    (outcome,) = await small.get(Items).admit([more], sender=nodes[0].public)
    assert outcome.code == QuotaError.code
    held = {i.target for i in items} & {t for t, _ in await live.contents(small)}
    assert len(held) > 50  # and nothing that was here was thrown away for it
    await anyio.sleep(900)
    assert (await status_of(small)).health is Health.OK
    assert small.public in await full_nodes_as_seen_by(nodes[1])
    assert await small.get(Items).get(mutable_item_target(small.public, b"fullnode"))


async def test_status_says_who_is_watched_and_how_late(world, live):
    nodes = await live.start(world, 2)
    await anyio.sleep(50)
    fields = (await status_of(nodes[0])).fields
    (watched,) = fields["watching"]
    assert watched["peer"] == nodes[1].public.hex()
    assert watched["live"]
    assert watched["lag_s"] <= 21
    assert fields["last_reconcile"]["complete"]
    assert fields["full_nodes"] == 1
    world.partition([nodes[0]], [nodes[1]])
    await anyio.sleep(70)
    (watched,) = (await status_of(nodes[0])).fields["watching"]
    assert not watched["live"]
    assert watched["lag_s"] >= 70
    assert watched["trouble"]

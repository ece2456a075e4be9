"""C45: what whole nodes on virtual time tell, read over HTTP as Prometheus reads it."""

from __future__ import annotations

import re

import anyio
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from skycore.contracts.dht import Dht
from skycore.contracts.http import HttpClient
from skycore.contracts.store import ItemKey, Items
from skycore.contracts.transport import Transports
from skycore.model.items import make_item
from skycore.testing import World, sim_backend

SALT = b"note"
ON = {
    "node": {"enable": ["http_server", "http_client", "metrics_prometheus"]},
    "http_server": {"listen": ":9080"},
    "metrics_prometheus": {"fresh_s": 0, "allow": ["10.0.0.0/8"], "process": False},
}


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=24 * 3_600)


async def scrape(node, path="/metrics"):
    """Return samples by name and labels: {"skycore_items{salt=note}": 1.0}."""
    response = await node.get(HttpClient).get(f"http://{node.address}:9080{path}")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(response.expect(200).body.decode()):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def record(node, text="", *, salt=SALT, life_s=7_000):
    """Sign a record of a node."""
    identity = node.node.identity
    return make_item(
        identity.network,
        identity.secret,
        salt=salt,
        seq=node.clock.wall_ns(),
        until=node.clock.wall_s() + life_s,
        v=text.encode(),
    )


async def pair(world, **visor):
    """Return a full node and a visor that know each other."""
    full = await world.full_node(ON)
    (node,) = await world.spawn("visor", settings={**ON, **visor})
    await world.until(lambda: node.get(Dht).peer_count and full.get(Dht).peer_count, limit_s=120)
    return full, node


async def test_c45_lookups_by_source_and_outcome():
    async with World(seed=1) as world:
        full, node = await pair(world)
        await node.get(Dht).put(record(node, "mine"))
        await full.get(Dht).put(record(full, "theirs"))
        dht, before = node.get(Dht), await scrape(node)
        await dht.get(node.public, SALT)
        await dht.get(node.public, b"none", local=True)
        for _ in range(2):
            await dht.get(full.public, SALT, age_max_s=0)
        await dht.get(full.public, b"none")
        after = await scrape(node)

        def rose(source, outcome):
            name = f"skycore_dht_lookups_total{{outcome={outcome},source={source}}}"
            return after.get(name, 0) - before.get(name, 0)

        assert rose("local", "found") == 1
        assert rose("local", "miss") == 1
        assert rose("one_hop", "found") == 2
        assert rose("one_hop", "miss") == 1
        total = sum(v for k, v in after.items() if k.startswith("skycore_dht_lookups_total"))
        assert total - sum(v for k, v in before.items() if "dht_lookups_total" in k) == 5


async def test_c45_staleness_of_served_reads():
    async with World(seed=2) as world:
        _, node = await pair(world, dht_kademlia={"local_age_max_s": 3_600})
        await node.get(Dht).put(record(node, "mine"))
        before = await scrape(node)
        await anyio.sleep(30)
        assert await node.get(Dht).get(node.public, SALT)
        after = await scrape(node)
        name = "skycore_dht_served_age_seconds"
        assert after[f"{name}_count"] - before[f"{name}_count"] == 1
        assert 30 <= after[f"{name}_sum"] - before[f"{name}_sum"] < 31
        assert after[f"{name}_bucket{{le=60.0}}"] - before[f"{name}_bucket{{le=15.0}}"] == 1
        await node.get(Dht).get(node.public, SALT, age_max_s=0)
        fresh = await scrape(node)
        assert fresh[f"{name}_sum"] - after[f"{name}_sum"] == pytest.approx(30, abs=1)


async def test_c45_replicas_per_put():
    async with World(seed=3) as world:
        _, node = await pair(world)
        before = await scrape(node)
        await node.get(Dht).put(record(node, "two nodes, two replicas"))
        after = await scrape(node)
        name = "skycore_dht_put_replicas"
        assert after[f"{name}_count"] - before[f"{name}_count"] == 1
        assert after[f"{name}_sum"] - before[f"{name}_sum"] == 2
        assert after[f"{name}_bucket{{le=1.0}}"] == before[f"{name}_bucket{{le=1.0}}"]
        assert after[f"{name}_bucket{{le=2.0}}"] == before[f"{name}_bucket{{le=2.0}}"] + 1


async def test_c45_sync_bytes():
    async with World(seed=4) as world:
        full, node = await pair(world)
        for n in range(5):
            await full.get(Dht).put(record(full, "x" * 500, salt=b"s%d" % n))
        before = await scrape(node)
        pulled = await node.get(Dht).sync()
        compared = await node.get(Dht).reconcile(full.public)
        assert pulled.received >= 5
        after = await scrape(node)
        for kind, report in (("pull", pulled), ("reconcile", compared)):
            name = f"skycore_dht_sync_bytes_total{{by={kind}}}"
            assert after[name] - before.get(name, 0) == report.bytes > 0
        async with node.get(Dht).watch(SALT) as changes:
            await anyio.sleep(5)
            news = record(full, "news" * 100)  # taken in there alone, so only the watch tells
            await full.get(Items).admit([news], sender=full.public)
            async for change in changes:
                assert change.item == news
                break
        moved = (await scrape(node))["skycore_dht_sync_bytes_total{by=watch}"]
        assert 400 < moved < 2_000


async def test_c45_watch_lag_and_reconcile_differences():
    async with World(seed=5) as world:
        one = await world.full_node(ON)
        other = await world.full_node(ON)
        await world.until(lambda: one.node and one.get(Dht).peer_count, limit_s=60)
        await anyio.sleep(60)
        row = f"{{peer={other.public.hex()[:8]},salt=}}"
        seen = await scrape(one)
        assert seen[f"skycore_dht_watch_up{row}"] == 1
        assert seen[f"skycore_dht_watch_lag_seconds{row}"] <= 30
        assert seen["skycore_dht_full_nodes"] == 1
        await other.get(Items).admit([record(other, "of one only")], sender=other.public)
        world.partition([one], [other])
        await other.get(Items).admit([record(other, "newer")], sender=other.public)
        await anyio.sleep(200)
        cut = await scrape(one)
        assert cut[f"skycore_dht_watch_up{row}"] == 0
        assert cut[f"skycore_dht_watch_lag_seconds{row}"] > 100
        world.heal()
        await world.until(lambda: one.get(Dht).peer_count, limit_s=600)
        report = await one.get(Dht).reconcile(other.public)
        told = await scrape(one)
        assert told["skycore_dht_reconcile_differences"] == report.different
        assert told["skycore_dht_reconcile_age_seconds"] < 5


async def test_c45_drops_and_rejects_by_reason():
    async with World(seed=6) as world:
        full, node = await pair(world, gate={"signer_items_max": 1})
        items, before = node.get(Items), await scrape(node)
        good = record(full, "good")
        forged = msgspec.structs.replace(good, sig=bytes(64))
        assert not (await items.admit([forged], sender=full.public))[0].accepted
        assert (await items.admit([good], sender=full.public))[0].accepted
        more = record(full, "over quota", salt=b"more")
        assert not (await items.admit([more], sender=full.public))[0].accepted
        (held,) = await items.get(good.target)
        assert await items.drop([ItemKey(good.target, held.item_class)]) == 1
        after = await scrape(node)

        def rose(name):
            return after.get(name, 0) - before.get(name, 0)

        assert rose("skycore_rejects_total{reason=InvalidSignatureError}") == 1
        assert rose("skycore_rejects_total{reason=QuotaError}") == 1
        assert rose("skycore_admitted_total{outcome=stored}") == 1
        assert rose("skycore_drops_total{reason=dropped}") == 1
        assert rose("skycore_drops_total{reason=expired}") == 0
        brief = record(node, "brief", salt=b"brief", life_s=60)
        assert (await items.admit([brief], sender=node.public))[0].accepted
        await anyio.sleep(200)
        assert (await scrape(node))["skycore_drops_total{reason=expired}"] >= 1


async def test_c45_table_size_transports_and_who_left():
    async with World(seed=7) as world:
        full, node = await pair(world)
        (third,) = await world.spawn("visor", settings=ON)
        await world.until(lambda: full.get(Dht).peer_count == 2, limit_s=120)
        seen = await scrape(full)
        assert seen["skycore_dht_peers"] == 2
        assert seen["skycore_transports{type=stcpr}"] == len(full.get(Transports).all()) == 2
        assert seen["skycore_transport_events_total{event=accepted}"] == 2
        assert seen["skycore_drops_total{reason=contacts_left}"] == 0
        await world.kill(third)
        await world.until(lambda: full.get(Dht).peer_count == 1, limit_s=7_200, step_s=10)
        gone = await scrape(full)
        assert gone["skycore_dht_peers"] == 1
        assert gone["skycore_drops_total{reason=contacts_left}"] == 1
        assert node.node


async def test_c45_items_and_bytes_by_salt_are_bounded():
    limited = {**ON["metrics_prometheus"], "salts_max": 1}
    async with World(seed=8) as world:
        _, node = await pair(world, metrics_prometheus=limited)
        items = node.get(Items)
        for n in range(4):
            await items.admit([record(node, "x" * 10, salt=b"s%d" % n)], sender=node.public)
        usage, seen = await items.usage(), await scrape(node)
        labels = [k for k in seen if k.startswith("skycore_items{")]
        assert len(labels) == 2
        assert sum(seen[k] for k in labels) == sum(u.items for u in usage.values())
        held = sum(v for k, v in seen.items() if k.startswith("skycore_item_bytes{"))
        assert held == sum(u.bytes for u in usage.values())


async def test_c45_requests_health_and_what_other_parts_count():
    async with World(seed=9) as world:
        full, node = await pair(world)
        await scrape(node)
        seen = await scrape(node)
        assert seen["skycore_http_requests_total{routes=metrics,status=200}"] == 1
        assert seen["skycore_part_health{health=ok,part=dht}"] == 1
        assert seen["skycore_part_health{health=down,part=dht}"] == 0
        assert seen["skycore_part_number{field=calls_served,part=dht}"] >= 0
        assert seen["skycore_part_number{field=streams,part=visor_rpc}"] >= 0
        build = [k for k in seen if k.startswith("skycore_build_info")]
        assert len(build) == 1
        assert "profile=visor" in build[0]
        assert seen["skycore_metrics_events_lost_total"] == 0
        assert not any(re.search("[0-9a-f]{16}", k) for k in seen), "a whole key is no label"
        assert full.node


async def test_c45_c46_what_differs_between_a_service_and_the_dht_is_a_number():
    """At the service, and at a full node that knows both sides; and which side carries a visor."""
    async with World(seed=12) as world:
        served = {
            **ON,
            "node": {
                "enable": [*ON["node"]["enable"], "registry_sqlite", "discovery_transport_server"]
            },
        }
        service = await world.full_node(served)
        both = {
            **ON,
            "node": {"enable": [*ON["node"]["enable"], "discovery_transport"]},
            "discovery_transport": {"url": f"http://{service.address}:9080/tpd"},
            "dht_kademlia": {"compare_interval_s": 60.0},
        }
        full = await world.full_node(both)
        await anyio.sleep(150)
        seen = await scrape(service)
        for field in ("differences", "feed_waiting", "feed_lag_s", "take_subjects", "take_broken"):
            row = f"skycore_part_number{{field={field},part=transport_discovery}}"
            assert seen[row] == 0, field
        seen = await scrape(full)
        assert seen["skycore_part_number{field=http_differences,part=dht}"] == 0
        assert seen["skycore_part_number{field=http_troubles,part=dht}"] == 0
        assert seen["skycore_part_number{field=http_compared_s_ago,part=dht}"] < 120
        assert [name for name in seen if "part=transport_registration" in name]


async def test_who_is_not_listed_reads_nothing():
    async with World(seed=10) as world:
        closed = {**ON, "metrics_prometheus": {"allow": ["192.168.0.0/16"]}}
        (node,) = await world.spawn("visor", settings=closed)
        client = node.get(HttpClient)
        response = await client.get(f"http://{node.address}:9080/metrics")
        assert response.status == 403
        assert b"[metrics_prometheus] allow" in response.body
        assert b"skycore_" not in response.body
        assert (await client.get(f"http://{node.address}:9080/health")).status == 200


async def test_one_collection_serves_all_scrapes_of_a_moment():
    async with World(seed=11) as world:
        (node,) = await world.spawn(
            "visor",
            settings={**ON, "metrics_prometheus": {"allow": ["10.0.0.0/8"], "fresh_s": 5}},
        )
        first = await scrape(node)
        assert await scrape(node) == first
        await anyio.sleep(6)
        assert await scrape(node) != first


async def test_the_mirror_profile_has_metrics_too():
    """A node without a DHT and without transports tells what it has."""
    async with World(seed=12) as world:
        node_settings = {**ON["node"], "disable": ["mirror_redis"]}
        (node,) = await world.spawn("mirror", settings={**ON, "node": node_settings})
        seen = await scrape(node)
        assert "skycore_dht_peers" not in seen
        assert seen["skycore_part_health{health=ok,part=http}"] == 1

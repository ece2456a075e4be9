"""Whole nodes on a Redis: full nodes that share one, and one whose Redis is away."""

from __future__ import annotations

import logging

import anyio
import pytest

from skycore.contracts.publish import Fact, Publisher
from skycore.contracts.status import StatusSource
from skycore.contracts.store import Items
from skycore.errors import StoreError, StoreUnsafeError
from skycore.node import Node
from skycore.testing.redisserver import RedisServer


def settings(server: RedisServer, **more):
    return {
        "node": {"enable": ["store_redis"], "disable": ["store_sqlite", "rpc_local"]},
        "transport_stcpr": {"listen": "127.0.0.1:0"},
        "store_redis": {"url": server.url, "timeout_s": 5, "retry_s": 0.05, **more},
    }


async def status_of(node, name):
    [source] = [s for s in node._parts[StatusSource] if s.name == name]
    return await source.status()


async def redis_status(node):
    return await status_of(node, "redis")


async def test_full_nodes_share_one_redis_and_see_each_others_records(redis):
    async with (
        Node.open("fullnode", settings(redis)) as one,
        Node.open("fullnode", settings(redis)) as two,
    ):
        items = two.get(Items)
        changed = items.changed()
        await one.get(Publisher).publish(Fact(b"note", b"hello"))
        with anyio.fail_after(5):
            await changed.wait()
        held = await items.usage()
        assert held[b"note"].items >= 1
        status = await redis_status(two)
        assert (status.fields["state"], status.health.value) == ("up", "ok")


async def test_m1_a_full_node_starts_answers_and_says_so_while_redis_is_away(tmp_path, caplog):
    server = RedisServer(tmp_path)
    caplog.set_level(logging.WARNING)
    async with Node.open("fullnode", settings(server)) as node:
        status = await redis_status(node)
        assert (status.fields["state"], status.health.value) == ("down", "down")
        assert status.fields["hint"]
        with pytest.raises(StoreError):
            await node.get(Items).usage()
        dht = await status_of(node, "dht")  # which answers all the same
        assert dht.health.value == "degraded"
        assert "the store is away: Redis at" in dht.summary
        assert "it cannot be reached" in dht.fields["store_trouble"]
        server.start()
        try:
            with anyio.fail_after(10):
                while (await redis_status(node)).fields["state"] != "up":
                    await anyio.sleep(0.02)
            await node.get(Items).usage()
            dht = await status_of(node, "dht")
            assert (dht.health.value, dht.fields["store_trouble"]) == ("ok", "")
        finally:
            server.stop()


async def test_m4_a_node_is_not_started_on_a_redis_that_evicts(own_redis):
    server = own_redis("--maxmemory-policy", "allkeys-lru")
    with pytest.raises(ExceptionGroup) as group:
        async with Node.open("fullnode", settings(server)):
            pass
    assert group.group_contains(StoreUnsafeError, match="allkeys-lru")

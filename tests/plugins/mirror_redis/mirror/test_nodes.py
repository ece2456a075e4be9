"""What a mirror writes, seen by whole nodes: two full nodes on its Redis, a visor by the DHT."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import anyio
import pytest

from skycore.contracts.dht import Dht
from skycore.contracts.publish import Fact, Publisher
from skycore.contracts.store import Items
from skycore.contracts.transport import Transports
from skycore.identity import network_constants
from skycore.model.delegation_token import encode_delegation
from skycore.model.items import Kind, make_delegation, mutable_item_target
from skycore.node import Node
from skycore.settings import NetworkSettings
from skycore.testing.fakes import identity

SERVED_MAX_S = 2.0
AUTHORITY = identity("authority").secret
KEYS = identity("me").network.suite
NETWORK = {"name": "shared", "authority": KEYS.public(AUTHORITY).hex()}


def full(url: str, *seeds: str) -> dict:
    return {
        "node": {"profile": "fullnode", "enable": ["store_redis"],
                 "disable": ["store_sqlite", "rpc_local"]},
        "network": NETWORK,
        "store_redis": {"url": url, "timeout_s": 10},
        "transport_stcpr": {"listen": "127.0.0.1:0"},
        "dht_kademlia": {"bootstrap": list(seeds)},
    }  # fmt: skip


def contact(node: Node) -> str:
    (address, *_) = node.get(Transports).listening()
    return f"{node.identity.public.hex()}@{address.endpoint}"


def mirror(url: str, secret) -> dict:
    network = network_constants(NetworkSettings(**NETWORK))
    until = int(time.time()) + 86_400
    token = make_delegation(network, AUTHORITY, KEYS.public(secret), b"dmsg", until)
    return {
        "node": {"profile": "mirror", "enable": ["store_memory"],
                 "disable": ["store_sqlite", "rpc_local"]},
        "network": NETWORK,
        "publisher": {"delegations": [encode_delegation(token)]},
        "mirror_redis": {"url": url, "timeout_s": 10},
    }  # fmt: skip


@pytest.fixture
async def nodes(redis):
    """A mirror, two full nodes on its Redis, and a visor that knows one of them."""
    secret = identity("service").secret
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(Node.open(settings=full(redis.url)))
        two = await stack.enter_async_context(Node.open(settings=full(redis.url, contact(one))))
        visor = await stack.enter_async_context(
            Node.open(
                settings={
                    "node": {"profile": "visor", "disable": ["rpc_local"]},
                    "network": NETWORK,
                    "transport_stcpr": {"listen": "127.0.0.1:0"},
                    "dht_kademlia": {"bootstrap": [contact(one)]},
                }
            )
        )
        service = await stack.enter_async_context(
            Node.open(settings=mirror(redis.url, secret), secret=secret)
        )
        with anyio.fail_after(20):
            while not (visor.get(Dht).peer_count and two.get(Dht).peer_count):
                await anyio.sleep(0.02)
        yield service, one, two, visor


def fact(service: Node, name: str, text: str | None) -> Fact:
    key = identity(name).public
    space = service.assembly.namespaces.find(b"dmsg")
    if text is None:
        return Fact(b"dmsg", None, key)
    value = space.from_json({"static": key.hex(), "client": {"delegated_servers": [text]}})
    return Fact(b"dmsg", value, key)


async def test_l4_c35_o19_from_a_mirror_to_a_visor_over_kademlia_and_to_its_watch(nodes):
    service, one, two, visor = nodes
    heard: set[tuple[bytes, int]] = set()

    async def watch(started: anyio.Event) -> None:
        async with visor.get(Dht).watch(b"dmsg") as changes:
            started.set()
            async for item in changes:
                heard.add((item.item.subject, item.item.kind))

    server = identity("server").public.hex()
    async with anyio.create_task_group() as tasks:
        started = anyio.Event()
        tasks.start_soon(watch, started)
        await started.wait()
        for number in range(4):  # at the first the watch may still be pulling
            new = fact(service, f"v{number}", server)
            await service.get(Publisher).publish(new)
            target = mutable_item_target(new.subject, b"dmsg")
            for node in (one, two):
                (held, *_) = await node.get(Items).get(target)
                assert held.item.v == new.v
            found = await visor.get(Dht).get(new.subject, b"dmsg", age_max_s=0)
            assert found is not None and found.item.v == new.v
            with anyio.fail_after(SERVED_MAX_S if number else 10):
                while (new.subject, Kind.VALUE) not in heard:
                    await anyio.sleep(0.01)
        gone = fact(service, "v0", None)
        await service.get(Publisher).publish(gone)
        with anyio.fail_after(SERVED_MAX_S):
            while (gone.subject, Kind.TOMBSTONE) not in heard:
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()


async def test_l4_get_items_brings_what_mirrors_wrote(nodes):
    service, _, two, visor = nodes
    server = identity("server").public.hex()
    facts = [fact(service, f"v{number}", server) for number in range(300)]
    await service.get(Publisher).publish_many(facts)
    report = await visor.get(Dht).sync(two.identity.public, b"dmsg")
    assert (report.complete, report.refused) == (True, 0)
    held = await visor.get(Items).listing(b"dmsg", bytes(32), b"\xff" * 32, 1_000)
    assert {stored.item.v for stored in held} == {each.v for each in facts}
    assert not service._parts.get(Transports)

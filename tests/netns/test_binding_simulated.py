"""What time does to bindings and links of whole visors: hours, rebinding, restarts, goodbyes."""

from __future__ import annotations

import asyncio
import json

import anyio
import msgspec
import pytest

from skycore.contracts.http import HttpClient
from skycore.contracts.transport import Transports
from skycore.discovery.signed import SignedClient, accepted
from skycore.errors import DialError
from skycore.model.sudph import Ask, Bind, Bound, Cookie, DialBack, bind_message, decode, encode
from skycore.testing import NatKind
from skycore.testing.fakes import identity


def url(country):
    return f"http://{country.resolver.address}:9080/ar"


async def signed(country, node, path):
    client = SignedClient(node.get(HttpClient), node.node.identity, url(country))
    return json.loads(accepted(await client.request("GET", path)).body)


async def test_m27_a_binding_by_udp_stands_in_every_answer(country, link):
    alice, bob = [await country.visor(NatKind.PORT_RESTRICTED) for _ in range(2)]
    await country.bound(alice, bob)
    seen = country.core.sessions.of_key(bob.public).address
    told = await signed(country, alice, f"/resolve/sudph/{bob.public.hex()}")
    assert told["remote_addr"] == "{}:{}".format(*seen)
    assert "addresses" not in told  # what is behind its router is for neighbours alone
    both = sorted(node.public.hex() for node in (alice, bob))
    assert (await signed(country, alice, "/transports"))["sudph"] == both
    client = alice.get(HttpClient)
    health = json.loads((await client.request("GET", f"{url(country)}/health")).body)
    assert health["udp_address"] == f"{country.resolver.address}:30178"


async def test_who_asks_by_http_has_the_other_side_called(country, monkeypatch):
    alice, bob = [await country.visor(NatKind.PORT_RESTRICTED) for _ in range(2)]
    await country.bound(alice, bob)
    called = []

    def watch(_post, _address, port, data, to):
        if port == 30_178 and isinstance(decode(data), DialBack):
            called.append((decode(data), to))
        return True

    monkeypatch.setattr(type(country.world.network.post), "send", watch)
    country.desk._watchers[0]("sudph", bob.public, alice.public)
    [(call, to)] = called
    assert call.dialler == alice.public and to == country.core.sessions.of_key(bob.public).address
    assert call.seen.endpoint == country.core.sessions.of_key(alice.public).address


async def test_t4921_a_link_outlives_an_hour_behind_nats_that_forget_after_30_s(country, link):
    nats = [
        country.world.network.nat(NatKind.PORT_RESTRICTED, f"203.0.113.{n}", mapping_s=30)
        for n in (1, 2)
    ]
    alice, bob = [await country.visor(nat) for nat in nats]
    await country.bound(alice, bob)
    up, _ = await link(alice, bob)
    was = [country.core.sessions.of_key(node.public).address for node in (alice, bob)]
    await anyio.sleep(3_600)
    assert not up.closed
    assert bob.get(Transports).find(alice.public) is not None
    assert [country.core.sessions.of_key(n.public).address for n in (alice, bob)] == was


async def test_t4098_a_binding_outlives_a_hundred_links(country, link):
    """Links count for nothing in it, so none that closes can take it away."""
    alice, bob = [await country.visor(NatKind.PORT_RESTRICTED, dht=False) for _ in range(2)]
    await country.bound(alice, bob)
    was = [country.core.sessions.of_key(node.public).token for node in (alice, bob)]
    for turn in range(100):
        up, _ = await link(*((alice, bob) if turn % 2 else (bob, alice)))
        await up.aclose("the next one")
        await anyio.sleep(0.5)
    ends = [node.get(Transports)._types["sudph"].endpoint for node in (alice, bob)]
    assert sum(end.counters["connection_accepted"] for end in ends) == 100
    now = [country.core.sessions.of_key(node.public).token for node in (alice, bob)]
    assert now == was and country.desk.find("sudph", bob.public) is not None


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.soak)])
async def test_t2242_binds_without_end_leave_no_task_behind(country, count):
    """A hundred keys that bind again and again, as after a resolver's flapping line."""
    keys = [identity(f"key {n}", country.resolver.node.identity.network) for n in range(100)]
    at = (country.resolver.address, 30_178)
    await anyio.sleep(60)
    async with country.world.network.host("10.99.0.1").open_udp("", 9) as socket:

        async def answer(question, kind):
            with anyio.fail_after(60):
                while True:
                    socket.send(encode(question), at)
                    with anyio.move_on_after(1):
                        for data, _ in await socket.receive():
                            if isinstance(decode(data), kind):
                                return decode(data)

        tasks = 0
        for turn in range(count):
            who = keys[turn % len(keys)]
            cookie = (await answer(Ask(turn.to_bytes(8, "big")), Cookie)).cookie
            bind = Bind(who.public, cookie, turn.to_bytes(8, "big"), 0, (), bytes(64))
            text = bind_message(who.network.id, bind)
            await answer(msgspec.structs.replace(bind, signature=who.sign(text)), Bound)
            if turn == len(keys):
                tasks = len(asyncio.all_tasks())
            await anyio.sleep(0.1)
    assert len(country.core.sessions) == len(keys)
    assert len(asyncio.all_tasks()) <= tasks


async def test_u9_a_binding_follows_its_nat_within_seconds(country, link):
    alice, bob = [await country.visor(NatKind.FULL_CONE) for _ in range(2)]
    await country.bound(alice, bob)
    was = country.core.sessions.of_key(bob.public).address
    bob.nat.rebind()

    def moved():
        session = country.core.sessions.of_key(bob.public)
        return session is not None and session.address != was

    assert await country.world.until(moved, limit_s=15) <= 15
    up, _ = await link(alice, bob)
    assert up.type == "sudph"
    assert country.core.counters["rebound"] >= 1


async def test_t3106_a_resolver_that_restarts_has_all_visors_again_within_70_s(country, link):
    visors = [await country.visor(kind, dht=False) for kind in (*NatKind, None)]
    await country.bound(*visors[:4])
    for silence_s in (0, 120):
        await country.world.kill(country.resolver)
        await anyio.sleep(silence_s)
        await country.world.start(country.resolver)
        assert len(country.core.sessions) == 0
        assert await country.bound(*visors[:4]) <= 70
    assert (await link(visors[0], visors[2]))[0].type == "sudph"


async def test_a_visor_that_stops_is_unbound_at_once_and_one_that_dies_when_it_is_silent(country):
    alice, bob = [await country.visor(NatKind.PORT_RESTRICTED) for _ in range(2)]
    await country.bound(alice, bob)
    await country.world.stop(alice)
    await anyio.sleep(1)
    assert country.desk.find("sudph", alice.public) is None
    await country.world.kill(bob)
    await anyio.sleep(30)
    assert country.desk.find("sudph", bob.public) is not None
    await anyio.sleep(15)
    assert country.desk.find("sudph", bob.public) is None
    assert country.core.counters["expired"] == 1


async def test_u17_a_peer_that_vanishes_is_noticed(country, link):
    alice, bob = [await country.visor(NatKind.PORT_RESTRICTED) for _ in range(2)]
    await country.bound(alice, bob)
    up, _ = await link(alice, bob)
    country.world.network.isolate(bob.address)
    with anyio.fail_after(30):
        await up.wait_silent()
    assert alice.get(Transports).find(bob.public) is None  # nobody is given it any more
    assert await country.world.until(lambda: up.closed, limit_s=45) <= 45


@pytest.mark.parametrize("outage_s", [6, 10, 20, 29])
async def test_u7_the_link_is_there_within_3_s_of_healing(country, link, outage_s):
    """No outage below 30 s ends it; who asks while it is silent may get another one."""
    alice, bob = [await country.visor(NatKind.PORT_RESTRICTED) for _ in range(2)]
    await country.bound(alice, bob)
    first, _ = await link(alice, bob)
    country.world.network.isolate(bob.address)
    await anyio.sleep(outage_s)
    country.world.heal()
    was_silent = first.is_silent
    up, took_s = await link(alice, bob)
    assert up.type == "sudph" and took_s <= 3
    assert not first.closed and (was_silent or up is first)


async def test_a_key_that_is_bound_nowhere_is_told_in_two_seconds(country, link):
    alice, ghost = await country.visor(), await country.visor()
    await country.world.stop(ghost)
    began = anyio.current_time()
    with pytest.raises(DialError):
        await link(alice, ghost)
    assert anyio.current_time() - began <= 10

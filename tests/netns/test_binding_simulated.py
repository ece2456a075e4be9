"""What time does to bindings and links of whole visors: hours, rebinding, restarts, goodbyes."""

from __future__ import annotations

import json

import anyio
import pytest

from skycore.contracts.http import HttpClient
from skycore.contracts.transport import Transports
from skycore.discovery.signed import SignedClient, accepted
from skycore.errors import DialError
from skycore.model.sudph import DialBack, decode
from skycore.testing import NatKind


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
    assert await country.world.until(lambda: up.closed, limit_s=30) <= 30


@pytest.mark.parametrize("outage_s", [6, 10, 20])
async def test_u7_an_outage_ends_with_a_link_within_3_s_of_healing(country, link, outage_s):
    """The manager ends a link after 10 to 17 s without a pong; then it is dialled anew."""
    alice, bob = [await country.visor(NatKind.PORT_RESTRICTED) for _ in range(2)]
    await country.bound(alice, bob)
    first, _ = await link(alice, bob)
    country.world.network.isolate(bob.address)
    await anyio.sleep(outage_s)
    country.world.heal()
    up, took_s = await link(alice, bob)
    assert up.type == "sudph" and took_s <= 3
    if outage_s < 10:
        assert up is first and not first.closed


async def test_a_key_that_is_bound_nowhere_is_told_in_two_seconds(country, link):
    alice, ghost = await country.visor(), await country.visor()
    await country.world.stop(ghost)
    began = anyio.current_time()
    with pytest.raises(DialError):
        await link(alice, ghost)
    assert anyio.current_time() - began <= 10

"""What becomes of relays' users when somebody goes: in good order, killed, or for ever."""

from __future__ import annotations

import anyio
import pytest

from relay_dmsg.client.service import DmsgClient
from relay_dmsg.server.relay import Relay
from skycore.contracts.dht import Dht
from skycore.contracts.rpc import Caller, Rpc
from skycore.contracts.streams import Service, Streams
from skycore.contracts.transport import Transports
from skycore.errors import SkycoreError, StreamError
from skycore.model.items import Kind
from skycore.testing.nat import NatKind

SERVER = {"node": {"enable": ["dmsg_server"]}}
NAT = NatKind.SYMMETRIC


def hidden(*servers, **more):
    """Return settings of a visor that takes no connections but through relays."""
    return {
        "node": {"enable": ["dmsg_client"], "disable": ["transport_sudph"]},
        "dmsg_client": {"servers": [s.contact for s in servers], **more},
        "transport_stcpr": {"listen": ""},
    }


def sessions(node):
    return set(node.get(DmsgClient).keeper.sessions) if node.node else set()


async def attached(world, *nodes, count=1, limit_s=15):
    return await world.until(
        lambda: all(len(sessions(n)) >= count for n in nodes), limit_s=limit_s, what="attached"
    )


async def echoes(bob, service):
    """Send back what comes on streams of a service."""

    async def one(stream):
        try:
            while data := await stream.receive():
                await stream.send(data)
        except StreamError:
            pass

    async with (
        bob.get(Streams).listen(service) as listener,
        anyio.create_task_group() as tasks,
    ):
        while True:
            tasks.start_soon(one, await listener.accept())


async def answers(alice, bob, service):
    """Tell whether a stream to bob carries bytes there and back, within a second."""
    with anyio.move_on_after(1):
        try:
            stream = await alice.get(Streams).dial(bob.public, service)
            await stream.send(b"there?")
            return await stream.receive() == b"there?"
        except SkycoreError:
            await anyio.sleep(0.1)
    return False


async def test_t2942_a_killed_server_and_streams_to_live_peers_in_ten_seconds(world):
    """From the kill to the first byte that came back, with a new session beside the other one."""
    one, two, three = await world.spawn("fullnode", n=3, settings=SERVER)
    alice, bob = await world.spawn(
        "visor", n=2, settings=hidden(one, two, sessions_max=2), nat=NAT, seeds=[two]
    )
    for node in (alice, bob):
        node.get(DmsgClient).servers.learn(three.public, f"{three.address}:7777")
    await attached(world, alice, bob, count=2)
    service = Service("test", 200, 1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(echoes, bob, service)
        await anyio.sleep(0.1)
        assert await answers(alice, bob, service)
        splices = {n.public: len(n.get(Relay).splices) for n in (one, two)}
        victim = one if splices[one.public] else two
        await world.kill(victim)
        began = anyio.current_time()
        while not await answers(alice, bob, service):
            assert anyio.current_time() - began < 10
        assert anyio.current_time() - began < 10
        await world.until(
            lambda: all(len(sessions(n) - {victim.public}) == 2 for n in (alice, bob)),
            limit_s=10 - (anyio.current_time() - began),
            what="a new session",
        )
        tasks.cancel_scope.cancel()


async def test_t4936_streams_over_a_lost_relay_all_end_within_a_second(world):
    """27 streams hung in a read upstream."""
    server = await world.full_node(SERVER)
    alice, bob = await world.spawn("visor", n=2, settings=hidden(server), nat=NAT, seeds=[])
    await attached(world, alice, bob)
    service, ended = Service("test", 200, 1), []

    async def read(stream):
        try:
            while await stream.receive():
                pass
        except StreamError:
            pass
        ended.append(anyio.current_time())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(echoes, bob, service)
        await anyio.sleep(0.1)
        for _ in range(27):
            tasks.start_soon(read, await alice.get(Streams).dial(bob.public, service))
        assert alice.get(Transports).find(bob.public).type == "dmsg"
        await world.kill(server)
        began = anyio.current_time()
        await world.until(lambda: len(ended) == 27, limit_s=2, what="their end")
        assert max(ended) - began <= 1
        assert alice.get(Transports).find(bob.public) is None
        tasks.cancel_scope.cancel()


async def test_c43_a_server_that_stops_is_listed_no_more(world):
    """It takes its record back: visors do not dial it until its lease ends."""
    keeper = await world.full_node({"node": {"disable": ["dmsg_server"]}})
    server = await world.full_node(SERVER)
    await anyio.sleep(30)
    found = await keeper.get(Dht).get(server.public, b"dmsg-server", age_max_s=0)
    assert found.item.kind == Kind.VALUE
    (alice,) = await world.spawn("visor", settings=hidden(server), nat=NAT, seeds=[keeper])
    await attached(world, alice)
    await world.stop(server)
    assert await world.until(lambda: not sessions(alice), limit_s=1) <= 1
    assert "STOPPING" in alice.get(DmsgClient).servers.find(server.public).trouble
    found = await keeper.get(Dht).get(server.public, b"dmsg-server", age_max_s=0)
    assert found is None or found.item.kind != Kind.VALUE
    (late,) = await world.spawn("visor", settings=hidden(), nat=NAT, seeds=[keeper])
    await anyio.sleep(300)
    assert late.get(DmsgClient).servers.find(server.public) is None
    assert not late.get(DmsgClient).counters["attempts"]
    await world.start(server)
    await attached(world, alice, late, limit_s=340)


async def test_t4475_a_dead_destination_is_dialled_ever_more_rarely(world):
    """A loop of dials took 92 % of a core upstream: whoever asks every second waits for a turn."""
    server = await world.full_node(SERVER)
    alice, bob = await world.spawn("visor", n=2, settings=hidden(server), nat=NAT)
    await attached(world, alice, bob)
    await world.kill(bob)
    await anyio.sleep(30)
    relay = server.get(Relay)
    before = relay.counters["dials"]
    for _ in range(600):
        with pytest.raises(SkycoreError):
            await alice.get(Transports).ensure(bob.public)
        await anyio.sleep(1)
    assert relay.counters["dials"] - before <= 60, relay.counters
    assert relay.counters["refused_not_attached"] >= relay.counters["dials"] - before


async def test_t3060_twenty_idle_minutes_and_the_relayed_link_still_carries(world):
    """A sticky deadline ended idle links upstream (#3933)."""
    server = await world.full_node(SERVER)
    alice, bob = await world.spawn("visor", n=2, settings=hidden(server), nat=NAT, seeds=[])
    await attached(world, alice, bob)
    link = await alice.get(Transports).ensure(bob.public, "user")
    await anyio.sleep(1_200)
    assert not link.closed and alice.get(Transports).find(bob.public) is link
    with pytest.raises(SkycoreError, match=r"authorised|whitelist"):
        arguments = {"remote": bob.public.hex(), "method": "Overview", "params": {}}
        await alice.get(Rpc).call(Caller(), "visor.tp_rpc", arguments)


async def test_t3181_a_start_waits_for_no_relay(world):
    """Blocked on unreachable services upstream: the node is up while nothing of them is."""
    gone = world.prepare("fullnode", settings=SERVER)[0]
    (alice,) = world.prepare("visor", settings=hidden(gone), nat=NAT, seeds=[])
    began = anyio.current_time()
    await world.start(alice)
    assert anyio.current_time() - began <= 2
    await anyio.sleep(60)
    before = anyio.current_time()
    with pytest.raises(SkycoreError):
        await alice.get(Transports).ensure(gone.public)
    assert anyio.current_time() - before <= 10
    await world.start(gone)
    await attached(world, alice, limit_s=75)


async def test_f13_links_of_one_address_push_out_no_session(world):
    """A server with room for eight links, and fourteen nodes behind one NAT that want some."""
    server = await world.full_node({**SERVER, "transports": {"transports_max": 8}})
    (alice,) = await world.spawn("visor", settings=hidden(server), nat=NAT, seeds=[])
    await attached(world, alice)
    await world.spawn(
        "visor",
        n=14,
        settings={
            "node": {"disable": ["dmsg_client", "transport_sudph"]},
            "transport_stcpr": {"listen": ""},
        },
        nat=world.network.nat(NAT, "100.9.9.9"),
    )
    relay, links = server.get(Relay), server.get(Transports)
    for _ in range(60):
        await anyio.sleep(5)
        assert len(links.all()) <= 8 and sessions(alice) == {server.public}
    assert relay.counters["attached"] == 1 and len(relay.sessions) == 1
    assert sum(link.host == "100.9.9.9" for link in links.all()) >= 6

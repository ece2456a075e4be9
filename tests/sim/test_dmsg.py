"""DMSG in worlds: visors behind NATs, relays, and what becomes of them in trouble."""

from __future__ import annotations

import anyio
import pytest

from relay_dmsg.client.door import Door
from relay_dmsg.client.service import DmsgClient
from relay_dmsg.server.relay import Relay
from relay_dmsg.splice import Splice
from skycore.contracts.dht import Dht
from skycore.contracts.rpc import Caller, Rpc
from skycore.contracts.streams import Service, Streams
from skycore.contracts.transport import Transports
from skycore.errors import SkycoreError, StreamError
from skycore.model.items import make_item
from skycore.model.numbers import PacketType
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


def dmsg(node):
    return node.get(DmsgClient)


def sessions(node):
    """Return the keys of the servers that a running node is attached to."""
    return set(dmsg(node).keeper.sessions) if node.node else set()


async def attached(world, *nodes, count=1, limit_s=15):
    return await world.until(
        lambda: all(len(sessions(n)) >= count for n in nodes), limit_s=limit_s, what="attached"
    )


async def call(node, remote, method="Overview"):
    """Call a method of another node over a transport."""
    arguments = {"remote": remote.public.hex(), "method": method, "params": {}}
    return await node.get(Rpc).call(Caller(), "visor.tp_rpc", arguments)


async def talks(world, one, other, limit_s):
    """Wait until one reaches the other; return the seconds."""
    began = anyio.current_time()
    while True:
        try:
            await one.get(Transports).ensure(other.public, "user")
            return anyio.current_time() - began
        except SkycoreError as failed:
            assert anyio.current_time() - began < limit_s, failed
            world.check()
            await anyio.sleep(0.2)


async def test_two_visors_behind_nats_talk_through_a_relay(world):
    server = await world.full_node(SERVER)
    alice, bob = await world.spawn("visor", n=2, settings=hidden(server), nat=NAT)
    await attached(world, alice, bob)
    link = await alice.get(Transports).ensure(bob.public, "user")
    assert link.type == "dmsg"
    await world.until(lambda: bob.get(Transports).find(alice.public), limit_s=5)
    identity = alice.node.identity
    item = make_item(
        identity.network,
        identity.secret,
        salt=b"note",
        seq=alice.clock.wall_ns(),
        until=alice.clock.wall_s() + 600,
        v=b"hello",
    )
    await alice.get(Dht).put(item)
    found = await bob.get(Dht).get(alice.public, b"note", age_max_s=0)
    assert found.item.v == b"hello"


async def test_2810_rpc_works_through_a_relay(world):
    """Upstream's RPC over transports never worked while its tests were green (#2810)."""
    server = await world.full_node(SERVER)
    (alice,) = await world.spawn("visor", settings=hidden(server), nat=NAT)
    (bob,) = world.prepare("visor", settings=hidden(server), nat=NAT)
    bob.settings["access_whitelist"] = {"hypervisors": [alice.public.hex()]}
    await world.start(bob)
    await attached(world, alice, bob)
    answer = await call(alice, bob)
    assert answer["public_key"] == bob.public.hex()
    assert alice.get(Transports).find(bob.public).type == "dmsg"


async def test_servers_are_found_in_the_dht_alone(world):
    """M13, M14: no configuration, no HTTP; a server's record is enough."""
    server = await world.full_node(SERVER)
    await anyio.sleep(10)
    (alice,) = await world.spawn("visor", settings=hidden(), nat=NAT)
    assert await attached(world, alice, limit_s=30) <= 30
    assert sessions(alice) == {server.public}


async def test_l16_what_a_node_says_of_its_servers_leads_to_it(world):
    """Alice and bob have no server in common; bob's record `dmsg` says through whom he is."""
    seed = await world.full_node()
    one, two = await world.spawn("fullnode", n=2, settings=SERVER)
    just_one = {"sessions_min": 1}
    (alice,) = await world.spawn("visor", settings=hidden(one, **just_one), nat=NAT, seeds=[seed])
    (bob,) = await world.spawn("visor", settings=hidden(two, **just_one), nat=NAT, seeds=[seed])
    await attached(world, alice, bob)
    assert (sessions(alice), sessions(bob)) == ({one.public}, {two.public})
    await anyio.sleep(5)
    (address,) = await alice.get(Door).find(bob.public)
    assert address.endpoint == two.contact
    alice.get(Transports).addresses.forget(bob.public)
    assert await talks(world, alice, bob, limit_s=20) <= 20
    assert alice.get(Transports).find(bob.public).type == "dmsg"


async def test_m13_a_server_is_reached_over_the_session_that_exists(world):
    """Its own record says "server" and names no servers of its own: the session is a transport."""
    server = await world.full_node(SERVER)
    (alice,) = await world.spawn("visor", settings=hidden(server), nat=NAT, seeds=[])
    await attached(world, alice)
    before = world.network.connections(alice.address)
    link = await alice.get(Transports).ensure(server.public)
    assert link.type == "stcpr" and world.network.connections(alice.address) == before


async def test_c43_into_the_dht_with_nothing_but_a_server(world):
    """M14, C43: no bootstrap list, no discovery; from cold start to the first answer in 5 s."""
    server = await world.full_node(SERVER)
    writer = await world.full_node()
    await anyio.sleep(10)
    (alice,) = world.prepare("visor", settings=hidden(server), nat=NAT, seeds=[])
    began = anyio.current_time()
    await world.start(alice)
    await world.until(lambda: alice.get(Dht).peer_count, limit_s=5)
    found = await alice.get(Dht).get(writer.public, b"fullnode")
    assert found and anyio.current_time() - began < 5


def channels(node):
    """Return how many streams between a node and relays, or clients, are not over."""
    found = 0
    for carrier in node.get(Streams)._carriers.values():
        for kind in (PacketType.DMSG_SERVER, PacketType.DMSG_CLIENT):
            link = carrier.links.get(kind)
            found += len(link.session.channels) if link is not None else 0
    return found


async def test_sessions_are_bounded_for_an_address_as_the_network_shows_it(world):
    """Behind one NAT all have one address; upstream's limit leaked a socket for each refusal."""
    more = {**SERVER, "dmsg_server": {"sessions_per_host_max": 2}}
    server = await world.full_node(more)
    nat = world.network.nat(NAT, "100.0.0.1")
    three = await world.spawn("visor", n=3, settings=hidden(server), nat=nat)
    await world.until(lambda: sum(len(sessions(n)) for n in three) == 2, limit_s=10)
    await anyio.sleep(60)
    assert sorted(len(sessions(n)) for n in three) == [0, 1, 1]
    hosts = {t.host for t in server.get(Transports).all()}
    assert hosts == {"100.0.0.1"}
    refused = next(n for n in three if not sessions(n))
    assert "LIMIT" in dmsg(refused).servers.find(server.public).trouble


async def test_failed_and_finished_dials_leave_no_stream_behind(world):
    """Each failed forward leaked 600 KB upstream; 20,000 workers waited for ever (#2294)."""
    server = await world.full_node(SERVER)
    off = {"dht_kademlia": {"bootstrap": []}}
    settings = {**hidden(server), **off}
    alice, bob = await world.spawn("visor", n=2, settings=settings, nat=NAT, seeds=[])
    await attached(world, alice, bob)
    await anyio.sleep(30)
    before = [channels(n) for n in (server, alice, bob)]
    door, nobody = alice.get(Door), world.prepare("visor")[0].public
    for turn in range(150):
        if turn % 3 == 0:
            with pytest.raises(SkycoreError):
                await door.dial(nobody, ())
        elif turn % 3 == 1:
            with anyio.move_on_after(0.002 * turn):
                await (await door.dial(bob.public, ())).aclose()
        else:
            stream = await door.dial(bob.public, ())
            await stream.send(b"no handshake" * 10)
            await stream.aclose()
    await anyio.sleep(30)
    assert [channels(n) for n in (server, alice, bob)] == before
    relay = server.get(Relay)
    assert not relay.splices and not relay.places.taken and len(relay.sessions) == 2


async def test_4925_both_dial_at_once_and_one_link_lives(world):
    server = await world.full_node(SERVER)
    alice, bob = await world.spawn("visor", n=2, settings=hidden(server), nat=NAT, seeds=[])
    await attached(world, alice, bob)
    for _ in range(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(alice.get(Transports).ensure, bob.public, "user")
            tasks.start_soon(bob.get(Transports).ensure, alice.public, "user")
        await anyio.sleep(30)
        links = [
            [t for t in one.get(Transports).all() if t.remote == other.public]
            for one, other in ((alice, bob), (bob, alice))
        ]
        assert [len(found) for found in links] == [1, 1]
        assert links[0][0].dialled is not links[1][0].dialled
        assert len(server.get(Relay).splices) == 1
        await links[0][0].aclose("again")
        await anyio.sleep(1)


async def test_servers_that_are_clients_of_each_other_do_not_flap(world):
    """Mutual peers refused each other's announcements several times a second (Sept 2026)."""
    both = {"node": {"enable": ["dmsg_server", "dmsg_client"]}}
    (one,) = world.prepare("fullnode", settings=both)
    (two,) = world.prepare("fullnode", settings=both)
    for node, other in ((one, two), (two, one)):
        node.settings["dmsg_client"] = {"servers": [other.contact]}
        await world.start(node)
    await attached(world, one, two)
    await anyio.sleep(3_600)
    assert sessions(one) == {two.public} and sessions(two) == {one.public}
    counts = [n.get(Relay).counters["attached"] for n in (one, two)]
    assert max(counts) <= 3, counts


async def test_m29_a_network_of_relays_alone(world, notes):
    """Three full nodes that relay, visors behind NATs, no HTTP: a newcomer finds all of them."""
    first = await world.full_node(SERVER)
    for _ in range(2):
        await world.full_node(SERVER)
    visors = await world.spawn("visor", n=6, settings=hidden(), nat=NAT, pause_s=1.0)
    await attached(world, *visors, count=2, limit_s=60)
    for visor in visors:
        assert await notes.write(visor, f"by {visor.name}")
    (late,) = await world.spawn("visor", settings=hidden(), nat=NAT, seeds=[first])
    await attached(world, late, count=2, limit_s=30)
    await notes.converge(world, [late, *visors], limit_s=120)
    for visor in visors:
        assert await talks(world, late, visor, limit_s=15) <= 15
        assert late.get(Transports).find(visor.public).type == "dmsg"
        found = await late.get(Dht).get(visor.public, b"dmsg")
        assert found.item.signer == visor.public


async def test_direct_is_preferred(world):
    """A relay is the last resort: who takes connections is connected to."""
    server = await world.full_node(SERVER)
    (alice,) = await world.spawn("visor", settings=hidden(server), nat=NAT)
    more = {**hidden(server), "transport_stcpr": {}}
    (open_one,) = world.prepare("visor", settings=more)
    open_one.settings["transport_stcpr"]["listen"] = f"{open_one.address}:7777"
    await world.start(open_one)
    await attached(world, alice, open_one)
    await world.until(lambda: alice.get(Transports).find(open_one.public), limit_s=60)
    assert alice.get(Transports).find(open_one.public).type == "stcpr"


@pytest.mark.parametrize("how", ["kill", "power_off"])
async def test_2942_a_server_that_is_gone_is_replaced(world, how):
    """Killed: streams to live peers work again in 10 s. Silent: noticed in 20 s (#2942)."""
    seed = await world.full_node()
    one, two, three = await world.spawn("fullnode", n=3, settings=SERVER)
    alice, bob = await world.spawn(
        "visor",
        n=2,
        settings=hidden(one, two, sessions_max=2, sessions_min=2),
        nat=NAT,
        seeds=[seed],
    )
    for node in (alice, bob):
        dmsg(node).servers.learn(three.public, f"{three.address}:7777")
    await attached(world, alice, bob, count=2)
    await talks(world, alice, bob, limit_s=5)
    if how == "kill":
        await world.kill(one)
    else:
        world.network.power_off(one.address)
    noticed = 0 if how == "kill" else 20
    took = await world.until(
        lambda: all(len(sessions(n) - {one.public}) == 2 for n in (alice, bob)),
        limit_s=noticed + 10,
        what="another server",
    )
    assert took <= noticed + 10
    await talks(world, alice, bob, limit_s=10)
    link = alice.get(Transports).find(bob.public)
    rows = await link_works(alice, bob)
    assert link.type == "dmsg" and rows


async def link_works(one, other):
    """Tell whether bytes go through, by a DHT call."""
    try:
        await call(one, other)
    except SkycoreError as refused:
        return "authorised" in str(refused) or "whitelist" in str(refused)
    return True


async def test_the_only_server_restarts(world):
    """It comes back under its key: clients attach again within 10 s of its return."""
    server = await world.full_node(SERVER)
    alice, bob = await world.spawn("visor", n=2, settings=hidden(server), nat=NAT)
    await attached(world, alice, bob)
    await talks(world, alice, bob, limit_s=5)
    await world.kill(server)
    await world.until(lambda: not sessions(alice) and not sessions(bob), limit_s=5)
    await anyio.sleep(3)
    await world.start(server)
    await attached(world, alice, bob, limit_s=10)
    assert await talks(world, alice, bob, limit_s=10) <= 10


@pytest.mark.parametrize("order", ["server alice bob", "alice server bob", "alice bob server"])
async def test_c40_any_order_of_starts(world, order):
    """A client that starts before its server waits seconds for it, not minutes (C40, C55)."""
    (server,) = world.prepare("fullnode", settings=SERVER)
    alice, bob = world.prepare("visor", 2, settings=hidden(server), nat=NAT)
    nodes = {"server": server, "alice": alice, "bob": bob}
    for name in order.split():
        await world.start(nodes[name])
        await anyio.sleep(4)
    await attached(world, alice, bob, limit_s=15)
    assert await talks(world, alice, bob, limit_s=10) <= 10


async def test_3810_a_quiet_node_redials_nothing_in_an_hour(world):
    """The idle reaper and the redial loop fought (#3810, #4670)."""
    server = await world.full_node(SERVER)
    (alice,) = await world.spawn("visor", settings=hidden(server, sessions_min=1), nat=NAT)
    await attached(world, alice)
    await anyio.sleep(60)
    relay, client = server.get(Relay), dmsg(alice)
    before = (relay.counters["attached"], client.counters["attempts"], client.counters["seeks"])
    up_since = client.keeper.sessions[server.public].since
    await anyio.sleep(3_600)
    after = (relay.counters["attached"], client.counters["attempts"], client.counters["seeks"])
    assert after == before
    assert client.keeper.sessions[server.public].since == up_since
    kinds = [t.label for t in server.get(Transports).all() if t.remote == alice.public]
    assert kinds == ["ephemeral"]  # a session is registered nowhere


async def test_m13_servers_are_remembered_over_a_restart(world):
    """Found once in the DHT; after a restart without anybody to ask, remembered."""
    server = await world.full_node(SERVER)
    await anyio.sleep(10)
    (alice,) = await world.spawn("visor", settings=hidden(), nat=NAT)
    await attached(world, alice, limit_s=30)
    await world.stop(alice)
    alice.settings["dht_kademlia"] = {"bootstrap": []}
    alice.disk.pop("routing_table.msgpack", None)
    await world.start(alice)
    assert await attached(world, alice, limit_s=5) <= 5
    assert sessions(alice) == {server.public}


async def test_what_a_server_says_of_itself(world):
    """Its record `dmsg-server`, with dht_bootstrap for a full node; renewed, not signed anew."""
    server = await world.full_node(SERVER)
    other = await world.full_node()
    await anyio.sleep(30)
    found = await other.get(Dht).get(server.public, b"dmsg-server", age_max_s=0)
    entry = server.node.get(Relay)
    assert entry is not None and found is not None
    first = found.item
    await anyio.sleep(900)
    again = await other.get(Dht).get(server.public, b"dmsg-server", age_max_s=0)
    assert again.item.seq == first.seq and again.until >= found.until
    assert server.address.encode() in first.v


class Tapped(Splice):
    """A relay that keeps what it sees, and does as `meddle` says: chunk in, chunks out."""

    seen: bytearray
    meddle: object

    async def _move(self, source, target, meter):
        count = 0
        try:
            while data := await source.receive(65_536):
                self.seen += data
                count += 1
                for piece in self.meddle(count, data):
                    await target.send(piece)
            await target.send_eof()
        except StreamError as lost:
            self.end(str(lost))


def flip(count, data):
    broken = bytearray(data)
    broken[len(data) // 2] ^= 1
    return [bytes(broken)]


MEDDLING = {
    "reads": lambda count, data: [data],
    "alters the handshake": flip,
    "alters later": lambda count, data: flip(count, data) if count > 6 else [data],
    "replays": lambda count, data: [data, data] if count > 6 else [data],
    "drops": lambda count, data: [] if count > 6 else [data],
    "cuts": lambda count, data: [data[:-1]] if count > 6 else [data],
    "adds": lambda count, data: [data, b"\0\x20" + bytes(32)] if count > 6 else [data],
}


@pytest.mark.parametrize("how", MEDDLING)
async def test_a_hostile_relay_is_caught_or_harmless(world, how, monkeypatch):
    """It sees sizes and times; whatever it changes ends the link, and nothing wrong is believed."""
    secret = b"for bob's eyes only, said many times over"
    seen = bytearray()
    tapped = type("Tapped", (Tapped,), {"seen": seen, "meddle": staticmethod(MEDDLING[how])})
    server = await world.full_node(SERVER)
    alice, bob = await world.spawn("visor", n=2, settings=hidden(server), nat=NAT, seeds=[])
    await attached(world, alice, bob)
    monkeypatch.setattr("relay_dmsg.server.relay.Splice", tapped)
    got, broken = [], []
    service = Service("test", 200, 1)

    async def listen():
        async with bob.get(Streams).listen(service) as listener:
            while True:
                tasks.start_soon(read, await listener.accept())

    async def read(stream):
        try:
            while data := await stream.receive():
                got.append(data)
        except StreamError as end:
            broken.append(str(end))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await anyio.sleep(0)
        try:
            with anyio.move_on_after(60):
                stream = await alice.get(Streams).dial(bob.public, service)
                for _ in range(40):
                    await stream.send(secret)
                    await anyio.sleep(1)
                await stream.receive()
        except SkycoreError as failed:
            broken.append(str(failed))
        await anyio.sleep(5)
        tasks.cancel_scope.cancel()
    told = b"".join(got)
    assert (secret * 40).startswith(told)  # nothing else, in no other order, nothing twice
    assert seen and secret not in seen and secret[:12] not in seen
    assert (told == secret * 40) if how == "reads" else broken


async def test_700_cancels_at_any_moment_leave_nothing(world):
    """Dials cut short all over the place (#700, #375): counts go back to zero."""
    server = await world.full_node(SERVER)
    alice, bob = await world.spawn("visor", n=2, settings=hidden(server), nat=NAT)
    await attached(world, alice, bob)
    for turn in range(40):
        with anyio.move_on_after(0.005 * turn):
            await alice.get(Transports).ensure(bob.public, "user")
        link = alice.get(Transports).find(bob.public)
        if link is not None:
            await link.aclose("again")
    relay = server.get(Relay)
    await world.until(
        lambda: len(relay.splices) <= 1 and relay.places.taken == 2 * len(relay.splices),
        limit_s=10,
    )
    assert not relay.requests.taken and len(relay.sessions) == 2
    assert sessions(alice) == sessions(bob) == {server.public}

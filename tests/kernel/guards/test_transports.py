from __future__ import annotations

import contextlib
import dataclasses
import itertools
import random
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest

from skycore.contracts.transport import TransportDown, TransportUp
from skycore.errors import (
    DialError,
    PluginConflictError,
    TransportClosedError,
    TransportError,
)
from skycore.events import Events
from skycore.guards.transports import TransportsSettings
from skycore.model.addresses import Address, Contact
from skycore.model.packets import transport_id
from skycore.testing.clear import ClearSecurity, PlainType, open_clear_transports
from skycore.testing.fakes import identity
from skycore.testing.loop import sim_backend, simulate
from skycore.testing.network import SimNetwork
from skycore.testing.pipes import Link as Way
from skycore.testing.seams import SimClock

FAST = Way(latency_s=0.01, jitter_s=0.0)


@pytest.fixture
def anyio_backend():
    return sim_backend(50_000)


class Recorder:
    def __init__(self, answer=None):
        self.got = []
        self.gone = []
        self.answer = answer

    def packet(self, transport, payload):
        self.got.append((transport.remote, payload))
        if self.answer is not None:
            transport.send(self.answer, payload)

    def closed(self, transport):
        self.gone.append(transport)


class Net:
    """Nodes 10.0.0.1, 10.0.0.2, … with the real manager, on a simulated network."""

    def __init__(self, stack, seed=0, way=FAST):
        self.network = SimNetwork(seed, way)
        self.stack = stack
        self.count = 0

    async def node(self, own, **more):
        self.count += 1
        host = f"10.0.0.{self.count}"
        manager = await self.stack.enter_async_context(
            open_clear_transports(self.network.host(host), host, own, clock=SimClock(), **more)
        )
        manager.host, manager.identity = host, own
        return manager

    async def two(self, **more):
        return await self.node(identity("a"), **more), await self.node(identity("b"), **more)


@asynccontextmanager
async def net(seed=0, way=FAST):
    async with AsyncExitStack() as stack:
        yield Net(stack, seed, way)


def introduce(one, other, pinned=True):
    """Tell one where other is."""
    contact = Contact(other.identity.public, (Address("plain", f"{other.host}:7777"),))
    one.addresses.learn(contact, pinned=pinned)


def key(node):
    return node.identity.public


async def until(condition, limit_s=100.0):
    with anyio.fail_after(limit_s):
        while not condition():
            await anyio.sleep(0.05)


# --- one transport -----------------------------------------------------------------------------


async def test_packets_go_both_ways_and_name_their_sender():
    async with net() as world:
        a, b = await world.two()
        introduce(a, b)
        echo, ears = Recorder(answer=129), Recorder()
        with b.claim(128, echo), a.claim(129, ears):
            transport = await a.ensure(key(b))
            transport.send(128, b"hello")
            await until(lambda: ears.got)
        assert echo.got == [(key(a), b"hello")] and ears.got == [(key(b), b"hello")]
        assert transport.id == transport_id(key(a), key(b), "plain") == b.all()[0].id
        assert transport.dialled and not b.all()[0].dialled
        assert a.find(key(b)) is transport and b.find(key(a)) is b.all()[0]


async def test_o04_silence_is_answered_by_nothing_but_pings():
    async with net() as world:
        a, b = await world.two()
        introduce(a, b)
        transport = await a.ensure(key(b), "user")
        await anyio.sleep(600)
        assert not transport.closed and transport.rtt_s == pytest.approx(0.02, rel=0.2)
        assert b.all()[0].rtt_s is not None


async def test_learns_where_the_peer_listens_and_fills_in_what_it_saw():
    async with net() as world:
        a, b = await world.two()
        introduce(a, b)
        await a.ensure(key(b))
        await until(b.all)
        assert b.addresses.find(key(a)) == (Address("plain", "10.0.0.1:7777"),)
        assert a.listening() == (Address("plain", ":7777"),)


async def test_events_and_callbacks_tell_of_every_change():
    async with net() as world:
        events = Events()
        a, b = await world.node(identity("a"), events=events), await world.node(identity("b"))
        introduce(a, b)
        changes = []
        with (
            events.subscribe(TransportUp) as ups,
            events.subscribe(TransportDown) as downs,
            a.on_change(lambda transport, up: changes.append((transport, up))),
        ):
            transport = await a.ensure(key(b), "automatic")
            up = await anext(ups)
            assert (up.id, up.remote, up.type) == (transport.id, key(b), "plain")
            assert up.dialled and up.label == "automatic"
            assert await a.close(transport.id, "enough")
            assert (await anext(downs)).reason == "enough"
        assert changes == [(transport, True), (transport, False)]
        assert not await a.close(transport.id, "again")
        await until(lambda: not b.all())


async def test_t3645_a_callback_that_fails_harms_nobody(caplog):
    async with net() as world:
        a, b = await world.two()
        introduce(a, b)

        def broken(transport, up):
            raise KeyError("oops")

        calls = []
        with a.on_change(broken), a.on_change(lambda transport, up: calls.append(up)):
            await (await a.ensure(key(b))).aclose("x")
        assert calls == [True, False]


async def test_handlers_hear_of_the_end_even_if_one_of_them_fails(caplog):
    async with net() as world:
        a, b = await world.two()
        introduce(a, b)
        one, other = Recorder(), Recorder()
        one.closed = None
        with a.claim(128, one), a.claim(129, other):
            transport = await a.ensure(key(b))
            await transport.aclose("x")
        assert other.gone == [transport]
        with pytest.raises(TransportClosedError, match="x"):
            transport.send(128, b"")


async def test_a_packet_type_is_claimed_once():
    async with net() as world:
        a, _ = await world.two()
        with a.claim(128, Recorder()):
            for taken in (128, 6, 8, 9):
                with pytest.raises(PluginConflictError), a.claim(taken, Recorder()):
                    pass
        with a.claim(128, Recorder()):
            pass


async def test_t2810_a_handler_that_comes_late_serves_transports_that_are_there():
    async with net() as world:
        a, b = await world.two()
        introduce(a, b)
        transport = await a.ensure(key(b))
        await until(b.all)
        ears = Recorder()
        with b.claim(128, ears):
            transport.send(128, b"late")
            await until(lambda: ears.got)


# --- dialling ----------------------------------------------------------------------------------


async def test_no_address_is_an_error_at_once_that_says_what_to_type():
    async with net() as world:
        a, b = await world.two()
        with pytest.raises(DialError) as caught:
            await a.ensure(key(b))
        assert f"skynode tp add {key(b).hex()} --address host:port" in caught.value.hint
        assert anyio.current_time() == 0


async def test_our_own_key_is_refused_both_ways():
    async with net() as world:
        a, _ = await world.two()
        with pytest.raises(DialError, match="our own"):
            await a.ensure(key(a))
        stream = await world.network.host("10.0.0.9").connect_tcp(a.host, 7_777)
        await ClearSecurity(a.identity).outbound(stream, key(a), ())
        await anyio.sleep(1)
        assert not a.all() and a.counters["refused"] == 1


async def test_every_address_is_tried_and_the_error_names_them():
    async with net() as world:
        a, b = await world.two()
        c = await world.node(identity("c"))
        wrong = Contact(
            key(b), (Address("plain", "10.0.0.99:1"), Address("plain", f"{c.host}:7777"))
        )
        a.addresses.learn(wrong)
        with pytest.raises(DialError) as caught:
            await a.ensure(key(b))
        assert "10.0.0.99:1" in str(caught.value) and "somebody else answered" in str(caught.value)
        introduce(a, b)
        assert (await a.ensure(key(b))).remote == key(b)
        assert a.addresses.find(key(b))[0] == Address("plain", "10.0.0.2:7777")


async def test_t4834_parallel_callers_get_one_transport_and_the_strongest_label():
    async with net() as world:
        a, b = await world.two()
        introduce(a, b)
        got = []

        async def call(label):
            got.append(await a.ensure(key(b), label))

        async with anyio.create_task_group() as tasks:
            for label in ("ephemeral", "user", "automatic") * 30:
                tasks.start_soon(call, label)
        assert len(set(got)) == 1 and got[0].label == "user"
        assert b.counters["accepted"] == 1


async def test_o05_c40_an_inbound_contact_ends_the_backoff():
    async with net() as world:
        a, b = await world.two()
        world.network.isolate(b.host)
        introduce(a, b, pinned=False)
        introduce(b, a)
        for _ in range(4):
            with pytest.raises(DialError):
                await a.ensure(key(b))
            await anyio.sleep(30)
        world.network.heal()
        with pytest.raises(DialError):
            world.network.isolate(b.host)
            await a.ensure(key(b))
        world.network.heal()
        with pytest.raises(DialError, match="again in"):
            await a.ensure(key(b))
        await b.ensure(key(a))
        await until(lambda: a.find(key(b)))
        await a.close(a.find(key(b)).id, "x")
        await a.ensure(key(b))


async def test_o06_a_cancelled_caller_marks_no_peer_bad():
    async with net(way=Way(latency_s=0.5, jitter_s=0)) as world:
        a, b = await world.two()
        introduce(a, b)
        with anyio.move_on_after(0.7) as gave_up:
            await a.ensure(key(b))
        assert gave_up.cancelled_caught
        assert (await a.ensure(key(b))).remote == key(b)
        assert b.counters["accepted"] == 1


async def test_a_silent_host_costs_the_dial_limit_and_no_more():
    async with net() as world:
        a, b = await world.two()
        introduce(a, b)
        world.network.isolate(b.host)
        began = anyio.current_time()
        with pytest.raises(DialError, match="within 10 s"):
            await a.ensure(key(b))
        assert anyio.current_time() - began == pytest.approx(10)
        assert world.network.connections(a.host) == 0


async def test_an_unknown_label_is_a_mistake():
    async with net() as world:
        a, b = await world.two()
        with pytest.raises(ValueError):
            await a.ensure(key(b), "strong")


# --- labels and idleness -----------------------------------------------------------------------


async def test_an_ephemeral_transport_closes_after_a_minute_without_payload():
    async with net() as world:
        a, b = await world.two()
        introduce(a, b)
        with b.claim(128, Recorder()):
            transport = await a.ensure(key(b))
            for _ in range(10):
                transport.send(128, b"x")
                await anyio.sleep(30)
            assert not transport.closed
            await anyio.sleep(75)
        assert transport.closed.startswith("idle for 6")
        assert not a.all() and not b.all()


async def test_a_stronger_label_on_either_side_keeps_it():
    for dialler_wants in (True, False):
        async with net() as world:
            a, b = await world.two()
            introduce(a, b)
            await a.ensure(key(b), "user" if dialler_wants else "ephemeral")
            await until(b.all)
            if not dialler_wants:
                assert (await b.ensure(key(a), "automatic")).label == "automatic"
            await anyio.sleep(600)
            assert len(a.all()) == len(b.all()) == 1


async def test_t3810_a_quiet_node_redials_nobody():
    async with net() as world:
        a, b = await world.two()
        introduce(a, b)
        await a.ensure(key(b), "user")
        await anyio.sleep(3_600)
        assert b.counters["accepted"] == 1 and a.counters["accepted"] == 0


# --- one live link per pair --------------------------------------------------------------------


def assert_one_link(a, b, network):
    assert len(a.all()) == len(b.all()) == 1
    assert a.all()[0].dialled != b.all()[0].dialled, "both sides keep the same one"
    assert len(a._table.open()) == len(b._table.open()) == 1
    assert network.connections(a.host) == network.connections(b.host) == 1


async def test_t4925_f24_a_cross_dial_ends_with_one_link_on_both_sides():
    async with net() as world:
        a, b = await world.two()
        introduce(a, b)
        introduce(b, a)
        ears = {node: Recorder() for node in (a, b)}
        sent = []
        with a.claim(128, ears[a]), b.claim(128, ears[b]):

            async def call(node, other, number):
                transport = await node.ensure(key(other), "user")
                transport.send(128, b"%d" % number)
                sent.append(number)

            async with anyio.create_task_group() as tasks:
                for number in range(500):
                    tasks.start_soon(call, a, b, number)
                    tasks.start_soon(call, b, a, number)
            await anyio.sleep(30)
            assert_one_link(a, b, world.network)
            smaller = min(a, b, key=key)
            assert smaller.all()[0].dialled, "the link that the smaller key dialled"
            # what was begun on the loser was served, not cut
            assert len(ears[a].got) == len(ears[b].got) == 500 and len(sent) == 1_000


def test_t4925_a_thousand_cross_dials_of_random_timing():
    async def rounds():
        dice = random.Random(4_925)
        both = 0
        async with net(way=Way(latency_s=0.02, jitter_s=0.03)) as world:
            a, b = await world.two()
            introduce(a, b)
            introduce(b, a)

            async def call(node, other):
                await anyio.sleep(dice.uniform(0, 0.15))
                await node.ensure(key(other), "user")

            for _ in range(1_000):
                accepted = a.counters["accepted"], b.counters["accepted"]
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(call, a, b)
                    tasks.start_soon(call, b, a)
                await anyio.sleep(15)
                assert_one_link(a, b, world.network)
                both += (
                    a.counters["accepted"] > accepted[0] and b.counters["accepted"] > accepted[1]
                )
                await a.close(a.all()[0].id, "next round")
                await anyio.sleep(1)
                assert not a.all() and not b.all()
        return both

    assert simulate(rounds, limit_s=1e6) > 100, "many of them did cross"


async def test_a_flood_of_connections_of_one_key_leaves_one_link():
    async with net() as world:
        a, _ = await world.two()
        peer = identity("peer")
        host = world.network.host("10.0.0.50")
        channels = []

        async def connect():
            stream = await host.connect_tcp(a.host, 7_777)
            channels.append(await ClearSecurity(peer).outbound(stream, key(a), ()))

        for _ in range(50):
            await connect()
            assert len(a.all()) <= 1
            assert len(a._table.open()) <= 10
        await anyio.sleep(0.2)
        assert len(a.all()) == 1
        assert world.network.connections(a.host) <= 6


async def test_t3035_a_restarted_peer_takes_its_place_and_the_old_link_does_not_take_it_back():
    async with net() as world:
        a, b = await world.two()
        introduce(a, b)
        old = await a.ensure(key(b), "user")
        await until(b.all)
        stale = b.all()[0]
        reborn = dataclasses.replace(a.identity, instance_id=b"another instance")
        stream = await world.network.host("10.0.0.50").connect_tcp(b.host, 7_777)
        await ClearSecurity(reborn).outbound(stream, key(b), ())
        await until(lambda: b.find(key(a)) not in (None, stale))
        fresh = b.find(key(a))
        assert stale.closed == "the peer was restarted"
        assert old.closed or await until(lambda: old.closed) is None
        await anyio.sleep(5)
        assert b.all() == [fresh] and not fresh.closed


async def test_a_loser_takes_over_when_the_winner_is_dead():
    """One side lost the link without a word and dials anew; the other still believes in it."""
    async with net() as world:
        small, large = sorted(await world.two(), key=key)
        introduce(small, large)
        introduce(large, small)
        await small.ensure(key(large), "user")
        await until(large.all)
        believed = small.all()[0]
        stale = large.all()[0]
        world.network.isolate(small.host)  # its goodbye is lost
        await stale.aclose("lost")
        # nothing more is said on the old connection, and what the FIN did is undone by the cut
        world.network.heal()
        await large.ensure(key(small), "user")
        await anyio.sleep(60)
        assert len(small.all()) == len(large.all()) == 1
        assert small.all()[0] is not believed
        assert not small.all()[0].dialled and large.all()[0].dialled


# --- bounds ------------------------------------------------------------------------------------


async def test_when_full_a_lookup_makes_room_and_a_wanted_transport_does_not():
    async with net() as world:
        full = TransportsSettings(transports_max=3)
        hub = await world.node(identity("hub"), settings=full)
        peers = [await world.node(identity(f"peer {n}")) for n in range(5)]
        for peer in peers:
            introduce(peer, hub)
        for peer in peers[:4]:
            await peer.ensure(key(hub))
            await anyio.sleep(5)
        assert len(hub.all()) == 3 and hub.find(key(peers[0])) is None
        for peer in peers[1:4]:
            await hub.ensure(key(peer), "user")
        transport = await peers[4].ensure(key(hub))
        await until(lambda: transport.closed)
        assert len(hub.all()) == 3 and hub.counters["refused"] == 1
        introduce(hub, peers[4])
        with pytest.raises(DialError, match="3 transports are open"):
            await hub.ensure(key(peers[4]), "user")


async def test_t4486_a_hundred_stalled_peers_and_an_honest_one_is_still_served():
    async with net() as world:
        a, b = await world.two()
        introduce(a, b)
        stalled = []
        for n in range(100):
            host = world.network.host(f"10.9.0.{n % 5 + 1}")
            stalled.append(await host.connect_tcp(b.host, 7_777))
        await anyio.sleep(1)
        assert b.inbounds["plain"].places.in_flight <= 64
        began = anyio.current_time()
        await a.ensure(key(b))
        await until(b.all)
        assert anyio.current_time() - began < 1
        await anyio.sleep(30)
        assert b.inbounds["plain"].places.in_flight == 0
        assert world.network.connections(b.host) == 1


async def test_f6_a_hello_of_one_byte_every_two_seconds_ends_at_five():
    async with net() as world:
        a, _ = await world.two()
        stream = await world.network.host("10.0.0.50").connect_tcp(a.host, 7_777)
        began = anyio.current_time()

        async def trickle():
            with contextlib.suppress(anyio.BrokenResourceError):
                while True:
                    await stream.send(b"\1")
                    await anyio.sleep(2)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(trickle)
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()
            tasks.cancel_scope.cancel()
        assert anyio.current_time() - began == pytest.approx(5, abs=0.5)


async def test_aborted_handshakes_leave_nothing_behind():
    async with net() as world:
        a, _ = await world.two()
        host = world.network.host("10.0.0.50")
        tasks_before = len(anyio.get_running_tasks())
        dice = random.Random(7)
        for n in range(1_000):
            stream = await host.connect_tcp(a.host, 7_777)
            if n % 3:
                await stream.send(dice.randbytes(dice.randint(1, 60)))
            await stream.aclose()
        await anyio.sleep(10)
        assert len(anyio.get_running_tasks()) == tasks_before
        assert world.network.connections(a.host) == 0 and not a._table.open()
        assert a.counters["handshakes_failed"] == a.counters["accepted"] == 1_000


# --- start and stop ----------------------------------------------------------------------------


async def test_c43_strangers_are_accepted_only_once_the_node_is_ready():
    class Later:
        def __init__(self):
            self.event = anyio.Event()

        @property
        def ready(self):
            return self.event.is_set()

        async def wait_ready(self):
            await self.event.wait()

    async with net() as world:
        later = Later()
        a = await world.node(identity("a"))
        b = await world.node(identity("b"), lifecycle=later)
        introduce(a, b)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(a.ensure, key(b))
            await anyio.sleep(1)
            assert not b.all() and b.listening(), "bound, and not yet served"
            later.event.set()
        await until(b.all)


async def test_a_taken_port_fails_at_the_start():
    async with net() as world:
        a, _ = await world.two()
        with pytest.raises(TransportError):
            host = world.network.host(a.host)
            async with open_clear_transports(host, a.host, identity("x"), clock=SimClock()):
                pass


async def test_two_types_of_one_name_are_refused():
    network = SimNetwork().host("10.0.0.1")
    types = [PlainType(network, "10.0.0.1"), PlainType(network, "10.0.0.1", port=2)]
    with pytest.raises(PluginConflictError):
        async with open_clear_transports(
            network, "10.0.0.1", identity("a"), clock=SimClock(), types=types
        ):
            pass


async def test_stopping_tells_every_peer_why():
    async with net() as world:
        b = await world.node(identity("b"))
        host = world.network.host("10.0.0.77")
        manager = open_clear_transports(host, "10.0.0.77", identity("a"), clock=SimClock())
        async with manager as a:
            a.host, a.identity = "10.0.0.77", identity("a")
            introduce(a, b)
            await a.ensure(key(b), "user")
            await until(b.all)
            seen = b.all()[0]
        await until(lambda: seen.closed)
        assert seen.closed == "closed by the peer: the node stops"
        assert world.network.connections("10.0.0.77") == 0


class Chaos:
    """Five nodes that dial, send, close and give up at random."""

    def __init__(self, seed):
        self.dice = random.Random(seed)
        self.nodes = []

    async def act(self):
        for _ in range(60):
            one, other = self.dice.sample(self.nodes, 2)
            with contextlib.suppress(DialError, TransportClosedError):
                with anyio.move_on_after(self.dice.uniform(0.001, 0.4)):
                    await self.use(one, other)
            await anyio.sleep(self.dice.uniform(0, 0.5))

    async def use(self, one, other):
        transport = await one.ensure(key(other), self.dice.choice(("ephemeral", "user")))
        transport.send(128, b"x" * self.dice.randint(0, 60_000))
        if self.dice.random() < 0.5:
            await one.close(transport.id, "chaos")

    async def run(self):
        async with net(way=Way(latency_s=0.01, jitter_s=0.05, split=0.3)) as world:
            self.nodes = [await world.node(identity(f"n{n}")) for n in range(5)]
            pairs = list(itertools.permutations(self.nodes, 2))
            for one, other in pairs:
                introduce(one, other)
            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(self.act)
            await anyio.sleep(90)
            for one, other in pairs:
                await one.ensure(key(other), "user")
            await anyio.sleep(30)
            for one in self.nodes:
                assert len(one.all()) == 4 == len(one._table.open())
                assert world.network.connections(one.host) == 4
                assert not one._table._draining and one.dials.in_flight == 0


@pytest.mark.parametrize("seed", range(5))
def test_t700_random_dials_closes_and_cancellations_leave_a_working_manager(seed):
    simulate(Chaos(seed).run, seed=seed)

"""Servers that flood, lie about others, or list what is not theirs; one honest server beside."""

from __future__ import annotations

import types

import anyio
import pytest

from relay_dmsg.client.finding import SOURCE_SERVERS_MAX
from relay_dmsg.core.dials import SeenDials
from relay_dmsg.core.messages import Answer, Attached, Code, Dial
from relay_dmsg.core.servers import SERVERS_MAX
from relay_dmsg.framing import read_message, send_message
from relay_dmsg.numbers import KIND, TO_CLIENT, TO_SERVER
from skycore.contracts.discovery import Record, Records
from skycore.errors import DialError, SkycoreError, StreamError
from skycore.model.addresses import Address
from skycore.model.entries import DmsgServerEntry
from skycore.model.keys import ED25519, PubKey

FAR = 4_000_000_000


class Evil:
    """A server that attaches whoever comes, and answers dials as it likes."""

    def __init__(self, bench, tasks, on_dial=None):
        self.bench, self.tasks, self.on_dial = bench, tasks, on_dial
        self.seen = []

    async def run(self, *, task_status):
        async with self.bench.streams("evil").listen(TO_SERVER) as listener:
            task_status.started()
            while True:
                self.tasks.start_soon(self.take, await listener.accept())

    async def take(self, stream):
        try:
            message = await read_message(stream)
            if isinstance(message, Dial):
                self.seen.append(message)
                await self.on_dial(stream, message)
            else:
                await send_message(stream, Attached(1))
                await anyio.sleep_forever()
        except StreamError:
            pass


@pytest.fixture
async def tasks(bench):
    tasks = await bench.stack.enter_async_context(anyio.create_task_group())
    bench.stack.callback(tasks.cancel_scope.cancel)
    return tasks


@pytest.fixture
async def evil(bench, tasks):
    """Bob is attached to an evil server and to an honest one; alice to the honest one."""
    evil = Evil(bench, tasks)
    await tasks.start(evil.run)
    evil.honest = await bench.server()
    evil.bob = await bench.client("bob", "evil", "server")
    evil.alice = await bench.client("alice", "server")
    await bench.until(lambda: len(evil.bob.client.keeper.sessions) == 2 and evil.alice.can_ask)
    return evil


def via(bench, name="server"):
    return Address(KIND, f"{bench.key(name).hex()}@10.0.0.9:1")


async def reached_s(bench, evil):
    """Reach bob through the honest server; return the seconds."""
    began = anyio.current_time()
    stream = await evil.alice.dial(bench.key("bob"), (via(bench),))
    await stream.aclose()
    return anyio.current_time() - began


async def test_t2482_a_server_that_floods_takes_nothing_from_another(bench, evil):
    """Silent dials, as many as it likes: its own share of those being answered, and no more."""
    for _ in range(500):
        await bench.streams("evil").dial(bench.key("bob"), TO_CLIENT)
    await anyio.sleep(0.1)
    assert evil.bob.client.inbound._requests == {bench.key("evil"): 64}
    assert evil.bob.client.counters["dials_dropped"] == 436
    assert await reached_s(bench, evil) < 0.1
    await anyio.sleep(10)
    assert not evil.bob.client.inbound._requests


async def test_r7_a_server_that_makes_dials_up_fills_its_own_memory_of_them(bench, evil):
    """Keys cost nothing: dials of made-up senders, each signed as it must be."""
    evil.bob.client.inbound.seen = SeenDials(dials_max=200, per_server_max=50)
    codes = []
    for n in range(80):
        stream = await bench.streams("evil").dial(bench.key("bob"), TO_CLIENT)
        await send_message(stream, bench.signed(f"sybil {n}", "bob"))
        codes.append((await read_message(stream)).code)
        await stream.aclose()
        while evil.bob._waiting:
            await (await evil.bob.accept()).aclose()
    assert codes == [Code.ACCEPTED] * 50 + [Code.BUSY] * 30
    assert await reached_s(bench, evil) < 0.1


async def test_a_dial_seen_through_one_server_is_a_replay_through_another(bench, evil):
    """R7: an honest server's client may be two servers' client; the id counts, not the way."""
    copied = []
    forward = evil.honest._streams.dial

    async def copying(remote, service):
        stream = await forward(remote, service)
        send = stream.send

        async def tee(data):
            copied.append(bytes(data))
            await send(data)

        stream.send = tee
        return stream

    evil.honest._streams.dial = copying
    await reached_s(bench, evil)
    stream = await bench.streams("evil").dial(bench.key("bob"), TO_CLIENT)
    await stream.send(copied[0])
    assert (await read_message(stream)).code == Code.REPLAYED


async def test_a_server_that_stalls_costs_its_limit_and_the_next_is_asked(bench, evil, tasks):
    """It delays: five seconds, then the honest one."""

    async def stall(stream, dial):
        await anyio.sleep_forever()

    evil.on_dial = stall
    began = anyio.current_time()
    stream = await evil.alice.dial(bench.key("bob"), (via(bench, "evil"), via(bench)))
    await stream.aclose()
    assert 5 <= anyio.current_time() - began < 5.2


@pytest.mark.parametrize("code", [Code.NOT_ATTACHED, Code.STOPPING, 999])
async def test_a_server_that_refuses_wrongly_is_passed_over(bench, evil, code):
    async def refuse(stream, dial):
        await send_message(stream, Answer(int(code), "so it says"))

    evil.on_dial = refuse
    stream = await evil.alice.dial(bench.key("bob"), (via(bench, "evil"), via(bench)))
    await stream.aclose()
    assert len(evil.seen) == 1


async def test_a_server_that_connects_to_somebody_else_gains_nothing(bench, evil):
    """It splices alice to carol, with carol's signature: bob alone can say "accepted" for bob."""
    carol = await bench.client("carol", "server")
    await bench.until(lambda: carol.can_ask)

    async def elsewhere(stream, dial):
        other = bench.signed("evil", "carol")
        near = await bench.streams("evil").dial(bench.key("server"), TO_SERVER)
        await send_message(near, other)
        await send_message(stream, await read_message(near))

    evil.on_dial = elsewhere
    with pytest.raises(DialError, match="not the destination's"):
        await evil.alice.dial(bench.key("bob"), (via(bench, "evil"),))


async def test_a_server_that_is_no_dmsg_server_is_named_within_seconds(bench):
    """A mismatch looked like a hang upstream (#2074)."""
    alice = await bench.client("alice", "plain")
    server = alice.client.servers.find(bench.key("plain"))
    took = await bench.until(lambda: server.trouble, limit_s=5)
    assert took <= 5 and "cannot be reached" in server.trouble


# --- what is listed ------------------------------------------------------------------------------


class Listing:
    """A source that lists servers: name and endpoint."""

    is_local, salts = False, None

    def __init__(self, name, servers):
        self.name, self.servers = name, servers

    def record(self, key, endpoint):
        body = DmsgServerEntry(key.hex(), endpoint)
        return Record(b"dmsg-server", PubKey(key), body, 1, FAR, self.name, None)

    async def find(self, salt, subject):
        return None

    async def records(self, salt):
        return Records(tuple(self.record(*one) for one in self.servers), self.name, 1, True)


def made_up(count, above):
    """Return servers that are nowhere; all their keys sort above one: learnt later."""
    keys = (ED25519.public(ED25519.secret(n.to_bytes(32, "big"))) for n in range(1, 2 * count))
    return [(key, "10.6.6.6:6") for key in keys if key > above][:count]


async def test_c40_a_long_list_of_made_up_servers_hides_no_real_one(bench):
    """One source's flood leaves room for another's few."""
    real = min((f"server {n}" for n in range(40)), key=bench.key)
    await bench.server(real)
    flood = made_up(600, bench.key(real))
    assert len(flood) == 600
    bench.exchange.down.update(key for key, _ in flood)
    sources = (Listing("dht", flood), Listing("http", [(bench.key(real), "10.0.0.9:1")]))
    alice = await bench.client("alice", sources=sources)
    servers = alice.client.servers
    await bench.until(lambda: len(servers), limit_s=5)
    assert servers.find(bench.key(real)) and len(servers) == SOURCE_SERVERS_MAX + 1
    await bench.until(lambda: alice.can_ask, limit_s=60)
    await anyio.sleep(600)
    assert set(alice.client.keeper.sessions) == {bench.key(real)}
    assert len(servers) <= SERVERS_MAX and servers.find(bench.key(real)).worked


async def test_a_false_address_listed_for_a_server_moves_nobody_away(bench):
    """A discovery that lies about where a server is: the link proves who is there, and stays."""
    for name in ("one", "two"):
        await bench.server(name)
    honest = Listing("http", [(bench.key(n), "10.0.0.9:1") for n in ("one", "two")])
    alice = await bench.client("alice", sources=(honest,))
    await bench.until(lambda: len(alice.client.keeper.sessions) == 2)
    alice.client.keeper._finder._sources = (Listing("lies", [(bench.key("one"), "10.6.6.6:6")]),)
    await alice.client.keeper._finder.learn_servers()
    assert alice.client.servers.find(bench.key("one")).endpoint == "10.0.0.9:1"
    assert via(bench, "one") in alice.addresses


@pytest.mark.parametrize("first", ["http", "lies"])
async def test_a_false_address_beside_the_true_one_costs_a_try(bench, first, monkeypatch):
    """Whichever is heard first; who answers at the false one is not that server."""
    await bench.server("one")
    tried = []

    async def ensure(self, remote, label="ephemeral", *, look_up=True):
        (address,) = self.addresses.find(remote)
        tried.append(address.endpoint)
        if address.endpoint != "10.0.0.9:1":
            raise DialError("the key there is another one's")
        return self.links.setdefault(
            bytes(remote),
            types.SimpleNamespace(
                type="stcpr", host="", rtt_s=None, wait_silent=anyio.sleep_forever
            ),
        )

    both = [
        Listing("http", [(bench.key("one"), "10.0.0.9:1")]),
        Listing("lies", [(bench.key("one"), "10.6.6.6:6")]),
    ]
    sources = both if first == "http" else both[::-1]
    alice = await bench.client("alice", sources=tuple(sources))
    monkeypatch.setattr(type(alice.links), "ensure", ensure)
    await bench.until(lambda: alice.can_ask, limit_s=30)
    assert len(tried) <= 6, tried


async def test_unknown_errors_are_no_errors_of_ours(bench, evil):
    """Whatever an evil server does on a control stream, the honest session stays."""
    session = set(evil.bob.client.keeper.sessions)
    assert session == {bench.key("evil"), bench.key("server")}
    for stream in list(bench.exchange._open):
        if stream._local == bench.key("evil") and stream.remote == bench.key("bob"):
            try:
                await stream.send(b"\xff" * 100)
            except SkycoreError:
                continue
    await anyio.sleep(0.5)
    assert bench.key("server") in evil.bob.client.keeper.sessions
    assert await reached_s(bench, evil) < 0.1

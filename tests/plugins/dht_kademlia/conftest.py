"""Small DHTs in memory: real nodes of the plugin over streams that need no transport."""

from __future__ import annotations

import contextlib
import functools
import random
from contextlib import asynccontextmanager

import anyio
import pytest

from dht_kademlia.client import DHT_SERVICE, Client
from dht_kademlia.core.codec import MsgpackCodec
from dht_kademlia.node import Kademlia
from dht_kademlia.serve.server import Server
from dht_kademlia.service import KademliaMirror, open_dht, open_kademlia
from dht_kademlia.settings import KademliaSettings
from dht_kademlia.sync.reconcile import reconcile
from skycore.contracts.namespace import Form, Namespace, Namespaces
from skycore.errors import StreamError
from skycore.events import Events
from skycore.frames import FrameReader
from skycore.guards.gate import GateSettings, open_gate
from skycore.model.addresses import Address, Contact
from skycore.model.items import ItemClass, Kind, make_item
from skycore.model.keys import ED25519
from skycore.model.limits import DHT_FRAME_MAX
from skycore.model.network import NetworkConstants
from skycore.testing.fakes import (
    TEST_NETWORK,
    AlwaysReady,
    FakeClock,
    InlineWorkers,
    MemoryFiles,
    SeededEntropy,
    identity,
)
from skycore.testing.items import DictItems
from skycore.testing.loop import simulate
from skycore.testing.streams import MemoryExchange, MemoryStreams, MemoryTransports
from store_memory.service import open_memory_store
from store_memory.settings import MemoryStoreSettings

START_NS = 1_800_000_000 * 10**9


@functools.cache
def hellos():
    """Return the addresses of n0 … n209."""
    contacts = [Network.contact_of(f"n{i}") for i in range(210)]
    return {c.public: c.addresses for c in contacts}


class LoopClock:
    """The running loop's time, virtual or not."""

    def now(self) -> float:
        return anyio.current_time()

    def wall_ns(self) -> int:
        return START_NS + int(self.now() * 1e9)

    def wall_s(self) -> int:
        return self.wall_ns() // 10**9


class Member:
    """A node of the test network, and what it is made of."""

    def __init__(self, name, node, dht, items, files, exchange):
        self.name, self.node, self.dht = name, node, dht
        self.items, self.files, self.exchange = items, files, exchange
        self.public = node.identity.public

        self.mirror = KademliaMirror(node)


@asynccontextmanager
async def puppet(exchange, public, speak):
    """Let `speak(stream, method, request)` answer in the name of a key, request by request."""

    async def serve(stream):
        reader = FrameReader(stream, DHT_FRAME_MAX)
        with contextlib.suppress(StreamError):
            while (body := await reader.read()) is not None:
                await speak(stream, *MsgpackCodec().decode_request(body))

    async def accept(listener, tasks):
        while True:
            tasks.start_soon(serve, await listener.accept())

    async with (
        MemoryStreams(exchange, public).listen(DHT_SERVICE) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(accept, listener, tasks)
        yield
        tasks.cancel_scope.cancel()


class Network:
    """Nodes that know each other's addresses once they have spoken, as after a Hello."""

    def __init__(self, latency_s=0.0):
        self.exchange = MemoryExchange(latency_s)
        self.clock = LoopClock()
        self.members = {}

    @staticmethod
    def contact_of(name):
        public = identity(name).public
        return Contact(public, (Address("stcpr", f"192.0.2.1:{1000 + int(name[1:])}"),))

    def text_of(self, name):
        contact = self.contact_of(name)
        return f"{contact.public.hex()}@{contact.addresses[0].endpoint}"

    def puppet(self, name, speak):
        return puppet(self.exchange, identity(name).public, speak)

    @asynccontextmanager
    async def gate(self, name, **limits):
        """A real gate over a memory store: what blocks need."""
        limits = {"signer_items_max": 10**6, "unknown_items_max": 10**6} | limits
        async with (
            open_memory_store(MemoryStoreSettings(), SeededEntropy(int(name[1:]))) as store,
            open_gate(
                GateSettings(**limits), store, identity(name), NAMESPACES,
                self.clock, InlineWorkers(), Events(),
            ) as items,
        ):  # fmt: skip
            yield items

    @asynccontextmanager
    async def node(
        self, name, *, seeds=(), files=None, items=None, transports=None, gate=None, **settings
    ):
        """Run a node; with `gate` (its settings, or none) over a real one."""
        if gate is not None:
            async with (
                self.gate(name, **gate) as items,
                self.node(
                    name, seeds=seeds, files=files, items=items, transports=transports, **settings
                ) as member,
            ):
                yield member
            return
        me = identity(name)
        files = files or MemoryFiles()
        items = items or DictItems(TEST_NETWORK, self.clock, name=name)
        transports = transports or MemoryTransports()
        # every caller's listening address is known from its Hello
        transports.addresses.known.update(hellos())
        self.exchange.down.discard(me.public)
        async with (
            open_kademlia(
                KademliaSettings(bootstrap=tuple(self.text_of(s) for s in seeds), **settings),
                me,
                items,
                (MemoryStreams(self.exchange, me.public),),
                transports,
                self.clock,
                SeededEntropy(int(name[1:])),
                files,
                AlwaysReady(),
                Events(),
            ) as node,
            open_dht(node, files) as dht,
        ):
            member = Member(name, node, dht, items, files, self.exchange)
            self.members[name] = member
            try:
                yield member
            finally:
                self.exchange.stop(me.public)
                del self.members[name]

    @asynccontextmanager
    async def nodes(self, count, **settings):
        """Start n0 … and bootstrap all of them from n0; each in a task, so that none is nested."""
        stop = anyio.Event()

        async def live(i, *, task_status):
            async with self.node(f"n{i}", seeds=("n0",) if i else (), **settings) as member:
                task_status.started(member)
                await stop.wait()

        async with anyio.create_task_group() as tasks:
            members = [await tasks.start(live, i) for i in range(count)]
            await anyio.sleep(1.0)
            yield members
            stop.set()


def item_of(name, seq=1, v=b"value", salt=b"t", until=START_NS // 10**9 + 3600, kind=Kind.VALUE):
    me = identity(name)
    return make_item(TEST_NETWORK, me.secret, salt=salt, seq=seq, until=until, v=v, kind=kind)


# --- two nodes with real gates and nothing going on in the background ----------------------------

AUTHORITY = identity("authority").secret
PAIR_NETWORK = NetworkConstants(ED25519, "skycore-test", ED25519.public(AUTHORITY))
LIFE_S = 3_600
NOTE = Namespace(b"note", 1, str, Form.SINGLE, dict.fromkeys(ItemClass, LIFE_S))
TAGS = Namespace(b"tags", 1, str, Form.SET, {ItemClass.OWNER: LIFE_S})
NAMESPACES = Namespaces((NOTE, TAGS))


class Severable(MemoryStreams):
    """Lets `left` bytes pass, both ways together, and then every stream fails."""

    left = 10**9

    async def dial(self, remote, service):
        if self.left <= 0:
            raise StreamError("the link is dead")
        stream = await super().dial(remote, service)
        for end in (stream, stream.other):
            end.send = functools.partial(self._send, end, end.send)
        return stream

    async def _send(self, end, send, data):
        if self.left > 0:
            await send(data[: self.left])
        self.left -= len(data)
        if self.left < 0:
            end.fail("the link died")
            end.other.fail("the link died")
            raise StreamError("the link died")


class Side:
    """One of two nodes that are compared: its gate over a memory store, its streams."""

    def __init__(self, name, node, gate, store, streams, exchange):
        self.name, self.node, self.gate, self.store = name, node, gate, store
        self.streams, self.exchange, self.clock = streams, exchange, node.clock
        self.public = node.identity.public

    def puppet(self, public, speak):
        return puppet(self.exchange, public, speak)

    async def put(self, *items, **more):
        return await self.gate.admit(items, sender=self.public, **more)

    async def contents(self):
        """Everything that two stores must share, byte for byte."""
        held = await self.gate.listing(None, bytes(32), b"\xff" * 32, 1_000_000)
        return {(s.target, s.item_class): (s.rank, s.item, s.until) for s in held}

    async def reconcile(self, other, salt=None, **options):
        public = other if isinstance(other, bytes) else other.public
        return await reconcile(self.node, Contact(public, ()), salt, **options)


@asynccontextmanager
async def open_side(exchange, name, clock, gate=None):
    me = identity(name, PAIR_NETWORK)
    carrier = Severable(exchange, me.public)
    codec, number = MsgpackCodec(), int(name[1:])
    gate_settings = GateSettings(**{"signer_items_max": 10**6, "unknown_items_max": 10**6}
                                 | (gate or {}))  # fmt: skip
    async with (
        open_memory_store(MemoryStoreSettings(), SeededEntropy(number)) as store,
        open_gate(
            gate_settings, store, me, Namespaces((NOTE, TAGS)), clock, InlineWorkers(), Events()
        ) as items,
        carrier.listen(DHT_SERVICE) as listener,
        anyio.create_task_group() as tasks,
    ):
        client = Client((carrier,), codec, clock, per_peer_max=4)
        settings = KademliaSettings(full_node=True)
        node = Kademlia(
            settings, me, items, client, MemoryTransports(), clock, random.Random(number), tasks
        )
        tasks.start_soon(Server(node, codec).accept, listener, tasks)
        try:
            yield Side(name, node, items, store, carrier, exchange)
        finally:
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def open_pair(*, latency_s=0.0, clock=None, slow=None, gates=({}, {})):
    """Open two sides on one clock, which stands still unless moved; or the second on `slow`."""
    exchange, clock = MemoryExchange(latency_s), clock or FakeClock()
    async with (
        open_side(exchange, "n0", clock, gates[0]) as here,
        open_side(exchange, "n1", slow or clock, gates[1]) as there,
    ):
        yield here, there


@pytest.fixture(scope="session")
def pair():
    """Return what opens two full nodes that do nothing by themselves."""
    return open_pair


@pytest.fixture
def virtual():
    """Run an async function on a virtual clock."""
    return simulate


@pytest.fixture
def make_network():
    return Network


def record_of(name, value, seq=1, salt=b"tags", until=START_NS // 10**9 + 3600):
    """Sign a value as its publisher would: inline, or as a manifest with its blocks."""
    me = identity(name)
    tree = NAMESPACES.plant(salt, me.public, value)
    if tree is None:
        return item_of(name, seq, value, salt, until), {}
    return item_of(name, seq, tree.manifest, salt, until, Kind.MANIFEST), tree.blocks


def tags_of(count, changed=()):
    """A set of `count` entries, some 70 bytes each; those at `changed` are other ones."""
    return TAGS.encode([f"{n:05d}{'*' if n in changed else '-'}" + "x" * 64 for n in range(count)])


@pytest.fixture
def make():
    return item_of


@pytest.fixture
def record():
    return record_of


@pytest.fixture
def tags():
    return tags_of

"""Nodes that serve a registry to each other over streams in memory."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import anyio
import msgspec
import pytest

from skycore.contracts.access import Decision, Level
from skycore.contracts.rpc import Caller, RpcMethod
from skycore.guards.access import open_access
from skycore.guards.rpc import open_rpc
from skycore.jsonrpc import Client
from skycore.testing.fakes import FakeClock, identity
from skycore.testing.streams import MemoryExchange, MemoryStreams
from visor_rpc.proxy import open_proxy
from visor_rpc.service import VISOR_RPC, open_status, open_visor_rpc
from visor_rpc.settings import VisorRpcSettings


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str = ""


class Methods:
    def __init__(self):
        self.gate = anyio.Event()
        self.running = 0
        self.callers = []
        self.methods = [
            RpcMethod("echo", Level.READ, Params, object, self.echo, "x"),
            RpcMethod("slow", Level.READ, Params, object, self.slow, "x"),
            RpcMethod("working", Level.READ, Params, object, self.working, "x"),
            RpcMethod("change", Level.ADMIN, Params, object, self.echo, "x"),
        ]

    async def echo(self, params, context):
        self.callers.append(context.caller.remote)
        return params.text

    async def slow(self, params, context):
        self.running += 1
        try:
            await self.gate.wait()
        finally:
            self.running -= 1

    async def working(self, params, context):
        for done in range(1, 6):
            context.progress(done, 5, "copying")
            await anyio.sleep(6)
        return "worked"


class Listed:
    """A policy that a test changes."""

    def __init__(self, **levels):
        self.levels = {identity(name).public: level for name, level in levels.items()}
        self.callbacks = []

    def decide(self, peer, level):
        return Decision.ALLOW if self.levels.get(peer, 0) >= level else Decision.ABSTAIN

    def remove(self, name):
        del self.levels[identity(name).public]
        for callback in self.callbacks:
            callback()

    @contextmanager
    def on_change(self, callback):
        self.callbacks.append(callback)
        yield
        self.callbacks.remove(callback)


class Starting:
    """A node that is up when the test says so."""

    def __init__(self, ready=True):
        self._up = anyio.Event()
        if ready:
            self._up.set()

    @property
    def ready(self):
        return self._up.is_set()

    async def wait_ready(self):
        await self._up.wait()

    def up(self):
        self._up.set()


class Peer:
    """A node, as far as RPC goes."""

    def __init__(self, name, exchange, streams):
        self.identity = identity(name)
        self.exchange = exchange
        self.key = self.identity.public
        self.streams = streams or MemoryStreams(exchange, self.key)
        self.methods = Methods()
        self.clock = FakeClock()

    async def client(self, other):
        """Return a client to another peer, under our key."""
        return Client(await self.streams.dial(other.key, VISOR_RPC))

    async def tp_rpc(self, remote, method, params=None, progress=None):
        """Call as a local user of this node does."""
        text = remote if isinstance(remote, str) else remote.key.hex()
        given = {"remote": text, "method": method, "params": params or {}}
        return await self.rpc.call(Caller(), "visor.tp_rpc", given, progress)


@asynccontextmanager
async def peer(exchange, name, *, streams=None, lifecycle=None, settings=None, **levels):
    it = Peer(name, exchange, streams)
    settings = settings or VisorRpcSettings()
    it.policy = Listed(**levels)
    it.lifecycle = lifecycle or Starting()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        access = await enter(open_access((it.policy,)))
        proxy = await enter(open_proxy(settings, (it.streams,), it.identity))
        it.rpc = await enter(open_rpc((it.methods, proxy), access, it.clock))
        it.served = await enter(
            open_visor_rpc(settings, (it.streams,), it.rpc, access, it.clock, it.lifecycle)
        )
        it.status = await enter(open_status(it.served))
        yield it


@pytest.fixture
def exchange():
    return MemoryExchange()


@pytest.fixture
async def alice(exchange):
    """Serves: bob may read, carol may do everything."""
    async with peer(exchange, "alice", bob=Level.READ, carol=Level.ADMIN) as it:
        yield it


@pytest.fixture
async def bob(exchange):
    async with peer(exchange, "bob") as it:
        yield it


@pytest.fixture(name="peer")
def _peer():
    return peer


@pytest.fixture
def starting():
    return Starting


@pytest.fixture
def settle():
    async def settle(turns=40):
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()

    return settle

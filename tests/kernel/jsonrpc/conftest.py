"""A registry of small methods, served over streams in memory."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager

import anyio
import msgspec
import pytest

from skycore.contracts.access import Decision, Level
from skycore.contracts.rpc import Caller, RpcMethod
from skycore.contracts.streams import Service
from skycore.errors import SeqTooLowError, StoreError
from skycore.guards.access import open_access
from skycore.guards.rpc import open_rpc
from skycore.jsonrpc import Client, RpcServer
from skycore.testing.fakes import AlwaysReady, FakeClock, identity
from skycore.testing.streams import MemoryExchange, MemoryStreams

ALICE, BOB = identity("alice").public, identity("bob").public
SERVICE = Service("test", 200, 4_200)


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str = ""
    number: int = 0


class Methods:
    """What the tests call; `gate` holds the slow ones until it is opened."""

    def __init__(self):
        self.gate = anyio.Event()
        self.running = self.running_most = self.entered = self.cancelled = 0
        self.methods = [
            RpcMethod(name, Level.READ, Text, object, getattr(self, name), name)
            for name in ("echo", "slow", "working", "bug", "refuses", "big", "seq_low")
        ]

    async def echo(self, params, context):
        return {"text": params.text, "caller": "local" if context.caller.is_local else "remote"}

    async def slow(self, params, context):
        self.entered += 1
        self.running += 1
        self.running_most = max(self.running, self.running_most)
        try:
            await self.gate.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return params.text

    async def working(self, params, context):
        for done in range(1, 4):
            context.progress(done, 3, f"step {done}\n\x1b[31m")
            await anyio.sleep(0.2)
        return "worked"

    async def bug(self, params, context):
        raise ValueError("secret in /home/alice/key.hex")

    async def refuses(self, params, context):
        raise StoreError("cannot open /home/alice/items.db", hint="see /var/log/x")

    async def seq_low(self, params, context):
        raise SeqTooLowError("too low", hint="read it again")

    async def big(self, params, context):
        return "x" * params.number


class Everybody:
    def decide(self, peer, level):
        return Decision.ALLOW

    @contextmanager
    def on_change(self, callback):
        yield


class Net:
    """A server, and as many streams to it as wanted."""

    def __init__(self, exchange, server, methods, clock, lifecycle, tasks):
        self.exchange = exchange
        self.server = server
        self.methods = methods
        self.clock = clock
        self.lifecycle = lifecycle
        self.tasks = tasks
        self._listener = None

    async def stream(self, caller=BOB):
        """Return a stream of a remote key, or (None) of a local user, served at the other end."""
        near = await MemoryStreams(self.exchange, caller or BOB).dial(ALICE, SERVICE)
        self.server.take(await self._listener.accept(), Caller(caller))
        return near

    async def client(self, caller=BOB):
        return Client(await self.stream(caller))


@asynccontextmanager
async def serving(limits=None):
    clock, methods, lifecycle = FakeClock(), Methods(), AlwaysReady()
    exchange = MemoryExchange()
    async with (
        open_access((Everybody(),)) as access,
        open_rpc((methods,), access, clock) as rpc,
        anyio.create_task_group() as tasks,
        MemoryStreams(exchange, ALICE).listen(SERVICE) as listener,
    ):
        server = RpcServer(rpc, tasks, clock, lifecycle=lifecycle, limits=limits)
        net = Net(exchange, server, methods, clock, lifecycle, tasks)
        net._listener = listener
        yield net
        tasks.cancel_scope.cancel()


@pytest.fixture(name="serving")
def _serving():
    return serving


@pytest.fixture
async def net():
    with anyio.fail_after(20):
        async with serving() as net:
            yield net


async def settle(turns=30):
    """Let everybody run until nothing is left to do but wait."""
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()


@pytest.fixture(name="settle")
def _settle():
    return settle

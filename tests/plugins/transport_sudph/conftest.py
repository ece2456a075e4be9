"""A small honest resolver, and nodes with nothing but SUDPH, on virtual time."""

from __future__ import annotations

import contextlib
import hashlib
from contextlib import asynccontextmanager

import anyio
import pytest

from skycore.errors import DecodeError
from skycore.model.addresses import Address
from skycore.model.sudph import (
    COOKIE_EPOCH_S,
    FOUND,
    UNKNOWN,
    Alive,
    Ask,
    Beat,
    Bind,
    Bound,
    Cookie,
    DialBack,
    Found,
    Leave,
    Resolve,
    bind_message,
    decode,
    encode,
    make_cookie,
    where,
)
from skycore.testing import SimClock, SimNetwork, sim_backend
from skycore.testing.fakes import TEST_NETWORK, SeededEntropy, identity
from transport_sudph.service import open_sudph
from transport_sudph.settings import SudphSettings

RESOLVER, PORTS = "198.51.100.1", (30_178, 30_179)
BIG = bytes(range(256)) * 4_096


class Resolver:
    """Answers as docs/protocols/sudph.md says, without the limits of a real one."""

    def __init__(self, clock):
        self.clock = clock
        self.bound = {}
        self.by_key = {}
        self.sockets = ()
        self.heard = []
        self.said = []
        self.secret = bytes(32)
        self.silent = False

    @asynccontextmanager
    async def running(self, host):
        async with contextlib.AsyncExitStack() as stack:
            self.sockets = [await stack.enter_async_context(host.open_udp("", p)) for p in PORTS]
            async with anyio.create_task_group() as tasks:
                for socket in self.sockets:
                    tasks.start_soon(self.serve, socket)
                yield self
                tasks.cancel_scope.cancel()

    async def serve(self, socket):
        with contextlib.suppress(anyio.ClosedResourceError):
            while True:
                for data, sender in await socket.receive():
                    with contextlib.suppress(DecodeError):
                        message = decode(data)
                        self.heard.append((type(message), sender))
                        if not self.silent:
                            self.take(message, sender, socket)

    def say(self, message, to, socket=None):
        self.said.append((message, to))
        (socket or self.sockets[0]).send(encode(message), to)

    def take(self, message, sender, socket):
        seen = where(sender)
        if isinstance(message, Ask):
            cookie = make_cookie(self.secret, sender, self.clock.wall_s() // COOKIE_EPOCH_S)
            answerer = self.sockets[1] if message.from_other_port else socket
            self.say(Cookie(message.nonce, cookie, seen, PORTS[1]), sender, answerer)
        elif isinstance(message, Bind):
            text = bind_message(TEST_NETWORK.id, message)
            assert TEST_NETWORK.suite.verify(message.public, text, message.signature)
            now = self.clock.wall_s() // COOKIE_EPOCH_S
            assert message.cookie in [make_cookie(self.secret, sender, now - n) for n in (0, 1)]
            session = hashlib.sha256(message.public + message.nonce).digest()[:16]
            self.bound[session] = (message, sender)
            self.by_key[message.public] = session
            self.say(Bound(message.nonce, session, seen, 300), sender)
        elif isinstance(message, Beat):
            known = self.bound.get(message.session, (None, None))[1] == sender
            self.say(Alive(message.count, known, seen), sender)
        elif isinstance(message, Resolve):
            self.resolve(message, sender)
        elif isinstance(message, Leave):
            self.bound.pop(message.session, None)

    def resolve(self, message, sender):
        own = self.bound.get(message.session)
        target = self.bound.get(self.by_key.get(message.target))
        if own is None or own[1] != sender:
            return
        if target is None:
            self.say(Found(message.request, UNKNOWN), sender)
            return
        near = own[1][0] == target[1][0]
        bind, at = target
        self.say(
            Found(message.request, FOUND, where(at), bind.nat, bind.local if near else ()), sender
        )
        self.say(
            DialBack(
                self.by_key[message.target],
                message.request,
                own[0].public,
                where(sender),
                own[0].nat,
                own[0].local if near else (),
            ),
            at,
        )


class Ground:
    """A simulated network with nodes on it that speak nothing but SUDPH."""

    def __init__(self, seed, link=None):
        self.network = SimNetwork(seed, link)
        self.clock = SimClock()
        self.seed = seed
        self.resolver = Resolver(self.clock)

    def resolving(self):
        return self.resolver.running(self.network.host(RESOLVER))

    def node(self, name, address, nat=None, *, resolver=False, **settings):
        return open_sudph(
            SudphSettings(
                listen=settings.pop("listen", f"{address}:7777"),
                resolver=f"{RESOLVER}:{PORTS[0]}" if resolver else "",
                **settings,
            ),
            identity(name),
            self.clock,
            SeededEntropy(int.from_bytes(name.encode(), "big") + self.seed),
            self.network.host(address, nat),
        )

    @asynccontextmanager
    async def pair(self, **settings):
        """Two public nodes and a connection between them."""
        async with (
            self.node("alice", "10.0.0.1", **settings) as alice,
            self.node("bob", "10.0.0.2", **settings) as bob,
            bob.listen() as listener,
        ):
            near = await alice.dial(identity("bob").public, [at("10.0.0.2:7777")])
            far = await listener.accept()
            yield near, far

    async def bind(self, *sudphs, limit_s=30):
        """Wait until nodes are bound, and know their NATs."""
        with anyio.fail_after(limit_s):
            while not all(
                s.meeting.binding.session and s.meeting.binding.test.is_done for s in sudphs
            ):
                await anyio.sleep(0.1)

    async def until(self, is_so, limit_s=60):
        began = anyio.current_time()
        while not is_so():
            assert anyio.current_time() - began < limit_s
            await anyio.sleep(0.05)
        return anyio.current_time() - began


def at(endpoint):
    return Address("sudph", endpoint)


async def transfer(source, target, data):
    """Send and compare byte for byte; return the seconds."""
    began = anyio.current_time()

    async def drink():
        got = bytearray()
        while len(got) < len(data):
            got += await target.receive()
        assert got == data

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.send, data)
        tasks.start_soon(drink)
    return anyio.current_time() - began


async def both_ways(near, far, data=BIG):
    """The same in both directions at once."""
    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(transfer, near, far, data)
        tasks.start_soon(transfer, far, near, data)
    return anyio.current_time() - began


@pytest.fixture
def kit():
    """The helpers of this folder, for tests that are not importable as a package."""

    class Kit:
        Ground = Ground
        BIG = BIG
        at = staticmethod(at)
        transfer = staticmethod(transfer)
        both_ways = staticmethod(both_ways)

    return Kit


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=12 * 3_600)


@pytest.fixture
def ground(sim_seed, anyio_backend):
    """Make a Ground with a link."""

    def make(link=None):
        return Ground(sim_seed, link)

    return make

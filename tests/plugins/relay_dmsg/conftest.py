"""A relay and its clients over streams in memory, on virtual time."""

from __future__ import annotations

import contextlib
import types

import anyio
import pytest

from namespaces_skywire.declarations import ALL
from relay_dmsg.client.door import Door
from relay_dmsg.client.service import open_client
from relay_dmsg.core.dials import make_dial
from relay_dmsg.core.messages import Attach, Request
from relay_dmsg.framing import read_message, send_message
from relay_dmsg.numbers import TO_CLIENT, TO_SERVER
from relay_dmsg.server.service import open_server
from relay_dmsg.settings import DmsgClientSettings, DmsgServerSettings
from skycore.contracts.namespace import Namespaces
from skycore.contracts.publish import Published
from skycore.errors import DialError
from skycore.model.addresses import Address
from skycore.testing import sim_backend
from skycore.testing.fakes import AlwaysReady, SeededEntropy, identity
from skycore.testing.seams import SimClock
from skycore.testing.streams import MemoryExchange, MemoryStreams, MemoryTransports


@pytest.fixture
def anyio_backend():
    return sim_backend(limit_s=12 * 3_600)


class DirectLink:
    """A link that is silent once `silence` is set."""

    type, host, rtt_s, closed = "stcpr", "", None, ""

    def __init__(self):
        self.silence = anyio.Event()

    async def wait_silent(self):
        await self.silence.wait()


class Links(MemoryTransports):
    """Direct links to whoever is not down."""

    def __init__(self, exchange):
        super().__init__()
        self.exchange = exchange
        self.links = {}
        self.ensured = []

    def find(self, remote, kind=None):
        return self.links.get(bytes(remote))

    def listening(self):
        return (Address("stcpr", "10.0.0.1:7777"),)

    async def ensure(self, remote, label="ephemeral", *, look_up=True, kind=None):
        self.ensured.append(bytes(remote))
        await anyio.sleep(0.01)
        if remote in self.exchange.down:
            raise DialError("nobody answers")
        return self.links.setdefault(bytes(remote), DirectLink())


class ServersLinks(Links):
    """Whoever speaks to a server over a stream has a link to it."""

    def find(self, remote, kind=None):
        if remote in self.exchange.down:
            return None
        return self.links.get(bytes(remote)) or types.SimpleNamespace(type="stcpr", host="")


class Publications:
    """A publisher that remembers."""

    def __init__(self):
        self.facts = []

    async def publish(self, fact, *, cas=None):
        self.facts.append(fact)
        return Published(1, False)


class Memory:
    """A data folder."""

    def __init__(self):
        self.kept = {}

    def read(self, name):
        return self.kept.get(name)

    def write(self, name, data):
        self.kept[name] = data


class Bench:
    """Names are keys: `bench.key("alice")`."""

    def __init__(self, stack):
        self.stack = stack
        self.exchange = MemoryExchange(latency_s=0.001)
        self.clock = SimClock()
        self.published = Publications()
        self.files = Memory()
        self.serial = 0

    def who(self, name):
        return identity(name)

    def key(self, name):
        return identity(name).public

    def streams(self, name):
        carrier = MemoryStreams(self.exchange, self.key(name))
        carrier.name = "transport"
        return carrier

    async def server(self, name="server", owns=(), **settings):
        """Run a relay; its links are `relay.links`."""
        links = ServersLinks(self.exchange)
        relay = await self.stack.enter_async_context(
            open_server(
                DmsgServerSettings(**settings),
                (self.streams(name),),
                links,
                self.published,
                (),
                Namespaces(ALL),
                (),
                (),
                owns,
                self.who(name),
                self.clock,
                AlwaysReady(),
            )
        )
        relay.links = links
        return relay

    async def client(self, name, *servers, sources=(), waiting_max=64, **settings):
        """Run a client; return its door, with `door.client` and `door.links`."""
        door, links = Door(waiting_max), Links(self.exchange)
        listening = await self.stack.enter_async_context(door.listen())
        assert listening is door
        texts = tuple(f"{self.key(s).hex()}@10.0.0.9:1" for s in servers)
        door.client = await self.stack.enter_async_context(
            open_client(
                DmsgClientSettings(**{"servers": texts, **settings}),
                door,
                (self.streams(name),),
                links,
                self.published,
                (),
                Namespaces(ALL),
                (),
                sources,
                (),
                self.who(name),
                self.clock,
                SeededEntropy(sum(name.encode())),
                self.files,
                AlwaysReady(),
            )
        )
        door.links = links
        return door

    async def until(self, is_so, limit_s=10.0):
        began = anyio.current_time()
        while not is_so():
            assert anyio.current_time() - began < limit_s, "not so in time"
            await anyio.sleep(0.05)
        return anyio.current_time() - began

    # --- by hand ---------------------------------------------------------------------------------

    async def attach(self, name, server="server"):
        """Attach by hand; return the control stream."""
        stream = await self.streams(name).dial(self.key(server), TO_SERVER)
        await send_message(stream, Attach(1, "test"))
        stream.answer = await read_message(stream)
        return stream

    def request(self, src, dst, **changes):
        """Return a fresh request."""
        self.serial += 1
        fields = {
            "src": self.key(src),
            "dst": self.key(dst),
            "port": 45,
            "time_ns": self.clock.wall_ns(),
            "id": self.serial.to_bytes(16, "big"),
            "purpose": "test",
        }
        return Request(**{**fields, **changes})

    def signed(self, src, dst, **changes):
        """Return a signed dial."""
        return make_dial(self.who(src), self.request(src, dst, **changes))

    async def dial(self, src, dst, server="server", **changes):
        """Dial by hand; return the stream and the answer."""
        stream = await self.streams(src).dial(self.key(server), TO_SERVER)
        await send_message(stream, self.signed(src, dst, **changes))
        return stream, await read_message(stream)

    @contextlib.asynccontextmanager
    async def taking(self, name):
        """Yield the listener on which a server hands dials to a client by hand."""
        async with self.streams(name).listen(TO_CLIENT) as listener:
            yield listener


@pytest.fixture
async def bench():
    async with contextlib.AsyncExitStack() as stack:
        yield Bench(stack)

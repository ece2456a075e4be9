"""Links without secrets, for tests of what stands between the two.

`ClearSecurity` says hello in the clear: it proves nothing and must never leave a test.
`PlainType` is a transport type over any Network, and `open_clear_transports` the real manager.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import msgspec
from anyio.abc import ByteStream

from skycore.contracts.runtime import Clock, Entropy, Identity, Lifecycle, Network, TcpListener
from skycore.contracts.security import Hello, SecureChannel, Security
from skycore.contracts.transport import Listener, TransportType
from skycore.errors import DialError, HandshakeError, TransportClosedError
from skycore.events import Events
from skycore.guards.transports import TransportManager, TransportsSettings, open_transports
from skycore.model.addresses import Address, split_host_port
from skycore.model.keys import PubKey
from skycore.model.limits import HANDSHAKE_TIMEOUT_S, HELLO_MAX
from skycore.testing.fakes import AlwaysReady, SeededEntropy

__all__ = ["ClearSecurity", "PlainType", "open_clear_transports"]

_LOST = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


class _ClearChannel:
    """A byte stream and the hello that was said on it."""

    def __init__(self, stream: ByteStream, hello: Hello) -> None:
        self._stream = stream
        self.hello = hello
        self.remote = PubKey(hello.identity)

    async def send(self, data: bytes) -> None:
        try:
            await self._stream.send(data)
        except _LOST as lost:
            raise TransportClosedError("the connection is gone") from lost

    async def receive(self) -> bytes:
        try:
            return await self._stream.receive(262_144)
        except _LOST as lost:
            raise TransportClosedError("the connection is gone") from lost

    async def aclose(self) -> None:
        await self._stream.aclose()


class ClearSecurity:
    """Exchange hellos, u16 length before each, and believe them. `contracts.security.Security`."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def outbound(
        self, stream: ByteStream, remote: PubKey, listening: Sequence[Address]
    ) -> SecureChannel:
        """Speak first, and expect exactly `remote`."""
        channel = await self._hellos(stream, listening, first=True)
        if channel.remote != remote:
            await stream.aclose()
            raise HandshakeError("somebody else answered")
        return channel

    async def inbound(self, stream: ByteStream, listening: Sequence[Address]) -> SecureChannel:
        """Listen first."""
        return await self._hellos(stream, listening, first=False)

    async def _hellos(
        self, stream: ByteStream, listening: Sequence[Address], *, first: bool
    ) -> SecureChannel:
        own = Hello(1, (), self._identity.public, 0, self._identity.instance_id, tuple(listening))
        body = msgspec.msgpack.encode(own)
        hello = None
        try:
            with anyio.move_on_after(HANDSHAKE_TIMEOUT_S):
                if first:
                    await stream.send(len(body).to_bytes(2, "big") + body)
                hello = await self._read(stream)
                if not first:
                    await stream.send(len(body).to_bytes(2, "big") + body)
        except (*_LOST, msgspec.DecodeError) as bad:
            await stream.aclose()
            raise HandshakeError(f"the hello was not said to its end: {bad!r}") from bad
        if hello is None:
            await stream.aclose()
            raise HandshakeError(f"no hello within {HANDSHAKE_TIMEOUT_S:g} s")
        return _ClearChannel(stream, hello)

    async def _read(self, stream: ByteStream) -> Hello:
        size = int.from_bytes(await _exactly(stream, 2), "big")
        if size > HELLO_MAX:
            raise HandshakeError(f"a hello of {size} bytes")
        return msgspec.msgpack.decode(await _exactly(stream, size), type=Hello)


async def _exactly(stream: ByteStream, size: int) -> bytes:
    held = b""
    while len(held) < size:
        held += await stream.receive(size - len(held))
    return held


class PlainType:
    """A transport type that is nothing but a Network's connections. One fixed port, 7777."""

    def __init__(self, network: Network, host: str, name: str = "plain", port: int = 7_777) -> None:
        self.name = name
        self._network = network
        self._host = host
        self._port = port

    async def dial(self, remote: PubKey, addresses: Sequence[Address]) -> ByteStream:
        """Connect to the first address."""
        if not addresses:
            raise DialError("no address")
        return await self._network.connect_tcp(*split_host_port(addresses[0].endpoint))

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[Listener]:
        """Take the port."""
        async with self._network.listen_tcp(self._host, self._port) as listener:
            yield _PlainListener(listener, self.name)


class _PlainListener:
    def __init__(self, listener: TcpListener, kind: str) -> None:
        self.accept = listener.accept
        self.addresses: Sequence[Address] = (Address(kind, f":{listener.port}"),)


@asynccontextmanager
async def open_clear_transports(
    network: Network,
    host: str,
    own: Identity,
    *,
    clock: Clock,
    settings: TransportsSettings | None = None,
    security: Security | None = None,
    lifecycle: Lifecycle | None = None,
    types: Sequence[TransportType] = (),
    entropy: Entropy | None = None,
    events: Events | None = None,
) -> AsyncIterator[TransportManager]:
    """Run the real transport manager on a network, with hellos in the clear unless told better."""
    async with open_transports(
        settings or TransportsSettings(),
        tuple(types) or (PlainType(network, host),),
        security or ClearSecurity(own),
        own,
        clock,
        entropy or SeededEntropy(int.from_bytes(own.public[:4], "big")),
        lifecycle or AlwaysReady(),
        events or Events(),
    ) as transports:
        assert isinstance(transports, TransportManager)
        yield transports

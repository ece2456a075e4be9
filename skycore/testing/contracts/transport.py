"""What every TransportType must do. Inherit, and give the fixture `transport_type`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute

from skycore.contracts.transport import Listener, TransportType
from skycore.errors import DialError
from skycore.model.addresses import Address
from skycore.testing.fakes import identity

__all__ = ["REMOTE", "TransportTypeContract"]

REMOTE = identity("remote").public
SIZE = 300_000


class TransportTypeContract:
    """The fixture `transport_type` listens on a free port of this machine and can dial itself."""

    @pytest.fixture
    def transport_type(self) -> TransportType:
        """Return the type under test."""
        raise NotImplementedError("give a fixture `transport_type`")

    @asynccontextmanager
    async def connected(
        self, transport_type: TransportType
    ) -> AsyncIterator[tuple[ByteStream, ByteStream]]:
        """Yield the dialler's and the listener's end of a connection."""
        async with transport_type.listen() as listener:
            near = await transport_type.dial(REMOTE, self.seen(listener))
            far = await listener.accept()
            try:
                yield near, far
            finally:
                await near.aclose()
                await far.aclose()

    def seen(self, listener: Listener) -> tuple[Address, ...]:
        """Return the listener's addresses as a node of the same machine reads them."""
        return tuple(
            Address(a.kind, f"127.0.0.1{a.endpoint}") if a.endpoint.startswith(":") else a
            for a in listener.addresses
        )

    async def test_has_a_name(self, transport_type: TransportType) -> None:
        """The name is what addresses say, and part of every transport's id."""
        name = transport_type.name
        assert name and name.isascii() and name == name.lower() and len(name) <= 16

    async def test_tells_addresses_of_its_own_kind(self, transport_type: TransportType) -> None:
        """Who listens can be found."""
        async with transport_type.listen() as listener:
            assert listener.addresses
            assert {a.kind for a in listener.addresses} == {transport_type.name}

    async def test_carries_bytes_in_order_both_ways(self, transport_type: TransportType) -> None:
        """What goes in comes out, whole, at once in both directions."""
        data = bytes(range(256)) * (SIZE // 256)

        async def drink(stream: ByteStream) -> None:
            got = bytearray()
            while len(got) < len(data):
                got += await stream.receive()
            assert got == data

        async with self.connected(transport_type) as ends, anyio.create_task_group() as tasks:
            for end in ends:
                tasks.start_soon(end.send, data)
                tasks.start_soon(drink, end)

    async def test_receives_no_more_than_asked(self, transport_type: TransportType) -> None:
        """A reader bounds what it is handed."""
        async with self.connected(transport_type) as (near, far):
            await near.send(b"x" * 100)
            assert 1 <= len(await far.receive(10)) <= 10

    async def test_end_is_seen(self, transport_type: TransportType) -> None:
        """After the last byte comes anyio's EndOfStream."""
        async with self.connected(transport_type) as (near, far):
            await near.send(b"last")
            await near.aclose()
            got = b""
            with pytest.raises(anyio.EndOfStream):
                while True:
                    got += await far.receive()
            assert got == b"last"

    async def test_closing_wakes_a_reader(self, transport_type: TransportType) -> None:
        """A task that waits for bytes of a closed connection is told so."""
        raised = []

        async def read(stream: ByteStream) -> None:
            try:
                await stream.receive()
            except (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream) as end:
                raised.append(end)

        async with self.connected(transport_type) as (near, _), anyio.create_task_group() as tasks:
            tasks.start_soon(read, near)
            await anyio.wait_all_tasks_blocked()
            await near.aclose()
        assert len(raised) == 1

    async def test_close_is_idempotent(self, transport_type: TransportType) -> None:
        """Closing twice is closing once."""
        async with self.connected(transport_type) as (near, _):
            await near.aclose()
            await near.aclose()

    async def test_knows_the_remote_host(self, transport_type: TransportType) -> None:
        """Handshakes are bounded per source host, which is an attribute of the connection."""
        async with self.connected(transport_type) as (_, far):
            assert far.extra(SocketAttribute.remote_address)[0]

    async def test_a_cancelled_accept_loses_nothing(self, transport_type: TransportType) -> None:
        """Whoever was not accepted yet is accepted next."""
        async with transport_type.listen() as listener:
            with anyio.move_on_after(0):
                await listener.accept()
            near = await transport_type.dial(REMOTE, self.seen(listener))
            far = await listener.accept()
            await near.send(b"hi")
            assert await far.receive() == b"hi"
            await near.aclose()
            await far.aclose()

    async def test_many_connections_at_once(self, transport_type: TransportType) -> None:
        """Connections do not know of each other."""
        ends: list[ByteStream] = []

        async def talk(number: int, addresses: tuple[Address, ...]) -> None:
            near = await transport_type.dial(REMOTE, addresses)
            ends.append(near)
            await near.send(b"%04d" % number)

        async with transport_type.listen() as listener:
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(talk, number, self.seen(listener))
            got = set()
            for _ in range(20):
                far = await listener.accept()
                ends.append(far)
                got.add(await far.receive())
            assert got == {b"%04d" % number for number in range(20)}
            for end in ends:
                await end.aclose()

    async def test_no_address_is_a_dial_error(self, transport_type: TransportType) -> None:
        """Or a type that needs none answers; nothing else may come out."""
        with pytest.raises(DialError):
            await transport_type.dial(REMOTE, ())

    async def test_nobody_there_is_a_dial_error(self, transport_type: TransportType) -> None:
        """The error says what was tried."""
        async with transport_type.listen() as listener:
            addresses = self.seen(listener)
        with pytest.raises(DialError) as caught:
            await transport_type.dial(REMOTE, addresses)
        assert str(caught.value)

    @pytest.mark.parametrize("endpoint", ["", ":", "x", ":0", "host:99999", "[::1", "a b:1"])
    async def test_nonsense_is_a_dial_error(
        self, transport_type: TransportType, endpoint: str
    ) -> None:
        """Endpoints come from peers."""
        with pytest.raises(DialError):
            await transport_type.dial(REMOTE, (Address(transport_type.name, endpoint),))

"""The suite that every secure channel passes: inherit SecurityContract and give one fixture.

class TestNoise(SecurityContract):
    @pytest.fixture
    def open_security(self):
        return lambda identity: open_noise(NoiseSettings(), identity, FakeClock(), ...)
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream

from skycore.contracts.runtime import Identity
from skycore.contracts.security import SecureChannel, Security
from skycore.errors import (
    HandshakeError,
    RemoteProtocolError,
    SkycoreError,
    TransportClosedError,
    WrongNetworkError,
)
from skycore.model.addresses import Address
from skycore.model.keys import ED25519, PubKey
from skycore.model.limits import HANDSHAKE_TIMEOUT_S
from skycore.model.network import NetworkConstants
from skycore.testing.fakes import TEST_NETWORK, identity, stream_pair
from skycore.testing.loop import simulate

__all__ = ["Bent", "OpenSecurity", "SecurityContract", "Shaken", "shake_hands"]

OpenSecurity = Callable[[Identity], AbstractAsyncContextManager[Security]]
HERE = (Address("stcpr", ":7777"),)


@dataclass
class Shaken:
    """What became of a handshake, at each end: a channel or the error."""

    dialler: SecureChannel | SkycoreError
    listener: SecureChannel | SkycoreError

    def channels(self) -> tuple[SecureChannel, SecureChannel]:
        """Return both channels; raises where an end has none."""
        for end in (self.dialler, self.listener):
            if isinstance(end, SkycoreError):
                raise end
        return self.dialler, self.listener  # type: ignore[return-value]


class Bent(ByteStream):
    """A stream whose arriving bytes pass through `bend`, at most `step` at a time."""

    def __init__(
        self, stream: ByteStream, bend: Callable[[bytes], bytes] = bytes, step: int = 2**20
    ) -> None:
        self.stream = stream
        self.bend = bend
        self.step = step
        self.is_closed = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return bent bytes."""
        return self.bend(await self.stream.receive(min(max_bytes, self.step)))

    async def send(self, item: bytes) -> None:
        """Send as it is."""
        await self.stream.send(item)

    async def send_eof(self) -> None:
        """End our side."""
        await self.stream.send_eof()

    async def aclose(self) -> None:
        """Close, and remember it."""
        self.is_closed = True
        await self.stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Return the stream's."""
        return self.stream.extra_attributes


async def shake_hands(
    dialler: Security,
    listener: Security,
    remote: PubKey,
    streams: tuple[ByteStream, ByteStream] | None = None,
) -> Shaken:
    """Run both ends of a handshake over a pipe in memory, or over these two streams."""
    here, there = streams or stream_pair()
    got: dict[str, SecureChannel | SkycoreError] = {}

    async def end(name: str, secure: Callable[[], Any]) -> None:
        try:
            got[name] = await secure()
        except SkycoreError as error:
            got[name] = error

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end, "listener", lambda: listener.inbound(there, HERE))
        tasks.start_soon(end, "dialler", lambda: dialler.outbound(here, remote, ()))
    return Shaken(got["dialler"], got["listener"])


async def receive_exactly(channel: SecureChannel, size: int) -> bytes:
    """Return the next `size` bytes."""
    got = bytearray()
    while len(got) < size:
        got += await channel.receive()
    assert len(got) == size
    return bytes(got)


class SecurityContract:
    """Give `open_security`: a function that opens your Security for an identity."""

    alice = identity("alice")
    bob = identity("bob")
    carol = identity("carol")

    @pytest.fixture
    def open_security(self) -> OpenSecurity:
        """Return how to open a Security for an identity."""
        raise NotImplementedError

    @asynccontextmanager
    async def two(
        self,
        open_security: OpenSecurity,
        one: Identity | None = None,
        other: Identity | None = None,
    ) -> AsyncIterator[tuple[Security, Security]]:
        """Open two: alice's and bob's, or those of other identities."""
        async with (
            open_security(one or self.alice) as first,
            open_security(other or self.bob) as second,
        ):
            yield first, second

    async def test_both_learn_who_is_there(self, open_security: OpenSecurity) -> None:
        """The remote's key, and its Hello in full."""
        async with self.two(open_security) as (alice, bob):
            here, there = (await shake_hands(alice, bob, self.bob.public)).channels()
            assert here.remote == here.hello.identity == self.bob.public
            assert there.remote == there.hello.identity == self.alice.public
            assert here.hello.instance_id == self.bob.instance_id
            assert there.hello.instance_id == self.alice.instance_id
            assert here.hello.listening == HERE
            assert there.hello.listening == ()
            assert here.hello.version == there.hello.version >= 1

    @pytest.mark.parametrize("size", [1, 65_519, 65_520, 300_000])
    async def test_bytes_cross_both_ways(self, open_security: OpenSecurity, size: int) -> None:
        """Whatever the size, byte for byte."""
        data = (hashlib.sha256(b"data").digest() * (size // 32 + 1))[:size]
        async with self.two(open_security) as (alice, bob):
            ends = (await shake_hands(alice, bob, self.bob.public)).channels()
            for one, other in (ends, ends[::-1]):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(one.send, data)
                    assert await receive_exactly(other, size) == data

    async def test_nothing_sent_arrives_in_clear(self, open_security: OpenSecurity) -> None:
        """Neither the bytes sent nor either identity can be read on the way."""
        seen = bytearray()

        def watch(data: bytes) -> bytes:
            seen.extend(data)
            return data

        one, other = stream_pair()
        async with self.two(open_security) as (alice, bob):
            shaken = await shake_hands(
                alice, bob, self.bob.public, (Bent(one, watch), Bent(other, watch))
            )
            here, there = shaken.channels()
            await here.send(b"a secret sentence")
            assert await there.receive() == b"a secret sentence"
        for clear in (b"secret", self.alice.public, self.bob.public, TEST_NETWORK.id):
            assert clear not in seen

    async def test_t4891_one_byte_a_segment(self, open_security: OpenSecurity) -> None:
        """Handshake and data arrive one byte at a time, and all in one piece."""
        one, other = stream_pair()
        async with self.two(open_security) as (alice, bob):
            shaken = await shake_hands(
                alice, bob, self.bob.public, (Bent(one, step=1), Bent(other, step=1))
            )
            here, there = shaken.channels()
            await there.send(b"slow")
            assert await receive_exactly(here, 4) == b"slow"

    async def test_what_follows_the_handshake_at_once_is_not_lost(
        self, open_security: OpenSecurity
    ) -> None:
        """The listener may send before the dialler has read the end of the handshake."""
        one, other = stream_pair()
        async with self.two(open_security) as (alice, bob):
            got: list[bytes] = []

            async def listen() -> None:
                channel = await bob.inbound(other, ())
                await channel.send(b"first word")
                got.append(await channel.receive())

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listen)
                channel = await alice.outbound(one, self.bob.public, ())
                assert await channel.receive() == b"first word"
                await channel.send(b"answer")
        assert got == [b"answer"]

    async def test_the_wrong_key_there_is_refused(self, open_security: OpenSecurity) -> None:
        """Dialling bob where carol is: both ends fail, both streams are closed."""
        one, other = (Bent(end) for end in stream_pair())
        async with self.two(open_security, other=self.carol) as (alice, carol):
            shaken = await shake_hands(alice, carol, self.bob.public, (one, other))
        for error in (shaken.dialler, shaken.listener):
            assert isinstance(error, HandshakeError)
            assert not isinstance(error, WrongNetworkError)
        assert one.is_closed
        assert other.is_closed

    async def test_another_network_is_refused_by_name(self, open_security: OpenSecurity) -> None:
        """The same key on another network: the dialler is told which of the two it is."""
        elsewhere = identity("bob", NetworkConstants(ED25519, "elsewhere"))
        one, other = (Bent(end) for end in stream_pair())
        async with self.two(open_security, other=elsewhere) as (alice, bob):
            shaken = await shake_hands(alice, bob, self.bob.public, (one, other))
        assert isinstance(shaken.dialler, WrongNetworkError)
        assert isinstance(shaken.listener, HandshakeError)
        assert one.is_closed
        assert other.is_closed

    async def test_n11_dialling_oneself_is_refused(self, open_security: OpenSecurity) -> None:
        """Our own key is nobody's peer."""
        async with self.two(open_security, other=self.alice) as (one, other):
            shaken = await shake_hands(one, other, self.alice.public)
        assert isinstance(shaken.dialler, HandshakeError)
        assert isinstance(shaken.listener, HandshakeError)

    async def test_n10_a_forged_byte_ends_the_channel(self, open_security: OpenSecurity) -> None:
        """Authenticated bytes or a named error, and closed after it."""
        one, other = stream_pair()
        bending = False

        def bend(data: bytes) -> bytes:
            return data[:-1] + bytes((data[-1] ^ 1,)) if bending else data

        there = Bent(other, bend)
        async with self.two(open_security) as (alice, bob):
            here, far = (await shake_hands(alice, bob, self.bob.public, (one, there))).channels()
            await here.send(b"good")
            assert await far.receive() == b"good"
            bending = True
            await here.send(b"bad")
            with pytest.raises(RemoteProtocolError):
                await far.receive()
            bending = False
            for _ in range(2):
                with pytest.raises(TransportClosedError):
                    await far.receive()
                with pytest.raises(TransportClosedError):
                    await far.send(b"x")
        assert there.is_closed

    async def test_close_is_seen_by_both(self, open_security: OpenSecurity) -> None:
        """The closer at once, the other when it reads."""
        async with self.two(open_security) as (alice, bob):
            here, there = (await shake_hands(alice, bob, self.bob.public)).channels()
            await here.send(b"last words")
            await here.aclose()
            await here.aclose()
            assert await there.receive() == b"last words"
            with pytest.raises(TransportClosedError):
                await there.receive()
            with pytest.raises(TransportClosedError):
                await here.send(b"x")
            with pytest.raises(TransportClosedError):
                await here.receive()

    async def test_a_cancelled_read_loses_nothing(self, open_security: OpenSecurity) -> None:
        """Reading may be given up and taken up again."""
        async with self.two(open_security) as (alice, bob):
            here, there = (await shake_hands(alice, bob, self.bob.public)).channels()
            with anyio.CancelScope() as scope:
                scope.cancel()
                await there.receive()
            await here.send(b"still here")
            assert await there.receive() == b"still here"

    @pytest.mark.parametrize("role", ["dialler", "listener"])
    def test_f6_slowloris(self, open_security: OpenSecurity, role: str) -> None:
        """One byte every 2 s: the limit is absolute, and the stream is closed (virtual time)."""

        async def slowloris() -> float:
            one, other = stream_pair()
            end = Bent(one)

            async def drip() -> None:
                for byte in b"\x00\x30" + bytes(48):
                    await other.send(bytes((byte,)))
                    await anyio.sleep(2)

            async with open_security(self.alice) as alice, anyio.create_task_group() as tasks:
                tasks.start_soon(drip)
                begun = anyio.current_time()
                with pytest.raises(HandshakeError):
                    if role == "dialler":
                        await alice.outbound(end, self.bob.public, ())
                    else:
                        await alice.inbound(end, ())
                took = anyio.current_time() - begun
                tasks.cancel_scope.cancel()
            assert end.is_closed
            return took

        assert simulate(slowloris) == pytest.approx(HANDSHAKE_TIMEOUT_S, abs=0.5)

    @pytest.mark.parametrize("role", ["dialler", "listener"])
    async def test_a_connection_lost_in_mid_handshake(
        self, open_security: OpenSecurity, role: str
    ) -> None:
        """A named error, not the library's."""
        one, other = stream_pair()
        end = Bent(one)
        await other.aclose()
        async with open_security(self.alice) as alice:
            with pytest.raises(HandshakeError):
                if role == "dialler":
                    await alice.outbound(end, self.bob.public, ())
                else:
                    await alice.inbound(end, ())
        assert end.is_closed

    async def test_cancelling_a_handshake_closes_the_stream(
        self, open_security: OpenSecurity
    ) -> None:
        """Whoever gives up leaves nothing open."""
        one, _other = stream_pair()
        end = Bent(one)
        async with open_security(self.alice) as alice, anyio.create_task_group() as tasks:
            tasks.start_soon(alice.inbound, end, ())
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert end.is_closed

    async def test_many_handshakes_at_once(self, open_security: OpenSecurity) -> None:
        """A hundred together, each with a channel of its own."""
        async with self.two(open_security) as (alice, bob), anyio.create_task_group() as tasks:
            found: list[Shaken] = []

            async def one() -> None:
                found.append(await shake_hands(alice, bob, self.bob.public))

            for _ in range(100):
                tasks.start_soon(one)
        for number, shaken in enumerate(found):
            here, there = shaken.channels()
            await here.send(b"%d" % number)
            assert await there.receive() == b"%d" % number

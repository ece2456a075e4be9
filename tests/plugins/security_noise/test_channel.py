"""The channel as a shell: one send, nothing lost, and everything fails together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import ByteStream

from security_noise.channel import READ_MAX, NoiseChannel
from security_noise.core.cipher import CipherState
from security_noise.core.frames import FrameOpener, FrameSealer
from skycore.contracts.security import Hello
from skycore.errors import (
    NonceExhaustedError,
    RemoteProtocolError,
    TransportClosedError,
)
from skycore.model.keys import PubKey

KEY = bytes(32)
HELLO = Hello(1, (), bytes(32), 0, bytes(16))


class Wire(ByteStream):
    """Notes each call; `chunks` are what arrives, then the end."""

    def __init__(self, *chunks: bytes, fault: BaseException | None = None) -> None:
        self.chunks = list(chunks)
        self.fault = fault
        self.sent: list[bytes] = []
        self.asked: list[int] = []
        self.closes = 0

    async def receive(self, max_bytes: int = 65536) -> bytes:
        self.asked.append(max_bytes)
        await anyio.lowlevel.checkpoint()
        if self.chunks:
            return self.chunks.pop(0)
        raise self.fault or anyio.EndOfStream

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        if self.fault:
            raise self.fault
        self.sent.append(bytes(item))

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.closes += 1

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {}


def channel(wire: Wire, n: int = 0, early: bytes = b"") -> NoiseChannel:
    sealer, opener = FrameSealer(CipherState(KEY, n)), FrameOpener(CipherState(KEY), bytearray())
    return NoiseChannel(wire, PubKey(bytes(32)), HELLO, sealer, opener, early)


def sealed(*messages: bytes) -> bytes:
    seal = FrameSealer(CipherState(KEY))
    return b"".join(seal.seal(message) for message in messages)


async def test_all_frames_in_one_send() -> None:
    wire = Wire()
    link = channel(wire)
    await link.send(bytes(200_000))
    await link.send(b"")
    assert len(wire.sent) == 1
    assert len(wire.sent[0]) == 200_000 + 4 * 18


async def test_all_frames_in_one_receive() -> None:
    wire = Wire(sealed(b"one", b"two", b"three"))
    link = channel(wire)
    assert await link.receive() == b"onetwothree"
    assert wire.asked == [READ_MAX]


async def test_early_bytes_come_first_and_may_end_in_mid_frame() -> None:
    data = sealed(b"early", b"late")
    for cut in range(1, len(data)):
        wire = Wire(data[cut:])
        link = channel(wire, early=data[:cut])
        got = b""
        while len(got) < 9:
            got += await link.receive()
        assert got == b"earlylate"


async def test_n10_good_frames_then_the_forged_one_without_reading_on() -> None:
    wire = Wire(sealed(b"good") + bytes(30))
    link = channel(wire)
    assert await link.receive() == b"good"
    with pytest.raises(RemoteProtocolError):
        await link.receive()
    assert len(wire.asked) == 1
    assert wire.closes == 1


@pytest.mark.parametrize(
    ("chunks", "why"),
    [((), "the remote closed it"), ((b"\x00",), "mid-frame"), ((sealed(b"x")[:9],), "mid-frame")],
)
async def test_the_end_of_the_stream(chunks: tuple[bytes, ...], why: str) -> None:
    wire = Wire(*chunks)
    link = channel(wire)
    for _ in range(2):
        with pytest.raises(TransportClosedError, match=why):
            await link.receive()
    assert wire.closes >= 1


@pytest.mark.parametrize(
    "fault", [anyio.BrokenResourceError(), anyio.ClosedResourceError(), ConnectionResetError()]
)
async def test_a_lost_connection_is_translated(fault: BaseException) -> None:
    wire = Wire(fault=fault)
    link = channel(wire)
    with pytest.raises(TransportClosedError, match="lost"):
        await link.send(b"x")
    with pytest.raises(TransportClosedError, match="lost"):
        await link.receive()
    with pytest.raises(TransportClosedError, match="lost"):
        await channel(Wire(fault=fault)).receive()


async def test_a_send_cut_short_closes_the_channel() -> None:
    wire = Wire()
    link = channel(wire)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await link.send(b"x")
    assert wire.closes == 1
    with pytest.raises(TransportClosedError, match="cut short"):
        await link.send(b"y")
    assert not wire.sent


async def test_n9_an_exhausted_key_closes_the_channel() -> None:
    wire = Wire()
    link = channel(wire, n=2**64 - 2)
    await link.send(b"the last")
    with pytest.raises(NonceExhaustedError):
        await link.send(b"one more")
    with pytest.raises(TransportClosedError):
        await link.send(b"and again")
    assert len(wire.sent) == 1
    assert wire.closes == 1


async def test_a_cancelled_receive_keeps_its_place() -> None:
    data = sealed(b"one", b"two")
    wire = Wire(data[:10], data[10:])
    link = channel(wire)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await link.receive()
    assert await link.receive() == b"onetwo"


async def test_closed_here() -> None:
    wire = Wire(sealed(b"unread"))
    link = channel(wire)
    await link.aclose()
    assert wire.closes == 1
    with pytest.raises(TransportClosedError, match="closed here"):
        await link.receive()

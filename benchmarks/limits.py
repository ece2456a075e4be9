"""What this machine can do at most: a bare protocol with ChaCha20-Poly1305, and bare checks.

Why so bare: a figure of ours says little on a machine whose speed swings by half within minutes;
its share of the limit, taken a second before, does.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Sequence
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from skycore.model.items import MutableItem, item_signed_bytes
from skycore.model.network import NetworkConstants

__all__ = ["EchoServer", "check_rate", "echo_rate", "stream_rate"]

_LENGTH = struct.Struct(">I")
_NONCE = struct.Struct("<4xQ")
_KEY: Final = bytes(range(32))
_PLAIN_MAX: Final = 65_519


class _Sealed(asyncio.Protocol):
    """Frames `u32 length ‖ sealed`, opened and handed to `got`."""

    def __init__(self) -> None:
        self._aead = ChaCha20Poly1305(_KEY)
        self._in = self._out = 0
        self._held = bytearray()
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def send(self, data: bytes) -> None:
        sealed = self._aead.encrypt(_NONCE.pack(self._out), data, None)
        self._out += 1
        self.transport.write(_LENGTH.pack(len(sealed)) + sealed)

    def data_received(self, data: bytes) -> None:
        held = self._held
        held += data
        at = 0
        while len(held) - at >= 4:
            end = at + 4 + _LENGTH.unpack_from(held, at)[0]
            if end > len(held):
                break
            plain = self._aead.decrypt(_NONCE.pack(self._in), bytes(held[at + 4 : end]), None)
            self._in += 1
            self.got(plain)
            at = end
        del held[:at]

    def got(self, plain: bytes) -> None:
        raise NotImplementedError

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()


class EchoServer(_Sealed):
    """Echoes short messages; swallows long ones and tells their sum when a short one comes."""

    swallowed = 0

    def got(self, plain: bytes) -> None:
        if len(plain) > 1_024:
            self.swallowed += len(plain)
        else:
            self.send(plain)


class _Asker(_Sealed):
    left = 0

    def start(self, count: int, in_flight: int) -> asyncio.Future[None]:
        self.left = count
        self._to_send = count - in_flight
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for _ in range(in_flight):
            self.send(b"x" * 64)
        return self.done

    def got(self, plain: bytes) -> None:
        self.left -= 1
        if self._to_send > 0:
            self._to_send -= 1
            self.send(plain)
        elif not self.left and not self.done.done():
            self.done.set_result(None)


async def _connected(port: int) -> _Asker:
    _, asker = await asyncio.get_running_loop().create_connection(_Asker, "127.0.0.1", port)
    return asker


async def echo_rate(port: int, in_flight: int, seconds: float = 0.5) -> float:
    """Return sealed round trips of 64 bytes per second."""
    asker = await _connected(port)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        await asker.start(1_000, in_flight)
        done += 1_000
    rate = done / (time.perf_counter() - began)
    asker.transport.close()
    return rate


async def stream_rate(port: int, total: int) -> float:
    """Return sealed bytes per second in writes of 64 KiB, until the other side has them all."""
    asker = await _connected(port)
    block, sent, began = b"x" * _PLAIN_MAX, 0, time.perf_counter()
    while sent < total:
        await asker.writable.wait()
        asker.send(block)
        sent += len(block)
        if sent % (4 * len(block)) == 0:
            await asyncio.sleep(0)
    await asker.start(1, 1)
    rate = sent / (time.perf_counter() - began)
    asker.transport.close()
    return rate


def check_rate(network: NetworkConstants, items: Sequence[MutableItem]) -> float:
    """Return bare signature checks per second on one core: the limit of a bulk sync."""
    ready = [(i.signer, item_signed_bytes(network, i), i.sig) for i in items]
    verify = network.suite.verify
    began = time.perf_counter()
    for signer, signed, sig in ready:
        assert verify(signer, signed, sig)
    return len(ready) / (time.perf_counter() - began)

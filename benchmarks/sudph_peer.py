"""One end of a connection that is measured: SUDPH, TCP, or aioquic as it comes.

`python -m benchmarks.sudph_peer serve KIND PORT`, `... call KIND HOST PORT BULK_S CALLS_S`. The
same work over each: blocks of 64 KiB, 2 MiB of them not confirmed at most; and questions of 64
bytes that are answered by as many, 16 under way. The caller prints JSON.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import anyio
from aioquic.asyncio.client import connect
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from skycore.model.addresses import Address
from skycore.runtime.clock import RealClock
from skycore.runtime.network import RealNetwork
from skycore.testing.fakes import SeededEntropy, identity
from transport_sudph.service import open_sudph
from transport_sudph.settings import SudphSettings

BLOCK = 65_536
UNCONFIRMED_MAX = 32
ASKED = 64
IN_FLIGHT = 16
ALPN = ["bench"]


class Stream(Protocol):
    """What all three kinds have."""

    async def send(self, item: bytes) -> None: ...
    async def receive(self, max_bytes: int = BLOCK) -> bytes: ...


class _Quic:
    """An asyncio pair of aioquic as a stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, item: bytes) -> None:
        self._writer.write(item)
        await self._writer.drain()

    async def receive(self, max_bytes: int = BLOCK) -> bytes:
        data = await self._reader.read(max_bytes)
        if not data:
            raise anyio.EndOfStream
        return data


class _Whole:
    """Reads exact numbers of bytes."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._held = stream, bytearray()

    async def read(self, size: int) -> bytes:
        while len(self._held) < size:
            self._held += await self._stream.receive()
        data = bytes(self._held[:size])
        del self._held[:size]
        return data


async def answer(stream: Stream) -> None:
    """Confirm blocks and answer questions until the other side goes."""
    whole = _Whole(stream)
    try:
        while True:
            if await whole.read(1) == b"B":
                await whole.read(BLOCK)
                await stream.send(b"b")
            else:
                await stream.send(await whole.read(ASKED))
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        return


async def measure(stream: Stream, bulk_s: float, calls_s: float) -> dict[str, float]:
    """Return bytes and answered questions in a second."""
    whole = _Whole(stream)
    blocks = await _for(stream, whole, b"B" + bytes(BLOCK), 1, UNCONFIRMED_MAX, bulk_s)
    calls = await _for(stream, whole, b"Q" + bytes(ASKED), ASKED, IN_FLIGHT, calls_s)
    return {"bytes_per_s": blocks * BLOCK, "calls_per_s": calls}


async def _for(
    stream: Stream, whole: _Whole, item: bytes, answer_size: int, at_once: int, seconds: float
) -> float:
    """Send an item again and again; return how many were answered in a second."""
    began, under_way, done = time.perf_counter(), 0, 0
    while True:
        passed = time.perf_counter() - began
        while under_way < at_once and passed < seconds:
            await stream.send(item)
            under_way += 1
        if not under_way:
            return done / passed
        await whole.read(answer_size)
        under_way -= 1
        done += 1


@asynccontextmanager
async def _sudph(name: str, port: int) -> AsyncIterator[Any]:
    entropy = SeededEntropy(time.monotonic_ns())
    settings = SudphSettings(listen=f"0.0.0.0:{port}")
    async with open_sudph(settings, identity(name), RealClock(), entropy, RealNetwork()) as sudph:
        yield sudph


async def serve_sudph(port: int) -> None:
    async with _sudph("bob", port) as sudph, sudph.listen() as listener:
        _ready()
        await answer(await listener.accept())


async def call_sudph(host: str, port: int, work: Callable[[Stream], Awaitable[None]]) -> None:
    async with _sudph("alice", 0) as sudph:
        to = [Address("sudph", f"{host}:{port}")]
        await work(await sudph.dial(identity("bob").public, to))


async def serve_tcp(port: int) -> None:
    async with RealNetwork().listen_tcp("0.0.0.0", port) as listener:
        _ready()
        await answer(await listener.accept())


async def call_tcp(host: str, port: int, work: Callable[[Stream], Awaitable[None]]) -> None:
    await work(await RealNetwork().connect_tcp(host, port))


async def serve_quic(port: int) -> None:
    done = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(answer(_Quic(reader, writer)))
        tasks.add(task)
        task.add_done_callback(lambda _: done.set())

    config = QuicConfiguration(is_client=False, alpn_protocols=ALPN)
    with tempfile.TemporaryDirectory() as name:
        config.load_cert_chain(*_certificate(Path(name)))
    server = await serve("0.0.0.0", port, configuration=config, stream_handler=handle)
    _ready()
    await done.wait()
    server.close()


async def call_quic(host: str, port: int, work: Callable[[Stream], Awaitable[None]]) -> None:
    config = QuicConfiguration(alpn_protocols=ALPN, verify_mode=ssl.CERT_NONE)
    async with connect(host, port, configuration=config) as client:
        await work(_Quic(*await client.create_stream()))


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


def _ready() -> None:
    print("ready", flush=True)


async def main(*given: str) -> None:
    """Serve one connection, or make it."""
    mode, kind, *words = given
    servers = {"sudph": serve_sudph, "tcp": serve_tcp, "quic": serve_quic}
    callers = {"sudph": call_sudph, "tcp": call_tcp, "quic": call_quic}
    if mode == "serve":
        await servers[kind](int(words[0]))
        return
    host, port, bulk_s, calls_s = words

    async def work(stream: Stream) -> None:
        print(json.dumps(await measure(stream, float(bulk_s), float(calls_s))), flush=True)

    await callers[kind](host, int(port), work)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])

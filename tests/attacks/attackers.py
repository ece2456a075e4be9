"""The attackers' toolkit: hostile peers over real sockets, and a judge who watches the victim.

The judge asserts rule 2.3 of the threat model for every attack: a named error in a counter that
`skynode visor info` shows, nothing but the attacker's own connection lost, memory and descriptors
flat, and an honest peer answered all the while. There is no assertion about time anywhere: limits
only bound how long a failure takes.
"""

from __future__ import annotations

import json
import os
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from dht_kademlia.core.codec import MsgpackCodec
from dht_kademlia.core.messages import Ping
from security_noise.service import open_noise
from security_noise.settings import NoiseSettings
from skycore.contracts.streams import Service, Stream, Streams
from skycore.contracts.transport import Transports
from skycore.control import control_socket_path
from skycore.errors import SkycoreError
from skycore.frames import FrameReader
from skycore.model.addresses import Address, Contact
from skycore.model.keys import PubKey
from skycore.model.numbers import DhtMethod, PacketType, Port
from skycore.model.packets import PacketParser, encode_packet
from skycore.node import Node
from skycore.runtime.clock import RealClock
from skycore.runtime.entropy import RealEntropy
from skycore.runtime.network import TcpStream
from skycore.testing.fakes import identity
from skycore.testing.processes import NodeProcess

NETWORK = "network.name='skycore-test'"
LISTEN = "transport_stcpr.listen=127.0.0.1:0"
DHT = Service("dht", int(PacketType.DHT), int(Port.DHT))
VISOR_RPC = Service("visor_rpc", int(PacketType.VISOR_RPC), int(Port.VISOR_RPC))
WAIT_S = 60.0
GROWTH_MAX_KIB = 16 * 1024
WORKERS = 16
codec = MsgpackCodec()


# --- the victim, as its operator sees it -------------------------------------------------------


@dataclass(frozen=True)
class Vitals:
    """What a process holds of the system."""

    rss_kib: int
    fds: int


class Victim:
    """A node in a process of its own."""

    def __init__(self, node: NodeProcess) -> None:
        self.node = node
        self.public = PubKey(bytes.fromhex(node.key()))
        self.port = node.port
        assert node.process is not None
        self.pid = node.process.pid

    def ask(self, method: str, /, **params: Any) -> Any:
        """Call a method as the node's user; without the half second that a command line takes."""
        return ask(self.node.data, method, **params)

    def vitals(self) -> Vitals:
        """Measure the process now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        rss = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return Vitals(int(rss.split()[1]), len(os.listdir(f"/proc/{self.pid}/fd")))

    def fields(self, part: str) -> dict[str, Any]:
        """Return what a part says of itself in `visor info`."""
        parts = self.ask("Summary")["parts"]
        return next(p["fields"] for p in parts if p["name"] == part)

    def counters(self) -> dict[str, int]:
        """Return what the transport manager counted."""
        return dict(self.fields("transports")["counters"])

    def no_crash(self) -> None:
        """Assert that it lives and that its log shows no traceback."""
        assert self.node.process is not None
        assert self.node.process.poll() is None
        assert "Traceback" not in self.node.log.read_text()


def ask(data: Path, method: str, /, **params: Any) -> Any:
    """Call a method over a node's control socket."""
    with control(data) as line:
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        line.sendall(frame(json.dumps(call).encode()))
        while True:
            answer = json.loads(read_frame(line))
            if "error" in answer:
                raise AssertionError(answer["error"])
            if "result" in answer:
                return answer["result"]


@contextmanager
def control(data: Path) -> Iterator[socket.socket]:
    """Connect to a node's control socket."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(WAIT_S)
        line.connect(str(control_socket_path(data)))
        yield line


def frame(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


def read_frame(line: socket.socket) -> bytes:
    (size,) = struct.unpack(">I", _exactly(line, 4))
    return _exactly(line, size)


def _exactly(line: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = line.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return bytes(data)


TCP_ALONE = 'node.disable=["transport_sudph"]'
"""The attackers speak TCP. QUIC is loaded with the first dial by UDP: 12 MiB that no link left."""


@contextmanager
def victim_process(
    folder: Path, *settings: str, profile: str = "fullnode", whitelist: tuple[str, ...] = ()
) -> Iterator[Victim]:
    """Start a node, and end it."""
    listed = f"access_whitelist.whitelist={json.dumps(whitelist)}"
    with NodeProcess(folder / "victim") as node:
        node.start(LISTEN, NETWORK, listed, TCP_ALONE, *settings, profile=profile)
        yield Victim(node)


# --- attackers ---------------------------------------------------------------------------------


def tcp(port: int, host: str = "127.0.0.1") -> TcpStream:
    """Connect from an address of our choice, so that one attacker is many hosts."""
    sock = socket.socket()
    sock.bind((host, 0))
    sock.connect(("127.0.0.1", port))
    return TcpStream(sock)


def source(number: int) -> str:
    """Return the loopback address of an attacker."""
    return f"127.0.{1 + number // 250}.{1 + number % 250}"


class Stranger:
    """A key with a real handshake, and no manners after it."""

    def __init__(self, name: str, network: Any = None) -> None:
        self.identity = identity(name) if network is None else identity(name, network)

    @asynccontextmanager
    async def armed(self) -> AsyncIterator[Stranger]:
        """Be ready to shake hands."""
        opened = open_noise(NoiseSettings(), self.identity, RealClock(), RealEntropy())
        async with opened as self.security:
            yield self

    async def connect(self, victim: Victim, host: str = "127.0.0.1") -> HostileLink:
        """Shake hands with the victim."""
        raw = tcp(victim.port, host)
        return HostileLink(await self.security.outbound(raw, victim.public, ()), raw)


class HostileLink:
    """An authenticated link on which anything may be sent."""

    def __init__(self, channel: Any, raw: TcpStream) -> None:
        self.channel = channel
        self.raw = raw
        self.parser = PacketParser()

    async def packet(self, packet_type: int, payload: bytes, route: int = 0) -> None:
        await self.channel.send(encode_packet(packet_type, payload, route))

    async def packets(self) -> list[tuple[int, int, bytes]]:
        """Return the next packets of the victim."""
        return list(self.parser.feed(await self.channel.receive()))

    async def until_closed(self) -> str:
        """Read until the victim ends the link; return the reason that it gave."""
        said = ""
        with anyio.fail_after(WAIT_S):
            try:
                while True:
                    for packet_type, _, payload in await self.packets():
                        if packet_type == PacketType.ERROR and payload[:1] == b"\0":
                            said = payload[1:].decode()
            except SkycoreError:
                return said

    async def aclose(self) -> None:
        await self.channel.aclose()


async def rude_close(stream: TcpStream) -> None:
    """Reset instead of closing: leaves nothing in TIME_WAIT either."""
    if stream._socket.fileno() >= 0:
        stream._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()


async def until_end(stream: TcpStream) -> bytes:
    """Read whatever comes until the other side is gone."""
    got = b""
    with anyio.fail_after(WAIT_S):
        try:
            while True:
                got += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return got


async def flood(count: int, one: Callable[[int], Awaitable[None]], workers: int = WORKERS) -> None:
    """Do something `count` times, some at once."""
    numbers = iter(range(count))
    with bare():
        async with anyio.create_task_group() as tasks:

            async def work() -> None:
                for number in numbers:
                    await one(number)

            for _ in range(workers):
                tasks.start_soon(work)


@contextmanager
def bare() -> Iterator[None]:
    """Raise what went wrong, not a group of groups of it."""
    try:
        yield
    except BaseExceptionGroup as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


@asynccontextmanager
async def program(victim: Victim, name: str = "") -> AsyncIterator[Node]:
    """Run a real node in this process that knows the victim, under a name's key if given."""
    settings = {"network": {"name": "skycore-test"}, "transport_stcpr": {"listen": ""}}
    secret = identity(name).secret if name else None
    async with Node.open("visor", settings, secret=secret) as node:
        address = Address("stcpr", f"127.0.0.1:{victim.port}")
        node.get(Transports).addresses.learn(Contact(victim.public, (address,)), pinned=True)
        yield node


# --- the judge ---------------------------------------------------------------------------------


class Bystander:
    """An honest peer that asks all the time and must be answered all the time."""

    def __init__(self, node: Node, victim: Victim) -> None:
        self._node = node
        self._victim = victim
        self.answered = 0

    async def ask(self) -> None:
        stream = await self._node.get(Streams).dial(self._victim.public, DHT)
        try:
            await self._ask(stream)
        finally:
            await stream.aclose()

    async def _ask(self, stream: Stream) -> None:
        with anyio.fail_after(WAIT_S):
            await stream.send(codec.encode(DhtMethod.PING, Ping()))
            body = await FrameReader(stream, 65_536).read()
        assert body is not None
        codec.decode_reply(DhtMethod.PING, body)
        self.answered += 1

    async def keep_asking(self) -> None:
        while True:
            await self.ask()
            await anyio.sleep(0.05)


async def settle(done: Callable[[], bool], what: Callable[[], str] = lambda: "") -> None:
    """Wait until the victim has let go."""
    with anyio.move_on_after(WAIT_S):
        while not done():
            await anyio.sleep(0.05)
    assert done(), what()


@asynccontextmanager
async def watched(victim: Victim, *, growth_max_kib: int = GROWTH_MAX_KIB) -> AsyncIterator[Any]:
    """Judge an attack: before, meanwhile and after."""
    with bare():
        async with (
            program(victim) as node,
            judged(victim, Bystander(node, victim), growth_max_kib) as bystander,
        ):
            yield bystander


@asynccontextmanager
async def judged(victim: Victim, bystander: Bystander, growth_max_kib: int) -> AsyncIterator[Any]:
    await bystander.ask()
    victim.fields("transports")
    before = victim.vitals()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bystander.keep_asking)
        yield bystander
        await bystander.ask()
        tasks.cancel_scope.cancel()
    seen = bystander.answered
    assert seen >= 2

    def flat() -> bool:
        now = victim.vitals()
        return now.fds <= before.fds + 1 and now.rss_kib <= before.rss_kib + growth_max_kib

    await settle(flat, lambda: f"before {before}, after {victim.vitals()}")
    after = victim.vitals()
    print(f"rss {before.rss_kib} -> {after.rss_kib} KiB, fds {before.fds} -> {after.fds}, "
          f"bystander answered {seen} times")  # fmt: skip
    await bystander.ask()
    victim.no_crash()


def dice_of(request: pytest.FixtureRequest, seed: int = 1) -> random.Random:
    """Return a test's dice; the seed is shown when it fails."""
    print(f"seed {seed} of {request.node.name}")
    return random.Random(f"{seed} {request.node.name}")

"""The seams: clock, entropy, network, files, workers, and the node's own identity.

Why seams: the same node must run on real time and sockets, and on a virtual clock and a network
in memory (docs/ARCHITECTURE.md, sentence 8). Nothing outside skycore/runtime and skycore/testing
reads a clock, draws randomness, opens a socket, touches the data folder or starts a thread.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from anyio.abc import ByteStream

from skycore.model.keys import PubKey, SecretKey
from skycore.model.network import NetworkConstants

__all__ = [
    "Clock",
    "ClockCorrected",
    "DatagramSocket",
    "Endpoint",
    "Entropy",
    "Files",
    "Identity",
    "Lifecycle",
    "Network",
    "NodeInfo",
    "OwnClock",
    "TcpListener",
    "Workers",
]

T = TypeVar("T")
Endpoint = tuple[str, int]
"""Host (a literal address) and port of a datagram."""


class Clock(Protocol):
    """Time. Sleeping and time limits are anyio's, which the simulation makes virtual.

    What a part of a node is given is corrected: over 5 min off the median of three peers, wall
    time is theirs (docs/protocols/items.md, Clock). So it may move either way between two calls.
    """

    def now(self) -> float:
        """Monotonic seconds, for intervals."""
        ...

    def wall_ns(self) -> int:
        """Unix nanoseconds, for seq and stamps (a float has steps of 238 ns there)."""
        ...

    def wall_s(self) -> int:
        """Unix seconds, for lifetimes."""
        ...


class OwnClock(Clock, Protocol):
    """This machine's clock as it is, right or wrong: only for telling peers in a Hello.

    Why uncorrected there: each node then votes with its own clock. If it passed on what it was
    told, one lie that reached a majority of one node's peers would spread from node to node.
    """


@dataclass(frozen=True)
class ClockCorrected:
    """Event: wall time is corrected by another amount than before."""

    correction_s: float
    """What is added to this machine's clock; 0: it is believed again."""
    peers: int
    """How many were asked."""


class Entropy(Protocol):
    """Randomness: secret bytes, and a generator for jitter and choices."""

    def bytes(self, n: int) -> bytes:
        """Return n random bytes, fit for keys."""
        ...

    def random(self) -> random.Random:
        """Return a generator for what need not be secret. Ask once and keep it."""
        ...


class TcpListener(Protocol):
    """A bound socket. Connections wait in the kernel's backlog until accepted."""

    host: str
    port: int

    async def accept(self) -> ByteStream:
        """Return the next connection; its remote host is in anyio's `remote_address` attribute.

        Survives a lack of file descriptors: it waits and goes on.
        """
        ...


class DatagramSocket(Protocol):
    """A bound UDP socket. Datagrams may be lost, doubled, cut off or come in another order."""

    host: str
    port: int

    async def receive(self) -> Sequence[tuple[bytes, Endpoint]]:
        """Wait for datagrams; return all that are there, at most 64, oldest first.

        What a peer's "port unreachable" would raise is no error here: UDP promises nothing.
        """
        ...

    def send(self, data: bytes, to: Endpoint) -> bool:
        """Send without waiting. False where it was thrown away here (a full buffer, no route)."""
        ...


class Network(Protocol):
    """Sockets. An unreachable peer raises `DialError`, a taken port `TransportError`."""

    async def connect_tcp(self, host: str, port: int) -> ByteStream:
        """Open a connection. The caller sets the time limit."""
        ...

    def listen_tcp(self, host: str, port: int) -> AbstractAsyncContextManager[TcpListener]:
        """Bind; port 0 takes any free one."""
        ...

    def open_udp(self, host: str, port: int) -> AbstractAsyncContextManager[DatagramSocket]:
        """Bind; port 0 takes any free one, an empty host all of IPv4, `::` IPv6 and IPv4.

        Raises `TransportError` for a taken port.
        """
        ...

    async def resolve(self, host: str) -> Sequence[str]:
        """Return a name's literal addresses, at least one, best first; of an address, itself.

        Raises `DialError` where the name is unknown or nobody answers. The caller sets the limit.
        """
        ...

    def source_for(self, host: str) -> str:
        """Return the address from which this machine sends to another one; nothing is sent.

        Empty where no way leads there, and for a name.
        """
        ...


class Files(Protocol):
    """The data folder. Small state by name (routing table and the like), at most 4 MiB each."""

    def path(self, name: str) -> Path | None:
        """Return where a library may open a file itself; None where there is no folder."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return the content, or None where there is none."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Replace the content as a whole: a crash leaves the old or the new, never a mix."""
        ...


class Workers(Protocol):
    """Threads for what would block the loop: SQLite, and long runs of signature checks."""

    async def run(self, function: Callable[[], T]) -> T:
        """Call in a thread and return its result; in simulation, at once."""
        ...


class Lifecycle(Protocol):
    """When the node is up. A part that serves strangers waits for it before it accepts them."""

    @property
    def ready(self) -> bool:
        """Whether every part has started."""
        ...

    async def wait_ready(self) -> None:
        """Return once every part has started."""
        ...


@dataclass(frozen=True)
class Identity:
    """Who this node is. Holds the secret key; hands out signatures, not the key."""

    network: NetworkConstants
    secret: SecretKey = field(repr=False)
    instance_id: bytes
    """16 random bytes of this run: tells a restarted node from a second connection."""
    public: PubKey = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "public", self.network.suite.public(self.secret))

    def sign(self, message: bytes) -> bytes:
        """Sign with the node's key. `message` begins with a tag of its own."""
        return self.network.suite.sign(self.secret, message)


@dataclass(frozen=True)
class NodeInfo:
    """What this node is made of, for people."""

    profile: str
    plugins: tuple[str, ...]
    version: str
    network: str

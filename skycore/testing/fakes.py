"""Stand-ins for the seams, for unit tests: a clock you set, seeded randomness, files in a dict.

Whole nodes on virtual time are `skycore.testing.world`'s business; these are for one part alone.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream, SocketAttribute

from skycore.contracts.runtime import Identity
from skycore.model.keys import ED25519
from skycore.model.network import NetworkConstants
from skycore.runtime.memory import MemoryFiles

__all__ = [
    "START_NS",
    "TEST_NETWORK",
    "AlwaysReady",
    "FakeClock",
    "InlineWorkers",
    "MemoryFiles",
    "SeededEntropy",
    "identity",
    "stream_pair",
]

T = TypeVar("T")
TEST_NETWORK = NetworkConstants(ED25519, "skycore-test")
START_NS = 1_800_000_000 * 10**9


class FakeClock:
    """A clock that stands still until you `advance` it, or set `wall_offset_s`."""

    def __init__(self, start_ns: int = START_NS) -> None:
        self._start_ns = start_ns
        self._now = 0.0
        self.wall_offset_s = 0.0

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds

    def now(self) -> float:
        """Monotonic seconds."""
        return self._now

    def wall_ns(self) -> int:
        """Unix nanoseconds."""
        return self._start_ns + int((self._now + self.wall_offset_s) * 1e9)

    def wall_s(self) -> int:
        """Unix seconds."""
        return self.wall_ns() // 10**9


class SeededEntropy:
    """The same bytes and dice for the same seed."""

    def __init__(self, seed: int = 0) -> None:
        self._dice = random.Random(seed)

    def bytes(self, n: int) -> bytes:
        """Return n bytes."""
        return self._dice.randbytes(n)

    def random(self) -> random.Random:
        """Return a generator."""
        return random.Random(self._dice.getrandbits(64))


class InlineWorkers:
    """Run at once, in the caller: deterministic, and the virtual clock needs no threads."""

    async def run(self, function: Callable[[], T]) -> T:
        """Call it."""
        return function()


class AlwaysReady:
    """A node that is up."""

    ready = True

    async def wait_ready(self) -> None:
        """Return at once."""


def identity(name: str, network: NetworkConstants = TEST_NETWORK) -> Identity:
    """Return alice's (or anybody's) identity: the same key for the same name."""
    seed = hashlib.sha256(name.encode()).digest()
    return Identity(network, network.suite.secret(seed), seed[:16])


class _PairedStream(ByteStream):
    """One end of a pipe in memory with a bounded buffer."""

    def __init__(self, host: str, buffer_max: int) -> None:
        self._host = host
        self._buffer_max = buffer_max
        self._held = bytearray()
        self._ended = False
        self._changed = anyio.Event()
        self.other: _PairedStream

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        while not self._held:
            if self._ended:
                raise anyio.EndOfStream
            await self._changed.wait()
        data = bytes(self._held[:max_bytes])
        del self._held[:max_bytes]
        self._wake()
        return data

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        other = self.other
        while len(other._held) >= other._buffer_max and not other._ended:
            await other._changed.wait()
        if other._ended or self._ended:
            raise anyio.BrokenResourceError
        other._held += item
        other._wake()

    async def send_eof(self) -> None:
        self.other._ended = True
        self.other._wake()

    async def aclose(self) -> None:
        for end in (self, self.other):
            end._ended = True
            end._wake()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {SocketAttribute.remote_address: lambda: (self._host, 1)}


def stream_pair(
    host: str = "127.0.0.1", buffer_max: int = 1024 * 1024
) -> tuple[ByteStream, ByteStream]:
    """Return both ends of a connection in memory."""
    one, other = _PairedStream(host, buffer_max), _PairedStream(host, buffer_max)
    one.other, other.other = other, one
    return one, other

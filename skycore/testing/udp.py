"""UDP of a simulated network: loss, reordering, copies, broken bits, MTU, and NATs on the way.

Why sizes alone go into the trace: what travels here is encrypted with keys that a TLS library draws
by itself, so contents differ from run to run; when and how much moves does not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import anyio

from skycore.contracts.runtime import Endpoint
from skycore.testing.nat import Nat
from skycore.testing.pipes import Link, wake
from skycore.testing.trace import Dice

if TYPE_CHECKING:
    from skycore.testing.network import SimNetwork

__all__ = ["Post", "SimDatagramSocket"]

BATCH_MAX: Final = 64
SOCKET_BYTES_MAX: Final = 425_984
"""Unread bytes over which a socket loses what comes; twice Linux's net.core.rmem_max."""
DATAGRAM_MAX: Final = 65_507
IP_HEADERS_BYTES: Final = 28


class SimDatagramSocket:
    """A bound socket of a simulated host. `contracts.runtime.DatagramSocket`."""

    def __init__(self, post: Post, address: str, host: str, port: int) -> None:
        self._post, self._address = post, address
        self.host, self.port = host, port
        self.is_closed = False
        self._held: deque[tuple[bytes, Endpoint]] = deque()
        self._held_bytes = 0
        self._reader: asyncio.Future[None] | None = None

    async def receive(self) -> Sequence[tuple[bytes, Endpoint]]:
        """Wait for datagrams; return all that are there, at most 64, oldest first."""
        if self._reader is not None:
            raise anyio.BusyResourceError("receiving from")
        if self._held:
            await asyncio.sleep(0)
        while not self._held and not self.is_closed:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        if self.is_closed:
            raise anyio.ClosedResourceError
        batch = [self._held.popleft() for _ in range(min(BATCH_MAX, len(self._held)))]
        self._held_bytes -= sum(len(data) for data, _ in batch)
        return batch

    def send(self, data: bytes, to: Endpoint) -> bool:
        """Send without waiting; False where it was thrown away here."""
        if self.is_closed or len(data) > DATAGRAM_MAX:
            return False
        return self._post.send(self._address, self.port, bytes(data), to)

    def offer(self, data: bytes, sender: Endpoint) -> None:
        """Take a datagram that arrived, if there is room."""
        if self.is_closed or self._held_bytes + len(data) > SOCKET_BYTES_MAX:
            return
        self._held.append((data, sender))
        self._held_bytes += len(data)
        wake(self._reader)

    def close(self) -> None:
        """Close; what nobody read is gone."""
        self.is_closed = True
        self._held.clear()
        wake(self._reader)


class Post:
    """Carries the datagrams of a SimNetwork, and keeps its NATs."""

    def __init__(self, network: SimNetwork) -> None:
        self._network = network
        self._dice: dict[tuple[str, str], Dice] = {}
        self.nats: dict[str, Nat] = {}
        """By public address."""
        self.behind: dict[str, Nat] = {}
        """Which NAT a host is behind."""
        self.sent = self.lost = 0

    def seen(self, source: Endpoint, target: Endpoint) -> Endpoint | None:
        """Return how `target` sees a sender, through the sender's NAT; None where no way leads."""
        nat, other = self.behind.get(source[0]), self.behind.get(target[0])
        if other is not None:
            return source if other is nat else None  # a private address: its own network only
        if nat is None or source[0] == target[0]:
            return source
        if target[0] == nat.host and not nat.hairpin:
            return None
        return nat.outgoing(asyncio.get_running_loop().time(), source, target)

    def takes_tcp(self, source: str, target: str) -> bool:
        """Whether a connection from one host to an address of the other gets through NATs."""
        if target in self.nats:
            return False
        nat = self.behind.get(target)
        return nat is None or nat is self.behind.get(source)

    def send(self, address: str, port: int, data: bytes, to: Endpoint) -> bool:
        """Put a datagram on its way. What is lost on it nobody is told."""
        network = self._network
        host = address if to[0] in ("localhost", "127.0.0.1") else to[0]
        target = (host, to[1])
        self.sent += 1
        sender = self.seen((address, port), target)
        if sender is None:
            self.lost += 1
            return True
        there = self._whose(target)
        path = network.path(address, there)
        dice = self._dice.get((address, there))
        if dice is None:
            dice = self._dice[address, there] = Dice(network.seed, "udp", address, there)
        for delay in self._delays(path.link, len(data), dice):
            wait = path.datagram_delay_s(len(data), asyncio.get_running_loop().time(), dice)
            if wait is None or not path.open:
                self.lost += 1
                continue
            if path.link.corrupt and dice.random() < path.link.corrupt:
                data = _flipped(data, dice)
            asyncio.get_running_loop().call_later(
                wait + delay, self._arrive, address, sender, target, data
            )
        return True

    def _delays(self, link: Link, size: int, dice: Dice) -> Sequence[float]:
        """Return by how much each copy that gets through is late."""
        if size + IP_HEADERS_BYTES > link.mtu:
            self.lost += 1
            return ()
        if link.loss and dice.random() < link.loss:
            self.lost += 1
            return ()
        copies = 2 if link.duplicate and dice.random() < link.duplicate else 1
        return [
            dice.random() * link.reorder_s if link.reorder and dice.random() < link.reorder else 0.0
            for _ in range(copies)
        ]

    def _whose(self, target: Endpoint) -> str:
        nat = self.nats.get(target[0])
        return (nat.behind(target[1]) if nat else None) or target[0]

    def _arrive(self, source: str, sender: Endpoint, target: Endpoint, data: bytes) -> None:
        network = self._network
        nat = self.nats.get(target[0])
        if nat is not None:
            inside = nat.incoming(asyncio.get_running_loop().time(), target[1], sender)
            if inside is None:
                self.lost += 1
                return
            target = inside
        machine = network.machine(target[0])
        socket = machine.sockets.get(target[1]) if machine else None
        if socket is None or not network.path(source, target[0]).open:
            self.lost += 1
            return
        name = f"{sender[0]}:{sender[1]}>{target[0]}:{target[1]}/udp"
        now = asyncio.get_running_loop().time()
        network.trace.arrived(now, name.encode(), bytes(len(data)))
        socket.offer(data, sender)


def _flipped(data: bytes, dice: Dice) -> bytes:
    if not data:
        return data
    broken = bytearray(data)
    broken[int(dice.random() * len(data))] ^= 1 << int(dice.random() * 8)
    return bytes(broken)

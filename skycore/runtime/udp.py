"""One bound UDP socket, drained in batches.

Why a plain socket under readiness waits: one wake-up of the loop empties up to 64 datagrams, which
carries five times as many as the loop's own datagram endpoint does, and what is not read yet waits
in the kernel's bounded buffer instead of ours. UDP promises nothing, so errors that tell of one
datagram's fate (nobody listens there, no route, a full buffer) are no errors of the socket.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import sys
from collections.abc import Sequence
from typing import Any, Final

import anyio
from anyio.lowlevel import checkpoint

from skycore.contracts.runtime import Endpoint

__all__ = ["BATCH_MAX", "UdpSocket", "bind_udp"]

BATCH_MAX: Final = 64
BUFFER_BYTES: Final = 4 * 1024 * 1024
"""What the kernel is asked for in each direction; it gives what its own limits allow."""
DATAGRAM_MAX: Final = 65_535
TURNS_MAX: Final = 4
"""Full batches in a row before other tasks get their turn."""
LITERALS_MAX: Final = 4_096
"""Hosts of which is remembered that they are addresses and no names."""
MAPPED: Final = "::ffff:"


class UdpSocket:
    """A bound socket. `contracts.runtime.DatagramSocket`. One task may receive at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._is_v6 = sock.family == socket.AF_INET6
        self._turns = 0
        self._literals: set[str] = set()
        self.host, self.port = sock.getsockname()[:2]

    async def receive(self) -> Sequence[tuple[bytes, Endpoint]]:
        """Wait for datagrams; return all that are there, at most 64, oldest first.

        Raises anyio's `ClosedResourceError` once the socket is closed.
        """
        self._turns += 1
        if self._turns >= TURNS_MAX:
            self._turns = 0
            await checkpoint()
        while True:
            batch = self._drain()
            if batch:
                return batch
            self._turns = 0
            await anyio.wait_readable(self._socket)

    def _drain(self) -> list[tuple[bytes, Endpoint]]:
        batch: list[tuple[bytes, Endpoint]] = []
        receive = self._socket.recvfrom
        for _ in range(BATCH_MAX):
            try:
                data, address = receive(DATAGRAM_MAX)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as bad:
                if self._socket.fileno() < 0:
                    raise anyio.ClosedResourceError from bad
                continue  # an earlier datagram came to nothing: reading the error used it up
            batch.append((data, self._plain(address) if self._is_v6 else address))
        return batch

    def _plain(self, address: Any) -> Endpoint:
        """Return an IPv4 sender of a dual-stack socket under its IPv4 name."""
        host, port = address[:2]
        if host.startswith(MAPPED) and "." in host:
            host = host.removeprefix(MAPPED)
        return host, port

    def send(self, data: bytes, to: Endpoint) -> bool:
        """Send without waiting; False where it was thrown away here, or `to` is no address.

        Only literal addresses: a name would need a resolver, and so a wait.
        """
        host, port = to
        if host not in self._literals and not self._is_literal(host):
            return False
        if self._is_v6 and ":" not in host:
            host = MAPPED + host
        try:
            self._socket.sendto(data, (host, port))
        except (OSError, OverflowError, UnicodeError, ValueError):
            return False
        return True

    def _is_literal(self, host: str) -> bool:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        if len(self._literals) >= LITERALS_MAX:
            self._literals.clear()
        self._literals.add(host)
        return True


def bind_udp(family: int, address: Any) -> socket.socket:
    """Return a socket bound to an address. Raises `OSError`."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        for forced, option in ((33, socket.SO_RCVBUF), (32, socket.SO_SNDBUF)):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
                if sys.platform == "linux":  # SO_RCVBUFFORCE, SO_SNDBUFFORCE: where one may
                    sock.setsockopt(socket.SOL_SOCKET, forced, BUFFER_BYTES)
        if sys.platform == "linux":
            _never_fragment(sock, family)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _never_fragment(sock: socket.socket, family: int) -> None:
    """Let too large a datagram fail instead of travelling in pieces: its sender finds the size."""
    probe = 3  # IP_PMTUDISC_PROBE: do not believe what ICMP says, either
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_IP, 10, probe)  # IP_MTU_DISCOVER
    if family == socket.AF_INET6:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IPV6, 23, probe)  # IPV6_MTU_DISCOVER

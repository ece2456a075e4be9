"""Real sockets: dialling and listening. A connection that stands is `skycore.runtime.tcp`'s.

Why plain sockets under readiness waits here: a dial that is cancelled, an accept without file
descriptors and a port that is taken are told apart by errno, which the loops' own helpers hide.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from skycore.errors import DialError, TransportError
from skycore.runtime.tcp import READ_BYTES, TcpStream
from skycore.runtime.udp import UdpSocket, bind_udp

__all__ = ["RealNetwork", "TcpStream"]

log = logging.getLogger(__name__)

BACKLOG = 1_024
SHORTAGE_WAIT_S = 0.25
"""Pause of an accept loop without file descriptors: how late it notices that there are some."""
SHORTAGES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

Candidate = tuple[int, Any]
"""Address family and socket address."""


class _Listener:
    """A bound socket that accepts for as long as it is open."""

    def __init__(self, sock: socket.socket, buffer: bytearray) -> None:
        self._socket = sock
        self._buffer = buffer
        self._short = False
        self.host, self.port = sock.getsockname()[:2]

    async def accept(self) -> ByteStream:
        """Return the next connection. A lack of descriptors is waited out, never an end."""
        while True:
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                await anyio.wait_readable(self._socket)
                continue
            except OSError as bad:
                await self._trouble(bad)
                continue
            if self._short:
                self._short = False
                log.info("accepting again port=%d", self.port)
            await checkpoint()
            return TcpStream(accepted, self._buffer)

    async def _trouble(self, bad: OSError) -> None:
        if self._socket.fileno() < 0:
            raise anyio.ClosedResourceError from bad
        if bad.errno not in SHORTAGES:  # the caller went away before we took it: take the next
            await checkpoint()
            return
        if not self._short:
            self._short = True
            log.warning("not accepting for now port=%d error=%r", self.port, bad.strerror)
        await anyio.sleep(SHORTAGE_WAIT_S)


class RealNetwork:
    """TCP and UDP of this machine, for one event loop. `contracts.runtime.Network`."""

    def __init__(self) -> None:
        self._buffer = bytearray(READ_BYTES)

    async def connect_tcp(self, host: str, port: int) -> ByteStream:
        """Open a connection to the first of the host's addresses that takes one, in their order.

        Raises `DialError` with what was tried. The caller sets the time limit.
        """
        try:
            candidates = await _resolve(host, port)
        except OSError as bad:
            raise DialError(f"{host}: {bad.strerror or bad}") from bad
        failures = []
        for family, address in candidates:
            try:
                return await _connect(family, address, self._buffer)
            except OSError as bad:
                failures.append(f"{address[0]} port {address[1]}: {_words(bad)}")
        raise DialError("; ".join(failures) or f"{host} has no address")

    @asynccontextmanager
    async def listen_tcp(self, host: str, port: int) -> AsyncIterator[_Listener]:
        """Bind; port 0 takes any free one, an empty host all of IPv4, `::` IPv6 and IPv4.

        Raises `TransportError` where that is impossible.
        """
        sock = await _bound(_bind, host, port)
        try:
            yield _Listener(sock, self._buffer)
        finally:
            anyio.notify_closing(sock)
            sock.close()

    @asynccontextmanager
    async def open_udp(self, host: str, port: int) -> AsyncIterator[UdpSocket]:
        """Bind; port 0 takes any free one, an empty host all of IPv4, `::` IPv6 and IPv4.

        Raises `TransportError` where that is impossible.
        """
        sock = await _bound(bind_udp, host, port)
        try:
            yield UdpSocket(sock)
        finally:
            anyio.notify_closing(sock)
            sock.close()

    async def resolve(self, host: str) -> Sequence[str]:
        """Return a name's literal addresses in the system's order. Raises `DialError`."""
        try:
            candidates = await _resolve(host, 0)
        except (OSError, UnicodeError) as bad:
            raise DialError(f"{host}: {getattr(bad, 'strerror', None) or bad}") from bad
        found = dict.fromkeys(str(address[0]) for _, address in candidates)
        if not found:
            raise DialError(f"{host} has no address")
        return tuple(found)

    def source_for(self, host: str) -> str:
        """Return from which address this machine sends there, as a connected socket shows it."""
        try:
            family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((host, 9))
                return str(probe.getsockname()[0])
        except (OSError, ValueError):
            return ""


async def _bound(bind: Callable[[int, Any], socket.socket], host: str, port: int) -> socket.socket:
    try:
        family, address = (await _resolve(host or "0.0.0.0", port))[0]
        return bind(family, address)
    except OSError as bad:
        taken = bad.errno == errno.EADDRINUSE
        raise TransportError(
            f"cannot listen on {host or '*'} port {port}: {_words(bad)}",
            hint="another node may run here; choose another port, or 0 for any free one"
            if taken
            else "",
        ) from bad


def _words(bad: OSError) -> str:
    text = os.strerror(bad.errno) if bad.errno and bad.errno > 0 else bad.strerror or str(bad)
    return text[:1].lower() + text[1:]


async def _resolve(host: str, port: int) -> list[Candidate]:
    """Return socket addresses; a literal address needs no resolver (and so no thread)."""
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [(family, address) for family, _, _, _, address in found]
    if literal.version == 4:
        return [(socket.AF_INET, (host, port))]
    return [(socket.AF_INET6, (host, port, 0, 0))]


def _bind(family: int, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect(family: int, address: Any, buffer: bytearray) -> TcpStream:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        code = sock.connect_ex(address)
        if code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            await anyio.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        else:
            await checkpoint()
        if code:
            raise OSError(code, os.strerror(code))
        if sock.getsockname() == sock.getpeername():
            # Linux: a dial to a closed port of the ephemeral range can meet itself
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    except BaseException:
        sock.close()
        raise
    return TcpStream(sock, buffer)

"""STCPR: TCP, and nothing else. Who is at the other end is the transport manager's business."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.abc import ByteStream

from skycore.contracts.runtime import Network, TcpListener
from skycore.contracts.transport import Listener, TransportType
from skycore.errors import ConfigError, DialError
from skycore.model.addresses import Address, join_host_port, split_host_port
from skycore.model.keys import PubKey, short
from transport_stcpr.settings import StcprSettings

__all__ = ["KIND", "open_stcpr"]

KIND = "stcpr"
EVERYWHERE = frozenset(("", "0.0.0.0", "::"))


class _TcpSide:
    """A bound port, and what others are told about it. `contracts.transport.Listener`."""

    def __init__(self, listener: TcpListener, advertise: Sequence[str]) -> None:
        self._listener = listener
        host = "" if listener.host in EVERYWHERE else listener.host
        told = advertise or [join_host_port(host, listener.port)]
        self.addresses: Sequence[Address] = tuple(Address(KIND, endpoint) for endpoint in told)

    async def accept(self) -> ByteStream:
        """Return the next connection."""
        return await self._listener.accept()


class _NoSide:
    """A node that takes no connections; it may still advertise, behind a forwarded port."""

    addresses: Sequence[Address] = ()

    async def accept(self) -> ByteStream:
        """Wait for ever."""
        await anyio.sleep_forever()
        raise AssertionError("unreachable")


class Stcpr:
    """TCP by addresses. `contracts.transport.TransportType`."""

    name = KIND

    def __init__(self, settings: StcprSettings, network: Network) -> None:
        self._settings = settings
        self._network = network

    async def dial(self, remote: PubKey, addresses: Sequence[Address]) -> ByteStream:
        """Open a connection to the first address that answers. Raises `DialError` with all."""
        tried = []
        for address in addresses:
            try:
                return await self._dial_one(address.endpoint)
            except DialError as bad:
                tried.append(str(bad))
        if not tried:
            raise DialError(f"no stcpr address is known for {short(remote)}")
        raise DialError("; ".join(tried))

    async def _dial_one(self, endpoint: str) -> ByteStream:
        try:
            host, port = split_host_port(endpoint)
        except ConfigError as bad:
            raise DialError(str(bad)) from bad
        if not host or not port:
            raise DialError(f"{endpoint!r} names no host or no port")
        with anyio.move_on_after(self._settings.dial_timeout_s):
            return await self._network.connect_tcp(host, port)
        raise DialError(f"{endpoint}: no answer within {self._settings.dial_timeout_s:g} s")

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[Listener]:
        """Bind the configured port. Raises `TransportError` where it is taken."""
        if not self._settings.listen:
            yield _NoSide()
            return
        host, port = split_host_port(self._settings.listen)
        async with self._network.listen_tcp(host, port) as listener:
            yield _TcpSide(listener, self._settings.advertise)


@asynccontextmanager
async def open_stcpr(settings: StcprSettings, network: Network) -> AsyncIterator[TransportType]:
    """Offer the transport type `stcpr`."""
    yield Stcpr(settings, network)

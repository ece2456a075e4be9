"""The transport type `sudph`: who is at the other end is the transport manager's business."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.abc import ByteStream

from skycore.contracts.runtime import Clock, Endpoint, Entropy, Identity, Network
from skycore.contracts.transport import Listener, TransportType
from skycore.errors import ConfigError, DialError
from skycore.model.addresses import Address, join_host_port, split_host_port
from skycore.model.keys import PubKey, short
from transport_sudph.endpoint import UdpEndpoint
from transport_sudph.settings import SudphSettings

__all__ = ["KIND", "Sudph", "open_sudph"]

KIND = "sudph"
EVERYWHERE = frozenset(("", "0.0.0.0", "::"))


class _UdpSide:
    """Where connections are taken. `contracts.transport.Listener`."""

    def __init__(self, sudph: Sudph) -> None:
        self._sudph = sudph

    @property
    def addresses(self) -> Sequence[Address]:
        """What others are told, by what is known now."""
        return self._sudph.told()

    async def accept(self) -> ByteStream:
        """Return the next connection."""
        return await self._sudph.endpoint.accept()


class Sudph:
    """UDP by addresses and by key. `contracts.transport.TransportType`."""

    name = KIND

    def __init__(self, settings: SudphSettings, endpoint: UdpEndpoint) -> None:
        self._settings = settings
        self.endpoint = endpoint

    def told(self) -> tuple[Address, ...]:
        """Return where this node says that it takes connections."""
        host, port = self.endpoint.local
        host = "" if host in EVERYWHERE else host
        told = self._settings.advertise or [join_host_port(host, port)]
        return tuple(Address(KIND, endpoint) for endpoint in told)

    async def dial(self, remote: PubKey, addresses: Sequence[Address]) -> ByteStream:
        """Open a connection to the first address that answers. Raises `DialError` with all."""
        tried = []
        for address in addresses:
            try:
                to = _endpoint(address.endpoint)
                with anyio.move_on_after(self._settings.dial_timeout_s):
                    return await self.endpoint.dial(to)
                tried.append(f"{address.endpoint}: no answer")
            except DialError as bad:
                tried.append(str(bad))
        raise DialError("; ".join(tried) or f"no sudph address is known for {short(remote)}")

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[Listener]:
        """Take connections while the context lasts."""
        self.endpoint.is_accepting = self._settings.accept
        try:
            yield _UdpSide(self)
        finally:
            self.endpoint.stop_accepting()


def _endpoint(text: str) -> Endpoint:
    try:
        host, port = split_host_port(text)
    except ConfigError as bad:
        raise DialError(str(bad)) from bad
    if not host or not port:
        raise DialError(f"{text!r} names no host or no port")
    return host, port


@asynccontextmanager
async def open_sudph(
    settings: SudphSettings, identity: Identity, clock: Clock, entropy: Entropy, network: Network
) -> AsyncIterator[TransportType]:
    """Offer the transport type `sudph`. Raises `TransportError` for a taken port."""
    host, port = split_host_port(settings.listen)
    async with network.open_udp(host, port) as socket:
        endpoint = UdpEndpoint(socket, settings, clock, entropy)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(endpoint.run, name="sudph")
            try:
                yield Sudph(settings, endpoint)
            finally:
                endpoint.close_all("the node stops")
                tasks.cancel_scope.cancel()

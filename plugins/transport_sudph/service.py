"""The transport type `sudph`: who is at the other end is the transport manager's business."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.abc import ByteStream

from skycore.contracts.runtime import Clock, DatagramSocket, Endpoint, Entropy, Identity, Network
from skycore.contracts.transport import Listener, TransportType
from skycore.errors import ConfigError, DialError
from skycore.model.addresses import Address, join_host_port, split_host_port
from skycore.model.keys import PubKey
from skycore.model.sudph import Where, where
from transport_sudph.core.punching import is_target
from transport_sudph.endpoint import UdpEndpoint
from transport_sudph.meeting import Meeting
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

    def __init__(self, settings: SudphSettings, endpoint: UdpEndpoint, meeting: Meeting) -> None:
        self._settings = settings
        self.endpoint = endpoint
        self.meeting = meeting

    def told(self) -> tuple[Address, ...]:
        """Return where this node says that it takes connections."""
        if not self._settings.accept:
            return ()
        host, port = self.endpoint.local
        binding = self.meeting.binding
        if binding is not None and binding.seen is not None:
            host, port = binding.seen
        host = "" if host in EVERYWHERE else host
        told = self._settings.advertise or [join_host_port(host, port)]
        return tuple(Address(KIND, endpoint) for endpoint in told)

    async def dial(self, remote: PubKey, addresses: Sequence[Address]) -> ByteStream:
        """Open a connection to whichever address answers first, punching if there is a resolver.

        Raises `DialError` with what was tried.
        """
        known, bad = [], []
        for address in addresses:
            try:
                known.append(_endpoint(address.endpoint))
            except DialError as error:
                bad.append(str(error))
        if bad and not known:
            raise DialError("; ".join(bad))
        return await self.meeting.dial(remote, known, limit_s=self._settings.dial_timeout_s)

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
    to = ("127.0.0.1" if host == "localhost" else host), port
    if not is_target(to, near=True):  # a name would need a resolver, and so a wait
        raise DialError(f"{text!r} is no address that can be dialled")
    return to


def _local(socket: DatagramSocket) -> tuple[Where, ...]:
    """Return where neighbours in the same network reach the socket, if it says so."""
    if socket.host in EVERYWHERE:
        return ()
    return (where((socket.host, socket.port)),)


@asynccontextmanager
async def open_sudph(
    settings: SudphSettings, identity: Identity, clock: Clock, entropy: Entropy, network: Network
) -> AsyncIterator[TransportType]:
    """Offer the transport type `sudph`. Raises `TransportError` for a taken port."""
    # aioquic logs each connection, and each mistake of a stranger; counters tell of those here
    logging.getLogger("quic").setLevel(logging.CRITICAL)
    host, port = split_host_port(settings.listen)
    async with network.open_udp(host, port) as socket:
        endpoint = UdpEndpoint(socket, settings, clock, entropy)
        resolver = split_host_port(settings.resolver) if settings.resolver else None
        meeting = Meeting(endpoint, identity, clock, entropy, resolver, _local(socket))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(endpoint.run, name="sudph")
            tasks.start_soon(meeting.run, name="sudph binding")
            try:
                yield Sudph(settings, endpoint, meeting)
            finally:
                meeting.leave()
                endpoint.close_all("the node stops")
                tasks.cancel_scope.cancel()

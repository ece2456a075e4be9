"""The transport type `sudph`: who is at the other end is the transport manager's business."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import anyio
from anyio.abc import ByteStream

from skycore import Live
from skycore.contracts.runtime import (
    Clock,
    DatagramSocket,
    Endpoint,
    Entropy,
    Identity,
    Lifecycle,
    Network,
)
from skycore.contracts.services import AddressResolver, OwnAddress
from skycore.contracts.transport import Listener, TransportType
from skycore.errors import ConfigError, DialError
from skycore.model.addresses import Address, join_host_port, split_host_port
from skycore.model.keys import PubKey
from skycore.model.sudph import Where, where
from transport_sudph.core.punching import is_target
from transport_sudph.endpoint import UdpEndpoint
from transport_sudph.finding import KIND, ResolverFinder, literal, tell_own
from transport_sudph.meeting import Meeting
from transport_sudph.settings import SudphSettings

__all__ = ["KIND", "Sudph", "open_sudph"]

NO_RESOLVERS: Live[AddressResolver] = Live(())
NO_OWNS: Live[OwnAddress] = Live(())
EVERYWHERE = frozenset(("", "0.0.0.0", "::"))
NAME_S = 2.0
"""How long the look-up of a name in an address may take."""


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

    def __init__(
        self,
        settings: SudphSettings,
        endpoint: UdpEndpoint,
        meeting: Meeting,
        finder: ResolverFinder,
        network: Network,
    ) -> None:
        self._settings = settings
        self._network = network
        self.endpoint = endpoint
        self.meeting = meeting
        self.finder = finder

    @property
    def can_ask(self) -> bool:
        """Whether a key can be dialled without an address: a resolver knows where it is."""
        return self.meeting.is_bound

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
        known: list[Endpoint] = []
        bad = []
        for address in addresses:
            try:
                known += await self._endpoints(address.endpoint)
            except DialError as error:
                bad.append(str(error))
        if bad and not known:
            raise DialError("; ".join(bad))
        return await self.meeting.dial(remote, known, limit_s=self._settings.dial_timeout_s)

    async def _endpoints(self, text: str) -> Sequence[Endpoint]:
        try:
            host, port = split_host_port(text)
        except ConfigError as bad:
            raise DialError(str(bad)) from bad
        hosts: Sequence[str] = ()
        with anyio.move_on_after(NAME_S):
            hosts = await self._network.resolve("127.0.0.1" if host == "localhost" else host)
        found = [(one, port) for one in hosts if is_target((one, port), near=True)]
        if not found:
            raise DialError(f"{text!r} is no address that can be dialled")
        return found

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[Listener]:
        """Take connections while the context lasts."""
        self.endpoint.is_accepting = self._settings.accept
        try:
            yield _UdpSide(self)
        finally:
            self.endpoint.stop_accepting()


def _local(socket: DatagramSocket, network: Network, resolver: str) -> tuple[Where, ...]:
    """Return where neighbours in the same network reach the socket.

    A socket that is bound everywhere is reached at the address from which this machine sends to
    the resolver: whoever is behind the same router is on that side of it.
    """
    host = network.source_for(resolver) if socket.host in EVERYWHERE else socket.host
    return (where((host, socket.port)),) if host else ()


@asynccontextmanager
async def open_sudph(
    settings: SudphSettings,
    identity: Identity,
    clock: Clock,
    entropy: Entropy,
    network: Network,
    lifecycle: Lifecycle | None = None,
    resolvers: Live[AddressResolver] = NO_RESOLVERS,
    owns: Live[OwnAddress] = NO_OWNS,
) -> AsyncIterator[TransportType]:
    """Offer the transport type `sudph`. Raises `TransportError` for a taken port."""
    host, port = split_host_port(settings.listen)
    async with network.open_udp(host, port) as socket:
        endpoint = UdpEndpoint(socket, settings, clock, entropy)
        local = partial(_local, socket, network)
        meeting = Meeting(endpoint, identity, clock, entropy, local)
        finder = ResolverFinder(
            settings, meeting, clock, network, resolvers, six=":" in socket.host
        )
        known = literal(settings.resolver) if settings.resolver else None
        if known is not None:
            meeting.use(known)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(endpoint.run, name="sudph")
            tasks.start_soon(meeting.run, name="sudph binding")
            if known is None:
                tasks.start_soon(finder.run, lifecycle, name="sudph resolver")
            if settings.accept and not settings.advertise:
                tasks.start_soon(tell_own, meeting, owns, clock, lifecycle, name="sudph address")
            try:
                yield Sudph(settings, endpoint, meeting, finder, network)
            finally:
                meeting.leave()
                endpoint.close_all("the node stops")
                tasks.cancel_scope.cancel()

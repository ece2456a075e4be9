"""The resolver's UDP side: two sockets, the table that they write to, and what time does.

Why two ports: an answer from a port that a node never sent to tells it whether its NAT filters, and
the second port's view of it whether its NAT maps each way by itself. Why bindings go through
`AddressDesk.bind`: so they are in every answer of the HTTP routes and in the DHT, like others.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import anyio

from discovery_address.server.desk import AddressDesk
from discovery_address.server.settings import AddressServerSettings
from discovery_address.server.udp_core import Claim, Limits, Outgoing, UdpCore
from discovery_address.server.udp_sessions import Session
from skycore.contracts.runtime import Clock, DatagramSocket, Endpoint, Entropy, Identity, Network
from skycore.errors import ConfigError, SkycoreError
from skycore.model.addresses import join_host_port, split_host_port
from skycore.model.entries import AddressBind
from skycore.model.keys import short

__all__ = ["KIND", "UdpSide", "open_udp_side"]

log = logging.getLogger(__name__)

KIND: Final = "sudph"
LOOK_S: Final = 1.0
"""How often those who fell silent are looked for."""
WRITES_MAX: Final = 4_096
"""Bindings that wait to be written; who comes later asks again by himself."""
WRITES_AT_ONCE: Final = 64


class UdpSide:
    """What runs. Off (`core` is None) where the settings name no port."""

    def __init__(
        self, settings: AddressServerSettings, desk: AddressDesk, clock: Clock, core: UdpCore | None
    ) -> None:
        self.core = core
        self._settings, self._desk, self._clock = settings, desk, clock
        self._sockets: Sequence[DatagramSocket] = ()
        self._due: OrderedDict[bytes, Claim | Session] = OrderedDict()
        """What is to be written, the last word of each key."""
        self._woken = anyio.Event()
        self._is_failing = False

    def status_fields(self) -> Mapping[str, Any]:
        """Return what the status shows; nothing where it is off."""
        if self.core is None:
            return {}
        return {
            "udp": self._desk.udp_address,
            "udp_other_port": self.core.other_port,
            "udp_sessions": len(self.core.sessions),
            "udp_datagrams": dict(sorted(self.core.counters.items())),
        }

    # --- datagrams -------------------------------------------------------------------------------

    async def run(self, core: UdpCore, sockets: Sequence[DatagramSocket]) -> None:
        """Serve, for ever."""
        self._sockets = sockets
        async with anyio.create_task_group() as tasks:
            for port, socket in enumerate(sockets):
                tasks.start_soon(self._receive, core, port, socket, name=f"resolver udp {port}")
            tasks.start_soon(self._write_all, core, name="resolver udp table")
            tasks.start_soon(self._forget, core, name="resolver udp silence")

    async def _receive(self, core: UdpCore, port: int, socket: DatagramSocket) -> None:
        while True:
            batch = await socket.receive()
            now, wall_s = self._clock.now(), self._clock.wall_s()
            for data, sender in batch:
                outgoing, word = core.take(data, sender, port, now, wall_s)
                self._send(outgoing)
                if word is not None:
                    self._note(core, word)

    def _send(self, datagrams: Sequence[Outgoing]) -> None:
        for data, to, port in datagrams:
            if port < len(self._sockets):
                self._sockets[port].send(data, to)

    def called(self, core: UdpCore, kind: str, target: bytes, dialler: bytes) -> None:
        """Somebody asked by HTTP where a key is: have it open its NAT for him."""
        if kind == KIND:
            self._send(core.called(target, dialler, self._clock.now()))

    # --- the table -------------------------------------------------------------------------------

    def _note(self, core: UdpCore, word: Claim | Session) -> None:
        """Have something written: a later word of a key takes the place of an earlier one."""
        if word.public not in self._due and len(self._due) >= WRITES_MAX:
            core.counters["full"] += 1
            return
        self._due[word.public] = word
        self._woken.set()

    async def _write_all(self, core: UdpCore) -> None:
        """Write some at a time; a key is never in two batches at once."""
        while True:
            await self._woken.wait()
            batch = [
                self._due.popitem(last=False)[1] for _ in range(min(WRITES_AT_ONCE, len(self._due)))
            ]
            if not batch:
                self._woken = anyio.Event()
                continue
            async with anyio.create_task_group() as tasks:
                for word in batch:
                    tasks.start_soon(partial(self._write, core, word))

    async def _write(self, core: UdpCore, word: Claim | Session) -> None:
        try:
            if isinstance(word, Claim):
                await self._desk.bind(KIND, word.public, _bind_of(word.address))
                answer = core.bound(word, self._clock.now())
                self._send((answer,) if answer else ())
            elif self._is_last(core, word):
                await self._desk.unbind(KIND, word.public)
        except SkycoreError as trouble:
            core.counters["table_failed"] += 1
            if not self._is_failing:
                log.warning("sudph bindings cannot be kept key=%s %s", short(word.public), trouble)
            self._is_failing = True
        else:
            self._is_failing = False

    def _is_last(self, core: UdpCore, gone: Session) -> bool:
        """Tell whether what is listed is what left: the key may be bound elsewhere since."""
        if core.sessions.of_key(gone.public) is not None:
            return False
        listed = self._desk.find(KIND, gone.public)
        return listed is not None and listed.remote_addr == join_host_port(*gone.address)

    async def _forget(self, core: UdpCore) -> None:
        while True:
            await anyio.sleep(LOOK_S)
            for session in core.expire(self._clock.now() - self._settings.udp_silence_s):
                self._note(core, session)


def _bind_of(address: Endpoint) -> AddressBind:
    """Return what is listed of a binding.

    What a node has behind its router is not: it is told to neighbours alone, by UDP.
    """
    return AddressBind(port=str(address[1]), remote_addr=join_host_port(*address))


def _endpoint_in(bind: AddressBind | None) -> Endpoint | None:
    """Return where a listed bind is; None where it says nothing that could be dialled."""
    if bind is None:
        return None
    try:
        return split_host_port(bind.remote_addr)
    except ConfigError:
        return None


@asynccontextmanager
async def open_udp_side(
    settings: AddressServerSettings,
    desk: AddressDesk,
    identity: Identity,
    network: Network,
    clock: Clock,
    entropy: Entropy,
) -> AsyncIterator[UdpSide]:
    """Take sudph bindings, if a port is set. Raises `TransportError` for a taken port."""
    if not settings.udp_listen:
        yield UdpSide(settings, desk, clock, None)
        return
    host, port = split_host_port(settings.udp_listen)
    limits = Limits(
        settings.udp_sessions_max,
        settings.udp_sessions_per_host_max,
        settings.udp_questions_per_s,
        settings.entry_lifetime_s,
        settings.private_addresses,
    )
    core = UdpCore(
        identity.network, limits, entropy.bytes, lambda key: _endpoint_in(desk.find(KIND, key))
    )
    side = UdpSide(settings, desk, clock, core)
    async with (
        network.open_udp(host, port) as first,
        network.open_udp(host, settings.udp_other_port) as second,
    ):
        core.other_port = second.port
        desk.udp_address = settings.udp_advertise or join_host_port(first.host, first.port)
        log.info("address resolver takes sudph bindings udp=%s", desk.udp_address)
        with desk.on_resolve(partial(side.called, core)):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(side.run, core, (first, second), name="resolver udp")
                yield side
                tasks.cancel_scope.cancel()

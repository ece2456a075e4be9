"""Connections that others make to us: accept, shake hands, hand over what is proven.

Why a task per connection and places for handshakes: accepting and shaking hands one after the
other let one silent peer stall every other for twenty seconds (docs/protocols/packet.md). Nothing
is kept of a connection before Security has proven who is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import anyio
from anyio.abc import ByteStream, TaskGroup

from skycore.contracts.runtime import Lifecycle
from skycore.contracts.security import SecureChannel, Security
from skycore.contracts.transport import Listener, TransportType
from skycore.errors import RemoteProtocolError, TransportError
from skycore.guards.handshakes import Handshakes
from skycore.guards.lines import Line, line_of
from skycore.guards.refusals import Refusals
from skycore.model.addresses import Address
from skycore.model.numbers import PacketType
from skycore.model.packets import encode_packet

__all__ = ["Inbound", "close_stream"]

log = logging.getLogger(__name__)

ACCEPT_RETRY_S = 1.0
CLOSE_S = 1.0

Welcome = Callable[[SecureChannel, Line], None]
"""Takes a proven channel and the line below it, at once. Raises `TransportError`."""


class Inbound:
    """The accepting side of one transport type."""

    def __init__(
        self,
        kind: TransportType,
        listener: Listener,
        security: Security,
        places: Handshakes,
        *,
        listening: Callable[[], Sequence[Address]],
        welcome: Welcome,
        refusals: Refusals,
    ) -> None:
        self.places = places
        self._kind = kind.name
        self._listener = listener
        self._security = security
        self._listening = listening
        self._welcome = welcome
        self._refusals = refusals

    async def run(self, lifecycle: Lifecycle, tasks: TaskGroup) -> None:
        """Accept for ever, once the node is ready to serve strangers."""
        await lifecycle.wait_ready()
        while True:
            try:
                stream = await self._listener.accept()
            except Exception as bad:  # noqa: BLE001 - no trouble of one connection ends this loop
                log.warning("accept failed type=%s error=%r", self._kind, str(bad))
                await anyio.sleep(ACCEPT_RETRY_S)
                continue
            self._refusals.counters["accepted"] += 1
            tasks.start_soon(self._take, stream)

    async def _take(self, stream: ByteStream) -> None:
        line = line_of(stream)
        channel = await self._shake_hands(stream, line.host)
        if channel is None:
            return
        try:
            self._welcome(channel, line)
        except TransportError as bad:
            self._refusals.link(channel.remote, self._kind, bad)
            with anyio.move_on_after(CLOSE_S):
                await channel.send(encode_packet(PacketType.ERROR, b"\0" + str(bad).encode()[:200]))
            await close_stream(channel)

    async def _shake_hands(self, stream: ByteStream, host: str) -> SecureChannel | None:
        channel = None
        try:
            channel = await self.places.run(
                host, lambda: self._security.inbound(stream, self._listening())
            )
            if channel is None:
                text = "other handshakes needed the place"
                self._refusals.handshake(self._kind, host, "TooManyHandshakes", text)
        except (TransportError, RemoteProtocolError) as bad:
            self._refusals.handshake(self._kind, host, type(bad).__name__, str(bad))
        except Exception:  # never more than this connection
            self._refusals.counters["handshakes_failed"] += 1
            log.exception("handshake failed type=%s host=%s", self._kind, host)
        finally:
            if channel is None:
                await close_stream(stream)
        return channel


async def close_stream(stream: ByteStream | SecureChannel) -> None:
    """Close whatever the state of the task that does it, and however the stream feels about it."""
    with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_S):
        await stream.aclose()

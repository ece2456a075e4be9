"""Streams: many flow-controlled byte streams to a key, by service. DHT and RPC speak over them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from skycore.model.keys import PubKey

__all__ = ["Service", "Stream", "StreamListener", "Streams"]


@dataclass(frozen=True)
class Service:
    """What a stream is for: a packet type over transports, a port over relays."""

    name: str
    packet_type: int
    port: int
    looks_up: bool = False
    """Whether these streams are what addresses are looked up with: then no address is looked up
    to open one, so a lookup never leads to another (`Transports.ensure`)."""


class Stream(Protocol):
    """One byte stream. Failing raises `StreamError`; both directions end on their own."""

    remote: PubKey
    """Who is at the other end, by the transport's handshake."""

    async def send(self, data: bytes) -> None:
        """Send all; waits while the peer's window is full."""
        ...

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Return what is there, at least one byte; b"" once the peer has ended its side."""
        ...

    async def send_eof(self) -> None:
        """End our side."""
        ...

    async def aclose(self) -> None:
        """End both sides; unread data is thrown away. Never waits for the peer."""
        ...


class StreamListener(Protocol):
    """Streams that peers opened for a service."""

    async def accept(self) -> Stream:
        """Return the next one."""
        ...


class Streams(Protocol):
    """A carrier of streams."""

    name: str

    async def dial(self, remote: PubKey, service: Service) -> Stream:
        """Open a stream; makes a transport where there is none. Raises `DialError`."""
        ...

    def listen(self, service: Service) -> AbstractAsyncContextManager[StreamListener]:
        """Take streams for a service. Raises `PluginConflictError` where it is taken."""
        ...

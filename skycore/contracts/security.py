"""Security: who is at the other end of a byte stream, and that nobody else listens.

Why here and not in transports: a transport type that forgets the handshake cannot exist, because
transports are handed only byte streams and the transport manager secures every one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
from anyio.abc import ByteStream

from skycore.model.addresses import Address
from skycore.model.keys import PubKey

__all__ = ["Hello", "SecureChannel", "Security"]


class Hello(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What both ends say first, sealed and signed. Grows at the end only."""

    version: int
    features: tuple[str, ...]
    identity: bytes
    wall_ns: int
    instance_id: bytes
    listening: tuple[Address, ...] = ()
    """Where the sender can be dialled; an endpoint with an empty host means "as you see me"."""
    signature: bytes = b""


class SecureChannel(Protocol):
    """An authenticated, encrypted byte stream. Not for two readers or two writers at once."""

    remote: PubKey
    hello: Hello
    """The remote's."""

    async def send(self, data: bytes) -> None:
        """Seal and send all of `data`, in as few frames as it fits.

        Raises `TransportClosedError`. Cancelling it in mid-frame breaks the channel: one writer
        task owns it.
        """
        ...

    async def receive(self) -> bytes:
        """Return whatever authenticated bytes are next, at least one.

        Raises `TransportClosedError` at the end and `RemoteProtocolError` for a forged frame.
        """
        ...

    async def aclose(self) -> None:
        """Close the stream below, at once."""
        ...


class Security(Protocol):
    """Make a secure channel out of a byte stream.

    Both raise `HandshakeError` (`WrongNetworkError` for another network's node) and then the
    stream is closed. Both take HANDSHAKE_TIMEOUT_S at most, whatever trickles in.
    """

    async def outbound(
        self, stream: ByteStream, remote: PubKey, listening: Sequence[Address]
    ) -> SecureChannel:
        """Secure a connection that we dialled; the other side must be exactly `remote`."""
        ...

    async def inbound(self, stream: ByteStream, listening: Sequence[Address]) -> SecureChannel:
        """Secure a connection that somebody made to us."""
        ...

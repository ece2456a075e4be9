"""A relayed stream as anyio's ByteStream: what the transport manager secures end to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anyio
from anyio.abc import ByteStream, SocketAttribute

from skycore.contracts.streams import Stream
from skycore.errors import StreamError

__all__ = ["CarriedStream", "host_name"]


def host_name(key: bytes) -> str:
    """Return what stands for the host of a relayed connection: its key, as far as is needed.

    Handshakes are bounded for each host, and all that come through one relay have no other name.
    """
    return f"key-{key[:8].hex()}"


class CarriedStream(ByteStream):
    """Bytes through a relay. Raises anyio's `EndOfStream`, `BrokenResourceError` and so on."""

    def __init__(self, stream: Stream, remote: bytes) -> None:
        self._stream = stream
        self._host = host_name(remote)
        self._closed = False

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Return at least one byte."""
        if self._closed:
            raise anyio.ClosedResourceError
        try:
            data = await self._stream.receive(max_bytes)
        except StreamError as lost:
            if self._closed:
                raise anyio.ClosedResourceError from lost
            raise anyio.BrokenResourceError(str(lost)) from lost
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        """Send all; waits while the windows on the way are full."""
        if self._closed:
            raise anyio.ClosedResourceError
        try:
            await self._stream.send(bytes(item))
        except StreamError as lost:
            raise anyio.BrokenResourceError(str(lost)) from lost

    async def send_eof(self) -> None:
        """End our direction."""
        if self._closed:
            raise anyio.ClosedResourceError
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close at once."""
        self._closed = True
        await self._stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Return anyio's typed attributes: a name that stands for the remote host."""
        return {SocketAttribute.remote_address: lambda: (self._host, 0)}

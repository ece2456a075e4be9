"""Frames: `u32 length ‖ body` on any stream, for DHT calls and for JSON-RPC.

Why here: three plugins and the command line speak in such frames. The length is checked against
the caller's bound before anything is allocated.
"""

from __future__ import annotations

import struct
from typing import Protocol

from skycore.errors import RemoteProtocolError, StreamError

__all__ = ["FrameReader", "FrameSource", "frame"]

_LENGTH = struct.Struct(">I")


class FrameSource(Protocol):
    """Whatever yields bytes: a contracts.streams.Stream, or an adapted socket."""

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Return at least one byte, or b"" at the end."""
        ...


def frame(body: bytes) -> bytes:
    """Return the body with its length before it."""
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Read frames from a stream, each at most `size_max` bytes."""

    __slots__ = ("_held", "_size_max", "_source")

    def __init__(self, source: FrameSource, size_max: int) -> None:
        self._source = source
        self._size_max = size_max
        self._held = bytearray()

    async def read(self) -> bytes | None:
        """Return the next body, or None where the stream ended between frames.

        Raises `RemoteProtocolError` for an empty or oversize frame, `StreamError` for one that
        the stream's end cut short.
        """
        if not await self._fill(4, at_start=True):
            return None
        size = _LENGTH.unpack_from(self._held)[0]
        if not 1 <= size <= self._size_max:
            raise RemoteProtocolError(f"a frame of {size} bytes; 1 to {self._size_max} are allowed")
        await self._fill(4 + size, at_start=False)
        body = bytes(memoryview(self._held)[4 : 4 + size])
        del self._held[: 4 + size]
        return body

    async def _fill(self, size: int, *, at_start: bool) -> bool:
        while len(self._held) < size:
            data = await self._source.receive()
            if not data:
                if at_start and not self._held:
                    return False
                raise StreamError("the stream ended inside a frame")
            self._held += data
        return True

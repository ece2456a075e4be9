"""Frames: `u32 length ‖ body` on any stream, for DHT calls and for JSON-RPC.

Why here: three plugins and the command line speak in such frames. The length is checked against
the caller's bound before anything is allocated.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
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
    """Read frames from a stream, each at most `size_max` bytes.

    `begun` is told the size of a frame that did not come in one piece, before the rest is held.
    """

    __slots__ = ("_begun", "_held", "_size_max", "_source")

    def __init__(
        self,
        source: FrameSource,
        size_max: int,
        begun: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._source = source
        self._size_max = size_max
        self._begun = begun
        self._held = bytearray()

    async def read(self) -> bytes | None:
        """Return the next body, or None where the stream ended between frames.

        Raises `RemoteProtocolError` for an empty or oversize frame, `StreamError` for one that
        the stream's end cut short.
        """
        if not self._held:
            data = await self._source.receive()
            if not data:
                return None
            if len(data) > 4 and len(data) == 4 + self._size(data):
                return data[4:]  # most reads bring exactly one frame
            self._held += data
        await self._fill(4)
        size = self._size(self._held)
        self._begun(size)
        await self._fill(4 + size)
        body = bytes(memoryview(self._held)[4 : 4 + size])
        del self._held[: 4 + size]
        return body

    def _size(self, head: bytes | bytearray) -> int:
        size = int(_LENGTH.unpack_from(head)[0])
        if not 1 <= size <= self._size_max:
            raise RemoteProtocolError(f"a frame of {size} bytes; 1 to {self._size_max} are allowed")
        return size

    async def _fill(self, size: int) -> None:
        while len(self._held) < size:
            data = await self._source.receive()
            if not data:
                raise StreamError("the stream ended inside a frame")
            self._held += data

"""One end of a connection as anyio's ByteStream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.lowlevel import checkpoint

from skycore.contracts.transport import LineAttribute

if TYPE_CHECKING:
    from transport_sudph.core.link import QuicLink
    from transport_sudph.endpoint import UdpEndpoint

__all__ = ["SudphStream"]

UNSENT_MAX: Final = 1024 * 1024
"""Bytes written and not acknowledged over which a writer waits."""
TURNS_MAX: Final = 16
"""Calls that succeed at once before the task lets others run."""


class SudphStream(ByteStream):
    """A connection's bytes. One reader and one writer at a time; closing wakes both.

    Raises anyio's `EndOfStream`, `BrokenResourceError` and `ClosedResourceError`.
    """

    def __init__(self, endpoint: UdpEndpoint, link: QuicLink) -> None:
        self._endpoint = endpoint
        self.link = link
        self.is_closed = False
        self._readable = anyio.Event()
        self._writable = anyio.Event()
        self._turns = 0

    def wake(self) -> None:
        """Let whoever waits look again."""
        self._readable.set()
        self._writable.set()

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Return at least one byte."""
        await self._turn()
        link = self.link
        while not link.inbox or self.is_closed:
            if self.is_closed:
                raise anyio.ClosedResourceError
            if link.has_ended:
                raise anyio.EndOfStream
            if link.closed is not None:
                raise anyio.BrokenResourceError(link.closed)
            self._turns = 0
            self._readable = anyio.Event()
            await self._readable.wait()
        data = link.take(max_bytes)
        if link.owes_window:
            self._endpoint.flush(link)
        return data

    async def send(self, item: bytes) -> None:
        """Send; waits while more than a mebibyte is not acknowledged."""
        await self._turn()
        self._check_writable()
        if item:
            self.link.write(bytes(item))
            self._endpoint.flush(self.link)
        while self.link.unsent_bytes > UNSENT_MAX:
            self._turns = 0
            self._writable = anyio.Event()
            await self._writable.wait()
            self._check_writable()

    def _check_writable(self) -> None:
        if self.is_closed:
            raise anyio.ClosedResourceError
        if self.link.closed is not None or self.link.is_refused or self.link.is_ending:
            raise anyio.BrokenResourceError(self.link.closed or "the other side reads no more")

    async def _turn(self) -> None:
        self._turns += 1
        if self._turns >= TURNS_MAX:
            self._turns = 0
            await checkpoint()

    async def send_eof(self) -> None:
        """End our direction."""
        if self.is_closed:
            raise anyio.ClosedResourceError
        if self.link.closed is None:
            self.link.end()
            self._endpoint.flush(self.link)
        await checkpoint()

    async def aclose(self) -> None:
        """Close at once. What was written is still sent, for a few seconds."""
        if not self.is_closed:
            self.is_closed = True
            self._endpoint.let_go(self.link)
            self.wake()
        await checkpoint()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Return anyio's typed attributes: both addresses as (host, port), and the loss."""
        return {
            LineAttribute.loss: lambda: self.link.loss,
            LineAttribute.watched: lambda: True,
            SocketAttribute.local_address: lambda: self._endpoint.local,
            SocketAttribute.remote_address: lambda: self.link.peer or ("", 0),
        }

"""A stream as its user holds it."""

from __future__ import annotations

import anyio

from skycore.errors import LocalProtocolError, StreamError
from skycore.model.limits import STREAM_CHUNK_MAX
from streams_vstream.core.channel import Channel
from streams_vstream.link import QUEUED_MAX, Link

__all__ = ["VStream"]


class VStream:
    """One stream of a session. `remote` is the transport's, whatever a payload says.

    Nothing here waits but for the peer's window, for a turn on the link, or for data: `receive`
    with data at hand and `send` into an open window return without a turn of the loop.
    """

    __slots__ = ("_channel", "_closed", "_link", "_reader", "_writer", "remote")

    def __init__(self, link: Link, channel: Channel) -> None:
        channel.tag = self
        self.remote = link.remote
        self._link = link
        self._channel = channel
        self._closed = False
        self._reader: anyio.Event | None = None
        self._writer: anyio.Event | None = None

    async def send(self, data: bytes) -> None:
        """Send all; waits while the peer's window or the transport's queue is full.

        Cancelled half-way, it resets the stream: a part must not look like a whole.
        """
        link, channel = self._link, self._channel
        carrier = link.carrier
        size = len(data)
        if (
            0 < size <= STREAM_CHUNK_MAX
            and size <= channel.send_window
            and carrier.queued < QUEUED_MAX
            and not carrier.waiters
        ):
            link.write(channel, data)
        else:
            await self._send_in_turns(memoryview(bytes(data)))

    async def _send_in_turns(self, data: memoryview) -> None:
        link, channel = self._link, self._channel
        carrier = link.carrier
        behind_others = bool(carrier.waiters)
        at, size = 0, len(data)
        try:
            while at < size:
                link.session.check(channel)
                room = min(channel.send_window, STREAM_CHUNK_MAX, size - at)
                if not room:
                    await self._writable()
                elif behind_others or carrier.queued >= QUEUED_MAX:
                    behind_others = False
                    await carrier.turn()
                else:
                    link.write(channel, data[at : at + room])
                    at += room
        finally:
            if 0 < at < size:
                link.session.reset(channel, "the stream was reset: a send was cancelled half-way")
                link.flush_soon()
                self.wake()

    async def _writable(self) -> None:
        if self._writer is None:
            self._writer = anyio.Event()
        await self._writer.wait()

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Return what is there, at least one byte; b"" once the peer has ended its side."""
        if max_bytes < 1:
            raise LocalProtocolError("receive at least one byte")
        link, channel = self._link, self._channel
        session = link.session
        while not channel.unread:
            if self._closed:
                raise StreamError(channel.problem)
            if channel.ended_there:
                return b""
            if channel.problem or session.problem:
                raise StreamError(channel.problem or session.problem)
            if channel.due:  # the peer may speak first, but must know of us
                session.announce(channel)
                link.flush_soon()
            if self._reader is None:
                self._reader = anyio.Event()
            await self._reader.wait()
        data = session.read(channel, max_bytes)
        if session.waiting:
            link.flush_soon()
        return data

    async def send_eof(self) -> None:
        """End our side."""
        self._link.session.end(self._channel)
        self._link.flush_soon()

    async def aclose(self) -> None:
        """End both sides; unread data is thrown away. Never waits, never fails."""
        if not self._closed:
            self._closed = True
            self._link.session.close(self._channel)
            self._link.flush_soon()
            self._link.wake_diallers()
            self.wake()

    # --- for the part itself ---------------------------------------------------------------------

    @property
    def failed(self) -> bool:
        """Whether it was reset or lost."""
        return bool(self._channel.problem)

    def taken(self) -> None:
        """Tell the session that a listener accepted this stream."""
        self._link.session.accept(self._channel)
        self._link.flush_soon()

    def refuse(self) -> None:
        """Reset a stream that nobody will accept."""
        self._link.session.reset(self._channel, "nobody accepts this stream")
        self._link.flush_soon()

    def wake(self) -> None:
        """Let reader and writer look again."""
        self.wake_reader()
        self.wake_writer()

    def wake_reader(self) -> None:
        """Let the reader look again."""
        if self._reader is not None:
            self._reader.set()
            self._reader = None

    def wake_writer(self) -> None:
        """Let the writer look again."""
        if self._writer is not None:
            self._writer.set()
            self._writer = None

"""Messages on streams: read exactly, so that what follows a dial's answer is the stream's own."""

from __future__ import annotations

from relay_dmsg.core.messages import HEAD_BYTES, Message, check_size, decode, encode
from skycore.contracts.streams import Stream
from skycore.errors import RemoteProtocolError

__all__ = ["read_message", "send_message"]


async def read_message(stream: Stream) -> Message:
    """Return the next message, and take not a byte more.

    Raises `DecodeError` for what is none, `RemoteProtocolError` where the stream ends within or
    before it, `StreamError` where it is lost.
    """
    return decode(await _exactly(stream, check_size(await _exactly(stream, HEAD_BYTES))))


async def send_message(stream: Stream, message: Message) -> None:
    """Send a message. Raises `StreamError`."""
    await stream.send(encode(message))


async def _exactly(stream: Stream, size: int) -> bytes:
    data = await stream.receive(size)
    while len(data) < size:
        more = await stream.receive(size - len(data))
        if not more:
            break
        data += more
    if len(data) < size:
        raise RemoteProtocolError("the stream ended before a relay message did")
    return data

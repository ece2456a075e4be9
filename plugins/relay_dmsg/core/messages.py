"""Messages between clients and DMSG servers: `u16 length ‖ type u8 ‖ body`, at most 2 KiB.

Why so few: a session is an ordinary transport of two nodes, so identity, encryption, streams and
pings are there already (docs/protocols/dmsg.md). What is left is to attach, to dial, and to be
answered. Bodies are MessagePack arrays that grow only at their end. Pure: bytes in, messages out.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from skycore.errors import DecodeError, LocalProtocolError
from skycore.model.limits import (
    DMSG_MESSAGE_MAX,
    DMSG_PURPOSE_MAX,
    DMSG_REASON_MAX,
    DMSG_REQUEST_MAX,
)

__all__ = [
    "HEAD_BYTES",
    "VERSION",
    "Answer",
    "Attach",
    "Attached",
    "Code",
    "Dial",
    "Message",
    "Pulse",
    "Refused",
    "Request",
    "check_size",
    "decode",
    "decode_request",
    "encode",
    "encode_request",
]

VERSION: Final = 1
HEAD_BYTES: Final = 2
_LENGTH = struct.Struct(">H")

Version = Annotated[int, Meta(ge=1, le=65_535)]
Count = Annotated[int, Meta(ge=0, le=2**31)]
Text = Annotated[str, Meta(max_length=DMSG_REASON_MAX)]
Purpose = Annotated[str, Meta(max_length=DMSG_PURPOSE_MAX)]
Key = Annotated[bytes, Meta(min_length=1, max_length=64)]


class Code(IntEnum):
    """What became of a dial, or why a session is refused."""

    ACCEPTED = 0
    BAD_REQUEST = 1
    """Malformed, not signed by who speaks, or not what was agreed."""
    NOT_ATTACHED = 2
    """The server has no session with that key."""
    BUSY = 3
    """No room now; try again later or elsewhere."""
    LIMIT = 4
    """More than one key, or one address, may have."""
    NOT_ALLOWED = 5
    STALE = 6
    """Signed too long ago, or too far ahead."""
    NO_ANSWER = 7
    """The other side did not answer the server in time."""
    NO_LISTENER = 8
    """Nobody listens on that port."""
    REPLAYED = 9
    """This very request was seen before."""
    REPLACED = 10
    """A newer session of the same key took this one's place."""
    STOPPING = 11


class Attach(msgspec.Struct, frozen=True, array_like=True):
    """A client asks to be reached through this server; the stream stays open as long."""

    version: Version
    purpose: Purpose = ""


class Attached(msgspec.Struct, frozen=True, array_like=True):
    """The server agrees."""

    version: Version
    streams_max: Count = 0
    """Relayed streams that one session may have at a time."""
    dials_per_minute: Count = 0
    serves_dht: bool = False
    """Whether this node is a full node of the DHT, too: somebody to start from."""


class Refused(msgspec.Struct, frozen=True, array_like=True):
    """The server does not, or not any more, and why."""

    code: Annotated[int, Meta(ge=0, le=65_535)]
    reason: Text = ""


class Pulse(msgspec.Struct, frozen=True, array_like=True):
    """The client still wants the session: without it a quiet transport would be closed."""


class Request(msgspec.Struct, frozen=True, array_like=True):
    """What is wished: a stream from one key to a port of another, now, for a purpose."""

    src: Key
    dst: Key
    port: Annotated[int, Meta(ge=1, le=65_535)]
    time_ns: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    id: Annotated[bytes, Meta(min_length=16, max_length=16)]
    purpose: Purpose = ""


class Dial(msgspec.Struct, frozen=True, array_like=True):
    """A signed wish for a stream. The server hands on the very same bytes.

    Why the request stands inside as bytes: what is signed is what is read, whatever fields a later
    version adds.
    """

    request: Annotated[bytes, Meta(max_length=DMSG_REQUEST_MAX)]
    """An encoded `Request`."""
    signature: Annotated[bytes, Meta(max_length=128)]
    """By its `src`."""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What became of a dial. Signed: the destination says so. Not signed: the server does."""

    code: Annotated[int, Meta(ge=0, le=65_535)]
    reason: Text = ""
    signature: Annotated[bytes, Meta(max_length=128)] = b""


Message = Attach | Attached | Refused | Pulse | Dial | Answer
_CLASSES: Final = (Attach, Attached, Refused, Pulse, Dial, Answer)
_TYPE_OF: Final = {cls: number for number, cls in enumerate(_CLASSES, 1)}
_DECODERS: Final = {n: msgspec.msgpack.Decoder(cls) for n, cls in enumerate(_CLASSES, 1)}
_request_decoder: Final = msgspec.msgpack.Decoder(Request)
_encoder: Final = msgspec.msgpack.Encoder()


def encode(message: Message) -> bytes:
    """Return a message with its length. Raises `LocalProtocolError` where it is too long."""
    body = _encoder.encode(message)
    if len(body) >= DMSG_MESSAGE_MAX:
        raise LocalProtocolError(f"a relay message carries {DMSG_MESSAGE_MAX - 1} bytes at most")
    return _LENGTH.pack(1 + len(body)) + bytes((_TYPE_OF[type(message)],)) + body


def check_size(head: bytes) -> int:
    """Return how many bytes follow the length. Raises `DecodeError` for none or too many."""
    size = int(_LENGTH.unpack(head)[0])
    if not 1 <= size <= DMSG_MESSAGE_MAX:
        raise DecodeError(
            f"a relay message of {size} bytes; 1 to {DMSG_MESSAGE_MAX} are allowed", reason="size"
        )
    return size


def decode(data: bytes) -> Message:
    """Return the message in what followed a length. Raises `DecodeError`."""
    decoder = _DECODERS.get(data[0]) if data else None
    if decoder is None:
        raise DecodeError(f"no relay message has type {data[0] if data else None}")
    try:
        message: Message = decoder.decode(memoryview(data)[1:])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as bad:
        raise DecodeError(f"a malformed relay message: {bad}"[:200]) from None
    return message


def encode_request(request: Request) -> bytes:
    """Return what is signed of a dial."""
    return _encoder.encode(request)


def decode_request(data: bytes) -> Request:
    """Read what was signed. Raises `DecodeError`."""
    try:
        return _request_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as bad:
        raise DecodeError(f"a malformed dial request: {bad}"[:200]) from None

"""The codec of the DHT: MessagePack bodies behind `u32 length (1 + body) ‖ method u8 ‖ body`.

Why a class of its own: a dialect (say, JSON bodies) is another class with the same five methods,
and nothing else changes. Pure: bytes in, messages out.
"""

from __future__ import annotations

import struct
from typing import Protocol

import msgspec

from dht_kademlia.core.messages import REPLIES, REQUESTS, ErrorReply, Message
from skycore.errors import LocalProtocolError, RemoteProtocolError, ReplyError
from skycore.model.limits import DHT_FRAME_MAX
from skycore.model.numbers import DhtMethod

__all__ = ["Codec", "MsgpackCodec", "UnsupportedMethodError"]

_HEAD = struct.Struct(">IB")


class UnsupportedMethodError(RemoteProtocolError):
    """The peer asked for a method that this node does not have."""


class Codec(Protocol):
    """How messages become frames. `body` in decoding is method ‖ body, without the length."""

    def encode(self, method: int, message: Message) -> bytes:
        """Return the whole frame. Raises `LocalProtocolError` where it is too large."""
        ...

    def decode_request(self, body: bytes) -> tuple[int, Message]:
        """Read a request. Raises `UnsupportedMethodError`, `RemoteProtocolError`."""
        ...

    def decode_reply(self, method: int, body: bytes) -> Message:
        """Read the reply to a request. Raises `ReplyError` for an error reply."""
        ...


class MsgpackCodec:
    """Typed MessagePack, decoded straight into the structs."""

    def __init__(self) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._requests = {n: msgspec.msgpack.Decoder(t) for n, t in REQUESTS.items()}
        self._replies = {n: msgspec.msgpack.Decoder(t) for n, t in REPLIES.items()}

    def encode(self, method: int, message: Message) -> bytes:
        """Return the whole frame."""
        body = self._encoder.encode(message)
        if len(body) >= DHT_FRAME_MAX:
            raise LocalProtocolError(f"a DHT frame of {len(body)} bytes; {DHT_FRAME_MAX} fit")
        return _HEAD.pack(1 + len(body), method) + body

    def decode_request(self, body: bytes) -> tuple[int, Message]:
        """Read a request."""
        decoder = self._requests.get(body[0])
        if decoder is None:
            spoken = ", ".join(str(int(n)) for n in self._requests)
            raise UnsupportedMethodError(
                f"unsupported method {body[0]}; this node speaks {spoken}",
                hint="one of the two nodes is older; see the versions in `visor dht peers`",
            )
        return body[0], _decoded(decoder, body)

    def decode_reply(self, method: int, body: bytes) -> Message:
        """Read the reply to a request of this method."""
        decoder = self._replies.get(body[0]) if body[0] in (method, DhtMethod.ERROR) else None
        if decoder is None:
            raise RemoteProtocolError(f"a reply of method {body[0]} to a request of {method}")
        message = _decoded(decoder, body)
        if isinstance(message, ErrorReply):
            raise ReplyError(message.text[:500] or "no reason given", code=message.code)
        return message


def _decoded(decoder: msgspec.msgpack.Decoder[Message], body: bytes) -> Message:
    try:
        return decoder.decode(memoryview(body)[1:])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as bad:
        raise RemoteProtocolError(f"not a message of method {body[0]}: {bad}") from bad

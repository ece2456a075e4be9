"""The messages of JSON-RPC 2.0 as typed values, and how errors become numbers and back.

Source: the JSON-RPC 2.0 specification. Codes below -32000 are ours; item errors keep the numbers
that BEP 44 gave them.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Annotated, Any, Literal, Protocol

import msgspec

from skycore.errors import (
    AccessDeniedError,
    DecodeError,
    RpcError,
    SkycoreError,
    TooManyRequestsError,
)
from skycore.frames import frame
from skycore.jsonrpc.strict import check_json
from skycore.model.keys import PubKey, short

__all__ = [
    "CallId",
    "ErrorCode",
    "Incoming",
    "Request",
    "RpcStream",
    "decode_incoming",
    "decode_request",
    "error_frame",
    "error_of",
    "not_listed",
    "progress_frame",
    "request_frame",
    "result_frame",
]

TEXT_MAX = 500
"""Characters of a message or hint that crosses the wire."""
METHOD_MAX = 128
_PATH = re.compile(r"(?<![\w/.:])/(?:[\w.+~-]+/)*[\w.+~-]+")


class RpcStream(Protocol):
    """What calls run over: a contracts.streams.Stream, or a control.UnixStream."""

    async def send(self, data: bytes) -> None:
        """Send all."""
        ...

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Return what is there; b"" at the end."""
        ...

    async def aclose(self) -> None:
        """End both sides."""
        ...


class ErrorCode(IntEnum):
    """What the numbers mean. Positive ones are an item error's (skycore.errors)."""

    PARSE = -32700
    INVALID_REQUEST = -32600
    METHOD_UNKNOWN = -32601
    INVALID_PARAMS = -32602
    INTERNAL = -32603
    FAILED = -32000
    ACCESS_DENIED = -32001
    TOO_MANY_REQUESTS = -32002
    STARTING = -32003
    TOO_BIG = -32004


CallId = int | str


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A call. Notifications to a node do not exist: each call has an id and gets an answer."""

    jsonrpc: Literal["2.0"]
    id: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | Annotated[str, msgspec.Meta(max_length=64)]
    method: Annotated[str, msgspec.Meta(max_length=METHOD_MAX)]
    params: msgspec.Raw = msgspec.Raw(b"{}")


class _ErrorData(msgspec.Struct, frozen=True):
    hint: str = ""


class _Error(msgspec.Struct, frozen=True, omit_defaults=True):
    code: int
    message: str
    data: _ErrorData = _ErrorData()


class _Progress(msgspec.Struct, frozen=True):
    id: CallId
    done: int
    total: int
    text: str


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """What a client reads: a result, an error, or a progress notification."""

    jsonrpc: Literal["2.0"]
    id: CallId | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _Error | None = None
    method: str | None = None
    params: _Progress | None = None


_requests = msgspec.json.Decoder(Request)
_incoming = msgspec.json.Decoder(Incoming)


def decode_request(body: bytes) -> Request:
    """Read a call. Raises `DecodeError` (not JSON) and `RpcError` -32600 (JSON, but no call)."""
    check_json(body)
    try:
        return _requests.decode(body)
    except msgspec.ValidationError as bad:
        raise RpcError(
            f"not a call: {bad}",
            code=ErrorCode.INVALID_REQUEST,
            hint='send {"jsonrpc": "2.0", "id": 1, "method": "...", "params": {...}}',
        ) from None
    except msgspec.DecodeError as bad:
        raise DecodeError(f"not JSON: {bad}", reason="bad text") from None


def decode_incoming(body: bytes) -> Incoming:
    """Read what a node sent back. Raises `DecodeError`."""
    check_json(body)
    try:
        return _incoming.decode(body)
    except msgspec.DecodeError as bad:
        raise DecodeError(f"not an answer: {bad}", reason="bad type") from None


def request_frame(number: int, method: str, params: Any) -> bytes:
    """Return a call as a frame."""
    call = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    return frame(msgspec.json.encode(call))


def result_frame(call_id: CallId, result: bytes) -> bytes:
    """Return an answer as a frame; `result` is JSON text."""
    # Spelled out: an encoder would copy the result twice more.
    return frame(b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (msgspec.json.encode(call_id), result))


def progress_frame(call_id: CallId, done: int, total: int, text: str) -> bytes:
    """Return a progress notification as a frame."""
    news = _Progress(call_id, done, total, _plain(text))
    return frame(msgspec.json.encode({"jsonrpc": "2.0", "method": "progress", "params": news}))


def error_frame(call_id: CallId | None, error: SkycoreError, *, private: bool = False) -> bytes:
    """Return an error as a frame. For remote callers (`private`), file paths are left out."""
    message, hint = _plain(str(error)), _plain(error.hint)
    if private:
        message, hint = _PATH.sub("(path)", message), _PATH.sub("(path)", hint)
    if isinstance(error, DecodeError):
        code: int = ErrorCode.PARSE
    else:
        code = error.code or ErrorCode.FAILED
    body = _Error(code, message, _ErrorData(hint))
    return frame(msgspec.json.encode({"jsonrpc": "2.0", "id": call_id, "error": body}))


def error_of(error: _Error) -> SkycoreError:
    """Return what to raise for an error that came back, with the remote's message and hint."""
    message, hint = _plain(error.message), _plain(error.data.hint)
    if error.code == ErrorCode.ACCESS_DENIED:
        return AccessDeniedError(message, hint=hint)
    if error.code == ErrorCode.TOO_MANY_REQUESTS:
        return TooManyRequestsError(message, hint=hint)
    return RpcError(message, code=error.code, hint=hint)


def not_listed(remote: PubKey) -> AccessDeniedError:
    """Return what a key hears that may do nothing here. It learns how to be let in, no more."""
    return AccessDeniedError(
        f"not authorised: {short(remote)} is not on this node's whitelist",
        hint=f"its operator can run: skynode visor whitelist add {remote.hex()}",
    )


def _plain(text: str) -> str:
    """Return text that is safe to print and bounded: the other side wrote it."""
    if len(text) > TEXT_MAX:
        text = text[:TEXT_MAX] + "…"
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)

"""Call methods of a node over a stream, several at once if you like.

Why no task of its own: whoever waits for an answer reads the stream, and hands the others theirs.
So a client needs no task group, and a single call costs one write and one read.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec

from skycore.contracts.rpc import Progress
from skycore.control import connect_unix, control_socket_path
from skycore.errors import (
    AccessDeniedError,
    NoNodeError,
    RpcError,
    SkycoreError,
    StreamError,
    TooManyRequestsError,
)
from skycore.frames import FrameReader
from skycore.jsonrpc.messages import (
    ErrorCode,
    Incoming,
    RpcStream,
    decode_incoming,
    error_of,
    request_frame,
)
from skycore.jsonrpc.turns import Sender
from skycore.model.limits import RPC_FRAME_MAX

__all__ = ["Client", "connect_control"]

LAST_WORDS_S = 1.0


class _Waiting:
    """A call without an answer yet."""

    __slots__ = ("answer", "progress", "woken")

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.answer: Incoming | None = None
        self.woken: anyio.Event | None = None

    def wake(self) -> None:
        if self.woken is not None:
            self.woken.set()


class Client:
    """The calling side. Owns its stream; `async with` or `aclose` ends it."""

    def __init__(self, stream: RpcStream) -> None:
        self._stream = stream
        self._frames = FrameReader(stream, RPC_FRAME_MAX)
        self._sender = Sender(stream)
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._reading = False
        self._broken: SkycoreError | None = None

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the stream. Calls that still run at the node are cancelled there."""
        self._broken = self._broken or StreamError("the client is closed")
        await self._stream.aclose()

    async def call(self, method: str, params: Any = None, progress: Progress | None = None) -> Any:
        """Call a method and return its result as plain JSON data.

        `params` is a dict or a Struct. Raises what the node answered (`RpcError`,
        `AccessDeniedError`, `TooManyRequestsError`, each with its message and hint), `StreamError`
        where the connection is lost, `RemoteProtocolError` where the answer is none. `progress` is
        told whatever the method tells while it runs.
        """
        number = next(self._numbers)
        request = request_frame(number, method, {} if params is None else params)
        if len(request) - 4 > RPC_FRAME_MAX:
            raise RpcError(
                f"the call has {len(request)} bytes; {RPC_FRAME_MAX} are allowed",
                code=ErrorCode.TOO_BIG,
                hint="send less at a time",
            )
        waiting = self._waiting[number] = _Waiting(progress)
        try:
            self._check()
            try:
                await self._sender.send(request)
            except StreamError as lost:
                await self._last_words(waiting, lost)
            while waiting.answer is None:
                if not self._reading:
                    await self._read_one()
                else:
                    waiting.woken = anyio.Event()
                    await waiting.woken.wait()
        finally:
            del self._waiting[number]
            if not self._reading:
                self._let_another_read()
        return _result(waiting.answer)

    async def _last_words(self, waiting: _Waiting, lost: StreamError) -> None:
        """Hear why the node closed the stream on us, if it said so; else raise that it is lost.

        A node that refuses a caller does not read a large call to its end.
        """
        try:
            with anyio.move_on_after(LAST_WORDS_S):
                while waiting.answer is None and not self._reading:
                    await self._read_one()
        except (AccessDeniedError, TooManyRequestsError, RpcError) as said:
            raise said from lost
        except SkycoreError:
            pass
        if waiting.answer is None:
            raise lost

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken

    async def _read_one(self) -> None:
        """Read one message and give it to whom it is for. A lost stream fails every call."""
        self._check()
        self._reading = True
        try:
            body = await self._frames.read()
            if body is None:
                raise StreamError(
                    "the node ended the connection without an answer",
                    hint="it may have stopped; its log says more",
                )
            self._dispatch(decode_incoming(body))
        except SkycoreError as lost:
            self._broken = lost
            raise
        finally:
            self._reading = False

    def _dispatch(self, message: Incoming) -> None:
        if message.method == "progress" and message.params is not None:
            told = message.params
            waiting = self._waiting.get(told.id) if isinstance(told.id, int) else None
            if waiting is not None and waiting.progress is not None:
                waiting.progress(told.done, told.total, told.text)
            return
        if message.id is None and message.error is not None:
            raise error_of(message.error)  # about the stream as a whole
        waiting = self._waiting.get(message.id) if isinstance(message.id, int) else None
        if waiting is not None:  # else: of a call that was given up
            waiting.answer = message
            waiting.wake()

    def _let_another_read(self) -> None:
        for waiting in self._waiting.values():
            if waiting.answer is None and waiting.woken is not None:
                waiting.woken.set()
                return


def _result(answer: Incoming) -> Any:
    if answer.error is not None:
        raise error_of(answer.error)
    if isinstance(answer.result, msgspec.UnsetType):
        raise RpcError("an answer without result or error", code=ErrorCode.INVALID_REQUEST)
    return msgspec.json.decode(answer.result)


@asynccontextmanager
async def connect_control(folder: Path) -> AsyncIterator[Client]:
    """Connect to the node that runs on a data folder. Raises `SkycoreError` where none does."""
    path = control_socket_path(folder)
    try:
        client = Client(await connect_unix(path))
    except OSError as bad:
        raise _no_node(folder, bad) from bad
    try:
        yield client
    finally:
        await client.aclose()


def _no_node(folder: Path, bad: OSError) -> SkycoreError:
    if bad.errno in (errno.EACCES, errno.EPERM):
        return SkycoreError(
            f"the node on {folder} belongs to another user",
            hint="its control socket is for the user that runs it",
        )
    return NoNodeError(f"no node runs on {folder}", hint=f"start one with: skynode --data {folder}")

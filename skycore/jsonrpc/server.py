"""Answer calls on streams: many on one stream, or one on each of many.

Why the reading is handed on: a call that never waits (most do not) is read, run and answered by
one task, which costs nothing extra. A call that does wait keeps its task, and a fresh one goes on
reading the stream. So there are always ears on it: later calls are answered meanwhile, and a
caller that goes away ends its calls at once (R13).

    serve() --- read -> run -> answer -> read -> run ...waits............ -> answer
                                              `-> a fresh task: read -> run -> answer -> read ...
"""

from __future__ import annotations

import contextlib
import logging
import types
from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import anyio
from anyio.abc import TaskGroup

from skycore.contracts.rpc import Caller, Rpc
from skycore.contracts.runtime import Clock, Lifecycle
from skycore.errors import (
    DecodeError,
    RemoteProtocolError,
    RpcError,
    SkycoreError,
    TooManyRequestsError,
    TransportError,
)
from skycore.frames import FrameReader
from skycore.jsonrpc.messages import (
    CallId,
    ErrorCode,
    Request,
    RpcStream,
    decode_request,
    error_frame,
    progress_frame,
    result_frame,
)
from skycore.jsonrpc.turns import Room, Sender, TaskPool, Turns
from skycore.logs import LimitedLog
from skycore.model.keys import PubKey, short
from skycore.model.limits import RPC_FRAME_MAX

__all__ = ["RpcServer", "ServerLimits"]

log = logging.getLogger(__name__)
T = TypeVar("T")
PROGRESS_PAUSE_S = 0.1


@dataclass(frozen=True)
class ServerLimits:
    """What one caller may hold of a server."""

    running_max: int = 16
    """Calls of one caller that run at once; more wait their turn."""
    open_max: int = 256
    """Calls of one caller, waiting ones included; over it: TooManyRequests."""
    held_bytes_max: int = 4 * RPC_FRAME_MAX
    """Bytes of unanswered calls of one caller, half-read ones included."""
    unsent_bytes_max: int = RPC_FRAME_MAX
    """Bytes of answers that one caller has not read; over it, no call of his is begun."""
    frame_max: int = RPC_FRAME_MAX
    quiet_s: float | None = None
    """A stream without a call, or whose answers are not read, is closed after this long."""


@types.coroutine
def _noticing(work: Coroutine[Any, Any, T], waits: Callable[[], None]) -> Generator[Any, Any, T]:
    """Await `work` in this task; call `waits` once, when it first has to wait for something."""
    try:
        wanted = work.send(None)
        waits()
        while True:
            try:
                given = yield wanted
            except BaseException as thrown:  # noqa: BLE001 - handed on, cancellation included
                wanted = work.throw(thrown)
            else:
                wanted = work.send(given)
    except StopIteration as done:
        return cast(T, done.value)


class _Peer:
    """One caller's share of the server."""

    __slots__ = ("held", "name", "open", "sessions", "turns", "unsent")

    def __init__(self, caller: Caller, limits: ServerLimits) -> None:
        self.name = short(caller.remote) if caller.remote else "local"
        self.turns = Turns(limits.running_max)
        self.unsent = Room(limits.unsent_bytes_max)
        self.open = 0
        self.held = 0
        self.sessions: dict[_Session, None] = {}


class RpcServer:
    """Serve a registry on streams. One for each way in; `tasks` outlives every stream."""

    def __init__(
        self,
        rpc: Rpc,
        tasks: TaskGroup,
        clock: Clock,
        *,
        lifecycle: Lifecycle | None = None,
        limits: ServerLimits | None = None,
    ) -> None:
        self.rpc = rpc
        self.tasks = TaskPool(tasks)
        self.clock = clock
        self.lifecycle = lifecycle
        self.limits = limits or ServerLimits()
        self.malformed = LimitedLog(log, clock.now)
        self.calls = 0
        """Calls answered so far, errors included."""
        self._peers: dict[PubKey | None, _Peer] = {}

    def take(self, stream: RpcStream, caller: Caller) -> None:
        """Serve a stream in a task of our own."""
        self.tasks.start(self.serve, stream, caller)

    async def serve(self, stream: RpcStream, caller: Caller) -> None:
        """Answer what comes on a stream, until the caller ends its side; then close it."""
        peer = self._peers.get(caller.remote)
        if peer is None:
            peer = self._peers[caller.remote] = _Peer(caller, self.limits)
        session = _Session(self, peer, stream, caller)
        peer.sessions[session] = None
        try:
            await session.run()
        finally:
            del peer.sessions[session]
            if not peer.sessions:
                self._peers.pop(caller.remote, None)
            await stream.aclose()

    async def refuse(self, stream: RpcStream, error: SkycoreError, *, wait_s: float = 2.0) -> None:
        """Answer the first call on a stream with an error, whatever it is, and close it.

        For callers who may do nothing: their frames are small, and no method is looked for.
        """
        call_id: CallId | None = None
        try:
            with anyio.move_on_after(wait_s):
                body = await FrameReader(stream, REFUSED_FRAME_MAX).read()
                call_id = decode_request(body).id if body else None
        except (RemoteProtocolError, RpcError, TransportError):
            pass  # refused all the same
        try:
            with anyio.move_on_after(wait_s):
                await stream.send(error_frame(call_id, error, private=True))
                # Close only once the caller has read it: a reset would overtake our answer.
                unread = RPC_FRAME_MAX
                while unread > 0 and (data := await stream.receive()):
                    unread -= len(data)
        except TransportError:
            pass
        finally:
            await stream.aclose()

    def callers(self) -> Sequence[PubKey]:
        """Return the remote keys that have a stream open."""
        return [remote for remote in self._peers if remote is not None]

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return sum(len(peer.sessions) for peer in self._peers.values())

    def hang_up(self, remote: PubKey) -> int:
        """Cut a caller's streams, calls in flight included; return how many."""
        peer = self._peers.get(remote)
        sessions = list(peer.sessions) if peer else []
        for session in sessions:
            session.cut()
        return len(sessions)

    def hang_up_quiet(self) -> int:
        """Cut streams that have been quiet for longer than allowed; return how many."""
        if self.limits.quiet_s is None:
            return 0
        since = self.clock.now() - self.limits.quiet_s
        quiet = [s for p in self._peers.values() for s in p.sessions if s.quiet_since < since]
        for session in quiet:
            session.cut()
        return len(quiet)


REFUSED_FRAME_MAX = 64 * 1024
_BUSY = float("inf")


class _Session:
    """One stream of one caller."""

    __slots__ = (
        "_caller", "_calls", "_ended", "_frames", "_half_read", "_news", "_over", "_peer",
        "_sender", "_server", "_stream", "_telling", "_unsent", "quiet_since",
    )  # fmt: skip

    def __init__(self, server: RpcServer, peer: _Peer, stream: RpcStream, caller: Caller) -> None:
        self._server = server
        self._peer = peer
        self._stream = stream
        self._caller = caller
        self._frames = FrameReader(self, server.limits.frame_max)
        self._sender = Sender(stream)
        # local programs are many users in one name: one that is deaf must not stop the others
        self._unsent = Room(server.limits.unsent_bytes_max) if caller.is_local else peer.unsent
        self._calls: set[anyio.CancelScope] = set()
        """Of calls whose task no longer reads."""
        self._news: dict[CallId, tuple[int, int, str]] = {}
        """The latest progress of each call, not yet told. Older news is worthless."""
        self._telling = False
        self._half_read = 0
        self._ended = False
        self._over: anyio.Event | None = None
        self.quiet_since = server.clock.now()
        """Since when we wait for the caller; never while a call runs."""

    async def run(self) -> None:
        """Return once the caller has ended its side and no call runs any more."""
        try:
            await self._read_on()
            if self._calls or not self._ended:
                self._over = anyio.Event()
                await self._over.wait()
        finally:
            self._peer.held -= self._half_read

    def cut(self) -> None:
        """End it: no answer is sent any more."""
        self._end()
        self._server.tasks.start(self._close)

    async def _close(self) -> None:
        with contextlib.suppress(TransportError):
            await self._stream.aclose()  # which wakes whoever reads or sends on it

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """Read for the frame reader, and count what the caller makes us hold."""
        data = await self._stream.receive(max_bytes)
        self._half_read += len(data)
        self._peer.held += len(data)
        if self._peer.held > self._server.limits.held_bytes_max:
            raise TooManyRequestsError("too many bytes of unanswered calls")
        return data

    async def _read_on(self) -> None:
        """Read and answer, until the end or until another task reads."""
        try:
            while (body := await self._frames.read()) is not None:
                if not await self._answer(body):
                    return
        except TransportError:
            pass  # the caller is gone, which is how calls end
        except (RemoteProtocolError, TooManyRequestsError) as bad:
            self._server.malformed.warning(
                "rpc stream closed peer=%s error=%r", self._peer.name, str(bad)
            )
            await self._say_goodbye(bad)
        self._end()

    async def _say_goodbye(self, bad: SkycoreError) -> None:
        """Name what was wrong: after a bad frame nothing later on the stream can be trusted."""
        with anyio.move_on_after(1.0):
            with contextlib.suppress(TransportError):
                await self._stream.send(error_frame(None, bad, private=True))

    def _end(self) -> None:
        self._ended = True
        for scope in self._calls:
            scope.cancel()
        if self._over is not None and not self._calls:
            self._over.set()

    async def _answer(self, body: bytes) -> bool:
        """Answer one call; tell whether reading is still this task's business."""
        size = 4 + len(body)
        self._half_read -= size
        self.quiet_since = _BUSY
        reads = True
        scope = anyio.CancelScope()

        def waits() -> None:
            nonlocal reads
            reads = False
            self._calls.add(scope)
            self._server.tasks.start(self._read_on)

        try:
            with scope:
                reply = await _noticing(self._reply(body), waits)
                self.quiet_since = self._server.clock.now()
                self._unsent.add(len(reply))
                try:
                    await self._sender.send(reply)
                finally:
                    self._unsent.add(-len(reply))
        finally:
            self._peer.held -= size
            self._server.calls += 1
            if not reads:
                self._calls.discard(scope)
                if self._ended and not self._calls and self._over is not None:
                    self._over.set()
            self.quiet_since = _BUSY if self._calls else self._server.clock.now()
        return reads

    async def _reply(self, body: bytes) -> bytes:
        """Run a call and return its answer as a frame. Raises nothing but cancellation."""
        private = not self._caller.is_local
        request: Request | None = None
        try:
            request = decode_request(body)
            result = await self._run(request)
            if len(result) <= RPC_FRAME_MAX - 128:
                return result_frame(request.id, result)
            bad: SkycoreError = RpcError(
                f"the answer has {len(result)} bytes; {RPC_FRAME_MAX} are allowed",
                code=ErrorCode.TOO_BIG,
                hint="ask for less at a time",
            )
        except SkycoreError as refused:
            bad = refused
        except Exception:  # a method's own bug ends this call, not the node
            log.exception("rpc method failed method=%r", request.method if request else "")
            bad = RpcError(
                "internal error", code=ErrorCode.INTERNAL, hint="the node's log says more"
            )
        if isinstance(bad, DecodeError):
            self._server.malformed.warning(
                "malformed call peer=%s reason=%r", self._peer.name, bad.reason
            )
        return error_frame(request.id if request else None, bad, private=private)

    async def _run(self, request: Request) -> bytes:
        server, peer = self._server, self._peer
        if server.lifecycle is not None and not server.lifecycle.ready:
            raise RpcError(
                "the node is still starting", code=ErrorCode.STARTING, hint="try again in a moment"
            )
        if peer.open >= server.limits.open_max:
            raise TooManyRequestsError(
                f"{peer.open} calls are open already", hint="wait for some of them to end"
            )
        peer.open += 1
        try:
            await self._take_turn()
            try:
                return await server.rpc.call_json(
                    self._caller, request.method, bytes(request.params), self._teller(request.id)
                )
            finally:
                peer.turns.give_back()
        finally:
            peer.open -= 1
            self._news.pop(request.id, None)

    async def _take_turn(self) -> None:
        """Wait until the caller runs few enough calls, and has read enough of their answers."""
        while True:
            await self._unsent.wait()
            await self._peer.turns.take()
            if not self._unsent.full:
                return
            self._peer.turns.give_back()  # a call that ended meanwhile filled the room

    def _teller(self, call_id: CallId) -> Callable[[int, int, str], None]:
        def tell(done: int, total: int, text: str) -> None:
            self._news[call_id] = (done, total, text)
            if not self._telling:
                self._telling = True
                self._server.tasks.start(self._tell)

        return tell

    async def _tell(self) -> None:
        """Send the latest progress of each call, ten times a second at most."""
        try:
            while self._news and not self._ended:
                call_id = next(iter(self._news))
                news = self._news.pop(call_id)
                await self._sender.send(progress_frame(call_id, *news))
                if not self._news:
                    await anyio.sleep(PROGRESS_PAUSE_S)
        except TransportError:
            pass  # whoever reads the stream finds out, too
        finally:
            self._telling = False

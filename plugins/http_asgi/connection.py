"""One connection: HTTP/1.1 by h11 over a byte stream, request after request.

Why not uvicorn: it needs the operating system's sockets and asyncio's transports, and a node must
run on the simulated network too; it also bounds neither a body nor the time of a slow client. This
loop is one reader, h11's state machine and three time limits, the same in both worlds. A body is
read whole before the application is called: its size, its time and all bodies together are then
bounded in one place, whatever the application does.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio
import h11
from anyio.abc import ByteStream

from http_asgi.answer import Answer, GoneError, RefusedError
from http_asgi.core.table import split_target
from http_asgi.settings import HttpServerSettings
from skycore.contracts.http import HttpProblem, Scope, plain_problem
from skycore.contracts.runtime import Clock

__all__ = ["Bodies", "Connection", "Request"]

log = logging.getLogger(__name__)

HEAD_BYTES_MAX: Final = 16 * 1024
READ_BYTES: Final = 64 * 1024
WRITE_BYTES: Final = 64 * 1024
LINGER_BYTES: Final = 256 * 1024
LINGER_S: Final = 1.0


class Bodies:
    """Room for the bodies of all requests together."""

    def __init__(self, bytes_max: int) -> None:
        self.left = bytes_max

    def take(self, count: int) -> None:
        """Take room. Raises `RefusedError` where there is none."""
        if count > self.left:
            raise RefusedError(
                HttpProblem(503, "too many requests carry bodies now", "try again in a moment")
            )
        self.left -= count


@dataclass
class Request:
    """A request's head, and the bounds of its body as its routes have them."""

    head: h11.Request
    path: str
    raw_path: bytes
    query: bytes
    body_bytes_max: int
    headers: dict[bytes, bytes] = field(default_factory=dict)
    """Of several with one name the last."""
    body: bytes = b""
    held: int = 0
    """Bytes of the room for bodies that it has."""

    @property
    def method(self) -> str:
        """GET, POST, and so on."""
        return self.head.method.decode("ascii")

    def scope(self, client: tuple[str, int], server: tuple[str, int], root: str) -> Scope:
        """Return the ASGI scope."""
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": self.head.http_version.decode("ascii"),
            "method": self.method,
            "scheme": "http",
            "path": self.path,
            "raw_path": self.raw_path,
            "query_string": self.query,
            "root_path": root,
            "headers": list(self.head.headers),
            "client": client,
            "server": server,
        }


Serve = Callable[["Connection", Request], Awaitable[None]]
"""Answer a request, through `Answer`s of the connection; read its body first."""


class Connection:
    """A client's connection. `run` ends when it does; `stop` ends it after the present request."""

    def __init__(
        self,
        stream: ByteStream,
        host: tuple[str, int],
        settings: HttpServerSettings,
        clock: Clock,
        bodies: Bodies,
        serve: Serve,
        note: Callable[[int], None] = lambda status: None,
    ) -> None:
        self.host = host
        self._stream = stream
        self._settings = settings
        self._clock = clock
        self._bodies = bodies
        self._serve = serve
        self._note = note
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._waiting: anyio.CancelScope | None = None
        self._is_head = False
        self.is_stopping = False

    async def run(self) -> None:
        """Serve requests until either side has enough. Raises nothing that a client can cause."""
        try:
            while await self._one():
                self._h11.start_next_cycle()
        except (GoneError, anyio.BrokenResourceError, anyio.ClosedResourceError) as gone:
            log.debug("client went away client=%s reason=%r", self.host[0], str(gone))
        finally:
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request."""
        return self._waiting is not None and not self.is_stopping

    def stop(self) -> None:
        """Take no further request."""
        self.is_stopping = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def _one(self) -> bool:
        """Serve one request; tell whether another may follow."""
        request = None
        try:
            request = await self._next()
            if request is None:
                return False
            await self._serve(self, request)
        except h11.RemoteProtocolError as bad:
            status = bad.error_status_hint
            problem = HttpProblem(status, f"not HTTP/1.1 as it should be: {bad}")
            await self.refuse(problem)
        except RefusedError as refused:
            await self.refuse(refused.problem)
        finally:
            self._bodies.left += request.held if request else 0
        if self._h11.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            return not self.is_stopping
        await self._linger()
        return False

    # --- reading ---------------------------------------------------------------------------------

    async def _event(self) -> object:
        while True:
            event = self._h11.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._h11.receive_data(await self._read())

    async def _read(self) -> bytes:
        try:
            return await self._stream.receive(READ_BYTES)
        except anyio.EndOfStream:
            return b""

    async def _next(self) -> Request | None:
        self._is_head = False
        if self.is_stopping:
            return None
        with anyio.move_on_after(self._settings.head_s_max) as self._waiting:
            event = await self._event()
        late, self._waiting = self._waiting.cancelled_caught, None
        if late:
            if self._h11.trailing_data[0] and not self.is_stopping:
                limit_s = self._settings.head_s_max
                raise RefusedError(
                    HttpProblem(408, f"the request's head did not come within {limit_s:g} s")
                )
            return None
        self._is_head = isinstance(event, h11.Request) and event.method == b"HEAD"
        if not isinstance(event, h11.Request):
            return None
        try:
            parts = split_target(event.target)
        except ValueError as bad:
            raise RefusedError(
                HttpProblem(400, f"the request's target is malformed: {bad}")
            ) from bad
        if _size(event) > HEAD_BYTES_MAX:
            raise RefusedError(HttpProblem(431, f"a head has {HEAD_BYTES_MAX} bytes at most"))
        return Request(event, *parts, self._settings.body_bytes_max, dict(event.headers))

    async def read_body(self, request: Request) -> None:
        """Read a request's body whole. Raises `RefusedError`: 408, 413, 503."""
        limit = request.body_bytes_max
        declared = request.headers.get(b"content-length", b"0")
        if len(declared) > 18 or int(declared) > limit:  # h11 has checked that it is a number
            raise _too_large(limit)
        chunks, size = list[bytes](), 0
        limit_s = self._settings.body_s_max
        with anyio.move_on_after(limit_s) as time:
            if self._h11.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                await self._write([self._h11.send(go_on) or b""])
            while isinstance(event := await self._event(), h11.Data):
                size += len(event.data)
                if size > limit:
                    raise _too_large(limit)
                self._bodies.take(len(event.data))
                request.held = size
                chunks.append(bytes(event.data))
        request.body = b"".join(chunks)
        if time.cancelled_caught:
            raise RefusedError(
                HttpProblem(408, f"the request's body did not come within {limit_s:g} s")
            )
        if not isinstance(event, h11.EndOfMessage):
            raise GoneError("it ended within a body")

    async def gone(self) -> None:
        """Return when the client has gone away. Requests that it sends ahead are kept."""
        while len(self._h11.trailing_data[0]) < READ_BYTES:
            try:
                data = await self._read()
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return
            self._h11.receive_data(data)
            if not data:
                return
        await anyio.sleep_forever()

    def _skip(self) -> None:
        """Pass over a body that is here already (none at all is one), so that more may follow."""
        with contextlib.suppress(h11.RemoteProtocolError):
            while self._h11.their_state is h11.SEND_BODY:
                if self._h11.next_event() is h11.NEED_DATA:
                    return

    async def _linger(self) -> None:
        """Read on a little after an answer that comes early, or a reset would overtake it."""
        all_is_read = self._h11.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)
        if all_is_read or self._h11.our_state not in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED):
            return
        with anyio.move_on_after(LINGER_S):
            await self._stream.send_eof()
            left = LINGER_BYTES
            while left > 0 and (data := await self._read()):
                left -= len(data)

    # --- writing ---------------------------------------------------------------------------------

    def answer(self) -> Answer:
        """Return what takes an application's answer to the present request."""
        return Answer(
            self._h11,
            self.write,
            self._clock,
            is_head=self._is_head,
            is_last=lambda: self.is_stopping,
        )

    async def refuse(
        self, problem: HttpProblem, body: bytes = b"", wait_s: float = 0.0, *, cors: bool = False
    ) -> None:
        """Send a refusal, if no answer has begun; nothing follows it where a body is unread."""
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            raise GoneError(problem.message)
        self._note(problem.status)
        self._skip()
        headers = [(b"content-type", b"application/json")]
        if cors:
            headers.append((b"access-control-allow-origin", b"*"))
        if wait_s:
            headers.append((b"retry-after", str(int(wait_s) + 1).encode()))
        if self._h11.their_state is not h11.DONE:
            headers.append((b"connection", b"close"))
        answer = self.answer()
        start = {"type": "http.response.start", "status": problem.status, "headers": headers}
        await answer.send(start)
        body = body or plain_problem(problem)
        await answer.send({"type": "http.response.body", "body": body})

    async def _write(self, parts: Sequence[bytes]) -> None:
        """Send bit by bit: whoever does not read holds no more than a bit of ours in buffers."""
        with anyio.move_on_after(self._settings.write_s_max) as time:
            for part in parts:
                for at in range(0, len(part), WRITE_BYTES):
                    await self._stream.send(part[at : at + WRITE_BYTES])
        if time.cancelled_caught:
            raise GoneError("it reads too slowly")

    async def write(self, parts: Sequence[bytes]) -> None:
        """Send bytes of an answer. Raises `GoneError`."""
        try:
            await self._write(parts)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as lost:
            raise GoneError(str(lost)) from lost


def _size(head: h11.Request) -> int:
    return len(head.target) + sum(len(name) + len(value) + 4 for name, value in head.headers)


def _too_large(limit: int) -> RefusedError:
    return RefusedError(
        HttpProblem(413, f"a body has {limit} bytes at most", "send less, or in several requests")
    )

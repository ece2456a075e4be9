"""An application's answer on its way: ASGI messages in, bytes of HTTP/1.1 out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from email.utils import formatdate
from functools import lru_cache
from typing import Final

import h11

from skycore.contracts.http import HttpProblem, Message
from skycore.contracts.runtime import Clock

__all__ = ["Answer", "GoneError", "RefusedError"]

BODILESS: Final = frozenset({204, 304})
JOINED_MAX: Final = 64 * 1024
"""Bytes up to which parts are sent as one; larger ones stay as they are: a list of the whole
network is many clients' answer, and each copy of it costs megabytes."""


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


class GoneError(Exception):
    """The client went away, or reads too slowly."""


class RefusedError(Exception):
    """The server answers by itself."""

    def __init__(self, problem: HttpProblem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class Answer:
    """Turns an application's ASGI messages into bytes. `status` is 0 until it begins."""

    def __init__(
        self,
        machine: h11.Connection,
        write: Callable[[Sequence[bytes]], Awaitable[None]],
        clock: Clock,
        *,
        is_head: bool,
        is_last: Callable[[], bool],
    ) -> None:
        self._h11 = machine
        self._write = write
        self._is_last = is_last
        self._clock = clock
        self._is_head = is_head
        self._start: Message | None = None
        self.status = 0
        self.bytes = 0
        self.is_over = False
        self.began: Callable[[], None] = lambda: None
        """Called when the answer begins."""

    async def send(self, message: Message) -> None:
        """Take one message. Raises `GoneError` where nobody reads, h11's error for nonsense."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        if message["type"] != "http.response.body" or self.is_over:
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        parts: list[bytes] = []
        if self._start is not None:
            parts.append(self._head(self._start, None if more else len(body)))
            self._start = None
        if body and not self._is_bodiless:
            parts += self._h11.send_with_data_passthrough(h11.Data(data=body)) or ()
        if not more:
            parts += self._h11.send_with_data_passthrough(h11.EndOfMessage()) or ()
            self.is_over = True
        size = sum(map(len, parts))
        self.bytes += size
        if size:
            await self._write([b"".join(parts)] if size <= JOINED_MAX else parts)

    @property
    def _is_bodiless(self) -> bool:
        return self._is_head or self.status in BODILESS

    def _head(self, start: Message, size: int | None) -> bytes:
        status = start["status"]
        headers = [(bytes(name).lower(), bytes(value)) for name, value in start.get("headers", ())]
        names = {name for name, _ in headers}
        if size is not None and b"content-length" not in names and status not in BODILESS:
            headers.append((b"content-length", str(size).encode()))
        if b"date" not in names:
            headers.append((b"date", _date(self._clock.wall_s())))
        if self._is_last() and b"connection" not in names:
            headers.append((b"connection", b"close"))
        data = self._h11.send(h11.Response(status_code=status, headers=headers)) or b""
        self.status = status
        self.began()
        return data

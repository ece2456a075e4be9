"""What the server adds to an application's whole answers: ETag and 304, and gzip.

Why after the application: it says what is true now, and need not know what a client holds already.
One that knows its version without making the list sets its own ETag; it is kept. Answers in several
pieces pass as they are.
"""

from __future__ import annotations

import zlib
from functools import partial
from typing import Final

from http_asgi.core.tags import is_known, tag_of, takes_gzip, weak
from skycore.contracts.http import AsgiApp, Message, Receive, RouteOptions, Scope, Send
from skycore.contracts.runtime import Workers

__all__ = ["polished"]

Headers = list[tuple[bytes, bytes]]
SMALL: Final = 512
"""Bytes below which packing gains nothing."""
THREAD_FROM: Final = 64 * 1024
"""Bytes from which packing is done in a thread: about a millisecond."""
LEVEL: Final = 5
KEPT: Final = frozenset(
    {b"cache-control", b"content-location", b"date", b"etag", b"expires", b"vary", b"set-cookie"}
)
"""What a 304 carries (RFC 9110, section 15.4.5); CORS headers are added further out."""


def polished(app: AsgiApp, options: RouteOptions, workers: Workers) -> AsgiApp:
    """Return the application with tags and packing as its routes want them."""
    if not options.etags and not options.compress:
        return app

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, _Polish(scope, send, options, workers).take)

    return outer


class _Polish:
    def __init__(self, scope: Scope, send: Send, options: RouteOptions, workers: Workers) -> None:
        self._send = send
        self._options = options
        self._workers = workers
        self._start: Message | None = None
        self._is_read = scope["method"] in ("GET", "HEAD")
        asked = dict(scope["headers"])
        self._held = asked.get(b"if-none-match", b"")
        self._takes_gzip = options.compress and takes_gzip(asked.get(b"accept-encoding", b""))

    async def take(self, message: Message) -> None:
        """Take one message of the application."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        start, self._start = self._start, None
        if start is not None:
            if not message.get("more_body", False):
                start, message = await self._whole(start, message)
            await self._send(start)
        await self._send(message)

    async def _whole(self, start: Message, message: Message) -> tuple[Message, Message]:
        headers: Headers = [(bytes(k).lower(), bytes(v)) for k, v in start.get("headers", ())]
        found = dict(headers)
        body = message.get("body", b"")
        tag = found.get(b"etag", b"")
        if self._options.etags and self._is_read and start["status"] == 200:
            if not tag:
                tag = tag_of(body)
                headers.append((b"etag", tag))
            if self._held and is_known(self._held, tag):
                kept = [h for h in headers if h[0] in KEPT]
                return {**start, "status": 304, "headers": kept}, {**message, "body": b""}
        if self._options.compress and len(body) >= SMALL and b"content-encoding" not in found:
            headers.append((b"vary", b"accept-encoding"))
            if self._takes_gzip:
                body = await self._pack(body)
                changed = (b"content-length", b"etag")
                headers = [h for h in headers if h[0] not in changed]
                headers.append((b"content-encoding", b"gzip"))
                headers += [(b"etag", weak(tag))] if tag else []
        return {**start, "headers": headers}, {**message, "body": body}

    async def _pack(self, body: bytes) -> bytes:
        if len(body) < THREAD_FROM:
            return _gzip(body)
        return await self._workers.run(partial(_gzip, body))


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()

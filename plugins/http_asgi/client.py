"""The HTTP client: httpcore's pool over the node's Network, with bounds and errors by name.

Why httpcore and not httpx above it: httpx takes no network of ours, and adds cookies, proxies from
the environment and a second of imports that nothing here needs; the engine is the same.
"""

from __future__ import annotations

import ssl
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urljoin, urlsplit

import anyio
import httpcore

from http_asgi.backend import SeamBackend
from http_asgi.settings import HttpClientSettings
from skycore.contracts.http import HttpClient, HttpResponse
from skycore.contracts.runtime import Clock, Network
from skycore.errors import (
    ConfigError,
    HttpError,
    HttpReplyError,
    HttpTimeoutError,
    HttpUnreachableError,
    LocalProtocolError,
)

__all__ = ["open_http_client"]

REDIRECTS_MAX: Final = 3
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
READERS: Final = frozenset({"GET", "HEAD"})
ABROAD: Final = frozenset({"accept", "user-agent", "if-none-match"})
"""Headers that are sent on to another server that a redirect names."""
DEFAULTS: Final = {
    "accept": "application/json",
    "accept-encoding": "gzip",
    "user-agent": "skynode",
}
Headers = Mapping[str, str]


class _Client:
    """`contracts.http.HttpClient`."""

    def __init__(self, settings: HttpClientSettings, network: Network, clock: Clock) -> None:
        self._settings = settings
        self._backend = SeamBackend(network, clock, settings.idle_s_max)
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.aclose()

    async def get(
        self,
        url: str,
        *,
        headers: Headers | None = None,
        timeout_s: float | None = None,
        body_bytes_max: int | None = None,
    ) -> HttpResponse:
        """Read."""
        return await self.request(
            "GET", url, headers=headers, timeout_s=timeout_s, body_bytes_max=body_bytes_max
        )

    async def post(
        self,
        url: str,
        body: bytes = b"",
        *,
        headers: Headers | None = None,
        timeout_s: float | None = None,
        body_bytes_max: int | None = None,
    ) -> HttpResponse:
        """Hand in."""
        return await self.request(
            "POST",
            url,
            body=body,
            headers=headers,
            timeout_s=timeout_s,
            body_bytes_max=body_bytes_max,
        )

    async def delete(
        self,
        url: str,
        body: bytes = b"",
        *,
        headers: Headers | None = None,
        timeout_s: float | None = None,
        body_bytes_max: int | None = None,
    ) -> HttpResponse:
        """Take away."""
        return await self.request(
            "DELETE",
            url,
            body=body,
            headers=headers,
            timeout_s=timeout_s,
            body_bytes_max=body_bytes_max,
        )

    async def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes = b"",
        headers: Headers | None = None,
        timeout_s: float | None = None,
        body_bytes_max: int | None = None,
    ) -> HttpResponse:
        """Send a request. Raises `HttpError`s by name."""
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        limit_s = self._settings.timeout_s if timeout_s is None else timeout_s
        bytes_max = self._settings.body_bytes_max if body_bytes_max is None else body_bytes_max
        response: HttpResponse | None = None
        with anyio.move_on_after(limit_s):
            response = await self._follow(method.upper(), url, body, sent, bytes_max)
        if response is None:
            raise HttpTimeoutError(
                f"{_shown(url)} does not answer within {limit_s:g} s",
                hint="is it up, and is the way to it open?",
            )
        return response

    async def _follow(
        self, method: str, url: str, body: bytes, headers: dict[str, str], bytes_max: int
    ) -> HttpResponse:
        """Send, and go where a redirect leads, reading only; never from https back to http."""
        for _ in range(REDIRECTS_MAX + 1):
            response = await self._once(method, url, body, headers, bytes_max)
            where = response.headers.get("location", "")
            if method not in READERS or response.status not in REDIRECTS or not where:
                return response
            onward = urljoin(url, where)
            if url.lower().startswith("https:") and not onward.lower().startswith("https:"):
                raise HttpReplyError(f"{_shown(url)} leads to a place without TLS: {where[:200]!r}")
            if urlsplit(onward)[:2] != urlsplit(url)[:2]:
                headers = {name: value for name, value in headers.items() if name in ABROAD}
            url = onward
        raise HttpReplyError(f"{_shown(url)} leads on and on")

    async def _once(
        self, method: str, url: str, body: bytes, headers: dict[str, str], bytes_max: int
    ) -> HttpResponse:
        """Send once; again where a kept connection was closed under a request that reads."""
        scheme, full = self._prepared(url, body, headers)
        pool = self._pool(scheme)
        for is_last in (method not in READERS, True):
            try:
                content = None if method in READERS else body
                async with pool.stream(
                    method, url, headers=[*full.items()], content=content
                ) as answer:
                    return await _read(answer, url, bytes_max)
            except (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError) as bad:
                if is_last:
                    raise HttpReplyError(f"{_shown(url)} broke off: {bad}") from bad
            except httpcore.TimeoutException as bad:
                raise HttpTimeoutError(f"{_shown(url)}: {bad}") from bad
            except httpcore.NetworkError as bad:
                raise HttpUnreachableError(
                    f"{_shown(url)} cannot be reached: {bad}", hint="is the address right?"
                ) from bad
            except httpcore.LocalProtocolError as bad:
                raise LocalProtocolError(f"{method} {_shown(url)}: {bad}") from bad
        raise AssertionError

    def _prepared(self, url: str, body: bytes, headers: Headers) -> tuple[str, dict[str, str]]:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii():
            raise HttpError(f"{_shown(url)} is no address", hint="write http://host:port/path")
        if parts.username is not None:
            raise HttpError("an address must not hold a name and a password")
        sent = {"host": parts.netloc, **DEFAULTS}
        if body:
            sent["content-type"] = "application/json"
        return parts.scheme, sent | dict(headers)

    def _pool(self, scheme: str) -> httpcore.AsyncConnectionPool:
        """Return the pool of a scheme. Certificates are read when the first https URL is asked."""
        pool = self._pools.get(scheme)
        if pool is None:
            pool = self._pools[scheme] = httpcore.AsyncConnectionPool(
                ssl_context=self._tls() if scheme == "https" else None,
                max_connections=self._settings.connections_max,
                network_backend=self._backend,
            )
        return pool

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._settings.ca_file or None)
        except OSError as bad:
            raise ConfigError(
                f"http_client.ca_file: {bad}", hint="a file of certificates in PEM"
            ) from bad


async def _read(answer: httpcore.Response, url: str, bytes_max: int) -> HttpResponse:
    """Read an answer whole. Raises `HttpReplyError` for one that is too large, packed or not."""
    headers = {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers
    }
    coding = headers.pop("content-encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip", "x-gzip"):
        raise HttpReplyError(f"{_shown(url)} answers in {coding[:40]!r}, which nobody asked for")
    unpacker = None if coding == "identity" else zlib.decompressobj(31)
    chunks, size = list[bytes](), 0
    async for chunk in answer.aiter_stream():
        try:
            data = chunk if unpacker is None else unpacker.decompress(chunk, bytes_max - size + 1)
        except zlib.error as bad:
            raise HttpReplyError(f"{_shown(url)} answers in broken gzip: {bad}") from bad
        size += len(data)
        if size > bytes_max:
            raise HttpReplyError(
                f"{_shown(url)} answers with more than {bytes_max} bytes",
                hint="raise http_client.body_bytes_max, if that is meant",
            )
        chunks.append(data)
    if unpacker is not None and not unpacker.eof and chunks:
        raise HttpReplyError(f"{_shown(url)} answers in gzip that is cut off")
    return HttpResponse(answer.status, headers, b"".join(chunks), url)


def _shown(url: str) -> str:
    """Return a URL as it may be logged: no query, no password, not endless."""
    return url.partition("?")[0].rpartition("@")[2][:200]


@asynccontextmanager
async def open_http_client(
    settings: HttpClientSettings, network: Network, clock: Clock
) -> AsyncIterator[HttpClient]:
    """Offer the client; it dials when it is asked."""
    client = _Client(settings, network, clock)
    try:
        yield client
    finally:
        with anyio.CancelScope(shield=True):
            await client.aclose()

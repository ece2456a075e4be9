"""httpcore's pools, one for http and one for https: a request is sent, its answer read whole.

Why apart from the client: an idle node without any URL to ask loads none of this, a megabyte.
"""

from __future__ import annotations

import ssl
import zlib
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpcore

from http_asgi.backend import SeamBackend
from http_asgi.settings import HttpClientSettings
from http_asgi.urls import READERS, shown
from skycore.contracts.http import HttpResponse
from skycore.contracts.runtime import Clock, Network
from skycore.errors import (
    ConfigError,
    HttpReplyError,
    HttpTimeoutError,
    HttpUnreachableError,
    LocalProtocolError,
)

__all__ = ["Pools"]


class Pools:
    """Connections that are kept, by scheme."""

    def __init__(self, settings: HttpClientSettings, network: Network, clock: Clock) -> None:
        self._settings = settings
        self._backend = SeamBackend(network, clock, settings.idle_s_max)
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.aclose()

    async def once(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str], bytes_max: int
    ) -> HttpResponse:
        """Send once; again where a kept connection was closed under a request that reads.

        Raises `HttpError`s by name.
        """
        pool = self._pool(urlsplit(url).scheme)
        for is_last in (method not in READERS, True):
            try:
                content = None if method in READERS else body
                async with pool.stream(
                    method, url, headers=[*headers.items()], content=content
                ) as answer:
                    return await _read(answer, url, bytes_max)
            except (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError) as bad:
                if is_last:
                    raise HttpReplyError(f"{shown(url)} broke off: {bad}") from bad
            except httpcore.TimeoutException as bad:
                raise HttpTimeoutError(f"{shown(url)}: {bad}") from bad
            except httpcore.NetworkError as bad:
                raise HttpUnreachableError(
                    f"{shown(url)} cannot be reached: {bad}", hint="is the address right?"
                ) from bad
            except httpcore.LocalProtocolError as bad:
                raise LocalProtocolError(f"{method} {shown(url)}: {bad}") from bad
        raise AssertionError

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
        raise HttpReplyError(f"{shown(url)} answers in {coding[:40]!r}, which nobody asked for")
    unpacker = None if coding == "identity" else zlib.decompressobj(31)
    chunks, size = list[bytes](), 0
    async for chunk in answer.aiter_stream():
        try:
            data = chunk if unpacker is None else unpacker.decompress(chunk, bytes_max - size + 1)
        except zlib.error as bad:
            raise HttpReplyError(f"{shown(url)} answers in broken gzip: {bad}") from bad
        size += len(data)
        if size > bytes_max:
            raise HttpReplyError(
                f"{shown(url)} answers with more than {bytes_max} bytes",
                hint="raise http_client.body_bytes_max, if that is meant",
            )
        chunks.append(data)
    if unpacker is not None and not unpacker.eof and chunks:
        raise HttpReplyError(f"{shown(url)} answers in gzip that is cut off")
    return HttpResponse(answer.status, headers, b"".join(chunks), url)

"""The HTTP client: httpcore's pool over the node's Network, with bounds and errors by name.

Why httpcore and not httpx above it: httpx takes no network of ours, and adds cookies, proxies from
the environment and a second of imports that nothing here needs; the engine is the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

import anyio

from http_asgi.settings import HttpClientSettings
from http_asgi.urls import READERS, shown
from skycore.contracts.http import HttpClient, HttpResponse
from skycore.contracts.runtime import Clock, Network
from skycore.errors import (
    HttpError,
    HttpReplyError,
    HttpTimeoutError,
)

if TYPE_CHECKING:
    from http_asgi.pools import Pools

__all__ = ["open_http_client"]

REDIRECTS_MAX: Final = 3
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
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
        self._network = network
        self._clock = clock
        self._kept: Pools | None = None

    @property
    def _pools(self) -> Pools:
        """The connections. Loaded when the first URL is asked, which many nodes never do."""
        if self._kept is None:
            from http_asgi.pools import Pools

            self._kept = Pools(self._settings, self._network, self._clock)
        return self._kept

    async def aclose(self) -> None:
        """Close all connections."""
        if self._kept is not None:
            await self._kept.aclose()

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
                f"{shown(url)} does not answer within {limit_s:g} s",
                hint="is it up, and is the way to it open?",
            )
        return response

    async def _follow(
        self, method: str, url: str, body: bytes, headers: dict[str, str], bytes_max: int
    ) -> HttpResponse:
        """Send, and go where a redirect leads, reading only; never from https back to http."""
        for _ in range(REDIRECTS_MAX + 1):
            sent = self._prepared(url, body, headers)
            response = await self._pools.once(method, url, body, sent, bytes_max)
            where = response.headers.get("location", "")
            if method not in READERS or response.status not in REDIRECTS or not where:
                return response
            onward = urljoin(url, where)
            if url.lower().startswith("https:") and not onward.lower().startswith("https:"):
                raise HttpReplyError(f"{shown(url)} leads to a place without TLS: {where[:200]!r}")
            if urlsplit(onward)[:2] != urlsplit(url)[:2]:
                headers = {name: value for name, value in headers.items() if name in ABROAD}
            url = onward
        raise HttpReplyError(f"{shown(url)} leads on and on")

    def _prepared(self, url: str, body: bytes, headers: Headers) -> dict[str, str]:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii():
            raise HttpError(f"{shown(url)} is no address", hint="write http://host:port/path")
        if parts.username is not None:
            raise HttpError("an address must not hold a name and a password")
        sent = {"host": parts.netloc, **DEFAULTS}
        if body:
            sent["content-type"] = "application/json"
        return sent | dict(headers)


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

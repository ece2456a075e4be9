"""Asking a discovery server in one's own name: signed requests, each with a nonce of its own.

Why one request at a time: nonces are used in order, so a second one on its way would be refused
whenever it overtook the first. Why the nonce is forgotten after anything but a success: whether
such a request used it up is not known, and asking again is cheap. What is signed:
`skycore.model.requests`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Final
from urllib.parse import urlsplit

import anyio
import msgspec
from msgspec import Meta

from skycore.contracts.http import HttpClient, HttpResponse
from skycore.contracts.runtime import Identity
from skycore.errors import ConfigError, HttpError, RequestRefusedError
from skycore.model.requests import HEADER_KEY, HEADER_NONCE, HEADER_SIGNATURE, NONCE_MAX, signed

__all__ = ["MISMATCH", "SignedClient", "accepted", "said"]

MISMATCH: Final = "SW-Nonce does not match"
"""What a server says to a nonce that is not the next one. Source: Skywire's httpauth."""
_NONCE_BYTES_MAX: Final = 4_096
_SAID_MAX: Final = 300


class _Nonce(msgspec.Struct, frozen=True):
    next_nonce: Annotated[int, Meta(ge=0, le=NONCE_MAX)]


class SignedClient:
    """One discovery server, as this node asks it. Safe to use from several tasks.

    `url` is the server's base with its prefix: "https://tpd.example.net/tpd". Raises `ConfigError`
    for what is none. Paths are given as they are sent, quoted, with their query.
    """

    def __init__(self, http: HttpClient, identity: Identity, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise ConfigError(
                f"{url[:200]!r} is no address of a discovery server",
                hint='write it like "https://tpd.example.net/tpd"',
            )
        self.url = url.rstrip("/")
        self.counters: Counter[str] = Counter()
        """What happened since the start: `signed` and `unsigned` requests, `nonces` asked for,
        `mismatches` of nonces, and `failed` for requests without an answer."""
        self._http, self._identity = http, identity
        self._host, self._base = parts.netloc, parts.path.rstrip("/")
        self._nonce: int | None = None
        self._turn = anyio.Lock()

    async def get(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        body_bytes_max: int | None = None,
    ) -> HttpResponse:
        """Read what anybody may read. Raises `HttpError` where there is no answer."""
        self.counters["unsigned"] += 1
        try:
            return await self._http.get(
                self.url + path,
                headers=headers,
                timeout_s=timeout_s,
                body_bytes_max=body_bytes_max,
            )
        except HttpError:
            self.counters["failed"] += 1
            raise

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        timeout_s: float | None = None,
        body_bytes_max: int | None = None,
    ) -> HttpResponse:
        """Ask, signed; return what the server says, whatever its status (`accepted` refuses).

        A nonce that does not match is asked for anew and the request sent once more: the server
        has done nothing of it. Raises `HttpError` where there is no answer (then nobody knows what
        the server did), `RequestRefusedError` where even a new nonce does not match.
        """
        async with self._turn:
            for is_last in (False, True):
                response = await self._send(method, path, body, timeout_s, body_bytes_max)
                if response.status != 401 or MISMATCH not in said(response):
                    return response
                self.counters["mismatches"] += 1
                if is_last:
                    break
        raise RequestRefusedError(
            f"{self.url} refuses a nonce that it has just given",
            code=401,
            hint="does another program use the same key at the same time?",
        )

    async def _send(
        self,
        method: str,
        path: str,
        body: bytes,
        timeout_s: float | None,
        body_bytes_max: int | None,
    ) -> HttpResponse:
        """Send once. The nonce is kept only over a success: else the next request asks for one."""
        nonce = self._nonce if self._nonce is not None else await self._next_nonce(timeout_s)
        self._nonce = None
        target = (self._base + path).encode()
        network = self._identity.network
        signature = self._identity.sign(signed(network.id, method, self._host, target, nonce, body))
        self.counters["signed"] += 1
        try:
            response = await self._http.request(
                method,
                self.url + path,
                body=body,
                headers={
                    HEADER_KEY: self._identity.public.hex(),
                    HEADER_NONCE: str(nonce),
                    HEADER_SIGNATURE: signature.hex(),
                },
                timeout_s=timeout_s,
                body_bytes_max=body_bytes_max,
            )
        except HttpError:
            self.counters["failed"] += 1
            raise
        is_done = 200 <= response.status < 300 or (method, response.status) == ("GET", 404)
        if is_done:  # who asked in order for what is not there has used it up, too
            self._nonce = nonce + 1
        return response

    async def _next_nonce(self, timeout_s: float | None) -> int:
        self.counters["nonces"] += 1
        path = f"/security/nonces/{self._identity.public.hex()}"
        try:
            response = await self._http.get(
                self.url + path, timeout_s=timeout_s, body_bytes_max=_NONCE_BYTES_MAX
            )
        except HttpError:
            self.counters["failed"] += 1
            raise
        told: _Nonce = accepted(response).json(_Nonce)
        return told.next_nonce


def accepted(response: HttpResponse, *statuses: int) -> HttpResponse:
    """Return an answer with one of the statuses (none given: any 2xx).

    Raises `RequestRefusedError` for another one, in the server's words, with the status as code.
    """
    if response.status in statuses or (not statuses and 200 <= response.status < 300):
        return response
    hint = {
        401: "is this node's clock and network name right, and is it the server's address?",
        404: "is the address right, its prefix included?",
        429: "the server is asked too often",
    }.get(response.status, "")
    raise RequestRefusedError(
        f"{response.url} answered {response.status}: {said(response)}",
        code=response.status,
        hint=hint,
    )


def said(response: HttpResponse) -> str:
    """Return the words of a refusal, of whichever of the services' shapes; not endless."""
    try:
        told = msgspec.json.decode(response.body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return response.body[:_SAID_MAX].decode(errors="replace").strip()
    for name in ("error", "message"):
        if isinstance(told, dict) and name in told:
            told = told[name]
    return str(told)[:_SAID_MAX]

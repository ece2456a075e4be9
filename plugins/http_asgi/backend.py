"""httpcore's connections over the node's own Network: the same client on real and virtual networks.

httpcore (the engine below httpx) asks a backend for byte streams; this is ours. Time limits are
anyio's, so they are virtual in simulation, and how long a connection may idle is judged by Clock.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import httpcore
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from skycore.contracts.runtime import Clock, Network
from skycore.contracts.transport import LineAttribute
from skycore.errors import DialError

__all__ = ["SeamBackend"]


@contextmanager
def _within(timeout: float | None, late: type[Exception], lost: type[Exception]) -> Iterator[None]:
    """Bound a step, and name what went wrong as httpcore does."""
    try:
        with anyio.fail_after(timeout):
            yield
    except TimeoutError as error:
        raise late("no answer in time") from error
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError, DialError) as error:
        raise lost(str(error) or type(error).__name__) from error


class _SeamStream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: ByteStream, clock: Clock, idle_s_max: float) -> None:
        self._stream = stream
        self._clock = clock
        self._idle_s_max = idle_s_max
        self._used = clock.now()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _within(timeout, httpcore.ReadTimeout, httpcore.ReadError):
            try:
                return await self._stream.receive(max_bytes)
            except anyio.EndOfStream:
                return b""
            finally:
                self._used = self._clock.now()
        raise AssertionError  # `_within` raises or returns

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if buffer:
            with _within(timeout, httpcore.WriteTimeout, httpcore.WriteError):
                await self._stream.send(buffer)

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.aclose_forcefully(self._stream)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        with _within(timeout, httpcore.ConnectTimeout, httpcore.ConnectError):
            try:
                wrapped = await TLSStream.wrap(
                    self._stream,
                    server_side=False,
                    hostname=server_hostname,
                    ssl_context=ssl_context,
                    standard_compatible=False,
                )
            except BaseException:
                await self.aclose()
                raise
        return _SeamStream(wrapped, self._clock, self._idle_s_max)

    def get_extra_info(self, info: str) -> Any:
        """Return whether an idle connection is to be given up, where httpcore asks for that.

        It asks "is there something to read", which of an idle one means that the server closed it.
        """
        if info == "is_readable":
            is_old = self._clock.now() - self._used > self._idle_s_max
            return is_old or self._stream.extra(LineAttribute.ended, False)
        return None


class SeamBackend(httpcore.AsyncNetworkBackend):
    """Dials with the node's Network."""

    def __init__(self, network: Network, clock: Clock, idle_s_max: float) -> None:
        self._network = network
        self._clock = clock
        self._idle_s_max = idle_s_max

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Open a connection."""
        with _within(timeout, httpcore.ConnectTimeout, httpcore.ConnectError):
            stream = await self._network.connect_tcp(host, port)
        return _SeamStream(stream, self._clock, self._idle_s_max)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)

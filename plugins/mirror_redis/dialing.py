"""Connections to Redis, and the look at what is on the other end before one is used.

Why our own few lines and not redis-py's pool and client: a connection that was interrupted at any
point is closed here and never used again, so nobody ever reads another's reply (CVE-2023-28858 and
-28859 were such); and a large command is packed and sent in slices, so the event loop goes on.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import redis.asyncio.connection as library
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as BrokenError
from redis.exceptions import RedisError

from mirror_redis.failures import Failure, named
from mirror_redis.places import Place

__all__ = ["Command", "Dialer", "Line", "Refused", "read_secret", "slices"]

log = logging.getLogger(__name__)
SLICE_BYTES = 256 * 1024
"""What is packed and written between two breaths of the event loop."""
VERSION_MIN = (6, 2)

Command = Sequence[bytes]


class Refused(Exception):  # noqa: N818
    """What was reached cannot be used, for a reason of ours."""

    def __init__(self, failure: Failure, detail: str) -> None:
        super().__init__(detail)
        self.failure = failure


@contextmanager
def _only_known_errors() -> Iterator[None]:
    """Let nothing out but what callers look for: whatever else the library raises, a line is gone.

    uvloop, for one, raises RuntimeError where a connection was reset while nobody used it.
    """
    try:
        yield
    except (RedisError, OSError, Refused):
        raise
    except RuntimeError as bad:
        if "closed" not in str(bad):
            log.exception("a connection to redis ended in an error of the library")
        raise BrokenError(str(bad)) from bad
    except Exception as bad:
        log.exception("a connection to redis ended in an error of the library")
        raise BrokenError(f"{type(bad).__name__}: {bad}") from bad


def slices(commands: Iterable[Command]) -> Iterator[bytes]:
    """Yield commands in Redis' protocol (RESP), some SLICE_BYTES at a time."""
    parts: list[bytes] = []
    size = 0
    for command in commands:
        parts.append(b"*%d\r\n" % len(command))
        for word in command:
            parts += (b"$%d\r\n" % len(word), word, b"\r\n")
            size += len(word) + 16
            if size >= SLICE_BYTES:
                yield b"".join(parts)
                parts.clear()
                size = 0
    if parts:
        yield b"".join(parts)


class Line:
    """One connection, with what INFO said when it was opened."""

    def __init__(self, connection: Any, info: dict[str, str], timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self.info = info
        self.uses = 0

    @property
    def replid(self) -> bytes:
        """Which run of writes this server is in: another one after each restart or fail-over."""
        return self.info.get("master_replid", "").encode()

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands and return their replies; an error reply is an exception in the list.

        Raises redis-py's connection errors, OSError and TimeoutError: then close the line.
        """
        self.uses += 1
        for part in slices(commands):
            with _only_known_errors(), anyio.fail_after(self._timeout_s):
                await self._connection.send_packed_command([part], check_health=False)
            if len(part) >= SLICE_BYTES:
                await anyio.lowlevel.checkpoint()  # writing waits for nobody while there is room
        replies = []
        for _ in commands:
            with anyio.fail_after(self._timeout_s):
                replies.append(await self.read())
        return replies

    async def read(self) -> Any:
        """Return the next reply, however long it takes; an error reply as a value."""
        try:
            with _only_known_errors():
                return await self._connection.read_response()
        except RedisError as reply:
            if not self._connection.is_connected:  # no reply: the line is gone
                raise
            return reply

    async def close(self) -> None:
        """Hang up. Never waits for the other side."""
        with anyio.CancelScope(shield=True), suppress(RedisError, OSError), _only_known_errors():
            await self._connection.disconnect(nowait=True)


class Dialer:
    """Opens connections to one place, whoever is its primary at the moment."""

    def __init__(
        self,
        place: Place,
        *,
        password: str,
        sentinel_password: str,
        tls_ca_file: str,
        timeout_s: float,
        evicting_allowed: bool,
    ) -> None:
        self.place = place
        self._timeout_s = timeout_s
        self._evicting_allowed = evicting_allowed
        self._tls_ca_file = tls_ca_file
        self._login = {"username": place.username or None, "password": password or None}
        self._common: dict[str, Any] = {
            "protocol": 2,
            "socket_timeout": None,  # ours are around the whole exchange
            "socket_connect_timeout": timeout_s,
            "retry": Retry(NoBackoff(), 0),
            "driver_info": None,
        }
        self._sentinel_password = sentinel_password

    async def dial(self) -> Line:
        """Connect, and look at what is there. Raises `Refused`, or the library's errors."""
        connection = await self._connection()
        line = Line(connection, {}, self._timeout_s)
        try:
            with _only_known_errors(), anyio.fail_after(self._timeout_s):
                await connection.connect()
            [info] = await line.exchange([(b"INFO",)])
            if isinstance(info, Exception):
                raise info
            line.info = _info(info)
            self.check(line.info)
        except BaseException:
            await line.close()
            raise
        return line

    async def _connection(self) -> Any:
        place = self.place
        own = {**self._common, **self._login, "db": place.db}
        if place.path:
            return library.UnixDomainSocketConnection(path=place.path, **own)
        host, port = await self._primary() if place.service else place.hosts[0]
        if not place.is_tls:
            return library.Connection(host=host, port=port, **own)
        return library.SSLConnection(host=host, port=port, **self._tls(), **own)

    def _tls(self) -> dict[str, Any]:
        own = {"ssl_ca_certs": self._tls_ca_file} if self._tls_ca_file else {}
        return {**own, "ssl_min_version": ssl.TLSVersion.TLSv1_2}

    async def _primary(self) -> tuple[str, int]:
        """Ask the Sentinels where the primary is."""
        kwargs = {**self._common, "socket_timeout": self._timeout_s}
        if self._sentinel_password:
            kwargs["password"] = self._sentinel_password
        if self.place.is_tls:
            kwargs |= {"ssl": True, **self._tls()}
        sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
            self.place.hosts, sentinel_kwargs=kwargs
        )
        try:
            limit_s = self._timeout_s * len(self.place.hosts)
            with _only_known_errors(), anyio.fail_after(limit_s):
                host, port = await sentinel.discover_master(self.place.service)
                return str(host), int(port)
        finally:
            with anyio.CancelScope(shield=True), suppress(RedisError, OSError):
                for client in sentinel.sentinels:
                    with _only_known_errors():
                        await client.aclose()

    def check(self, info: dict[str, str]) -> None:
        """Refuse what records must not be given to. Raises `Refused`."""
        if info.get("cluster_enabled") == "1" or info.get("redis_mode") == "cluster":
            raise Refused(named["unsupported"], "Redis Cluster: a batch is one transaction")
        version = info.get("redis_version", "0")
        if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < VERSION_MIN:
            raise Refused(named["unsupported"], f"version {version}")
        if info.get("loading") == "1":
            raise Refused(named["loading"], "")
        if info.get("role") != "master":
            raise Refused(named["read_only"], f"role {info.get('role')}")
        policy = info.get("maxmemory_policy", "noeviction")
        if policy.startswith("allkeys") and not self._evicting_allowed:
            raise Refused(named["unsafe"], f"maxmemory-policy {policy}")


def _info(text: bytes) -> dict[str, str]:
    lines = text.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def read_secret(file: str) -> str:
    """Return the first line of a file, or nothing where none is named. Raises OSError."""
    if not file:
        return ""
    with Path(file).open(encoding="utf-8") as lines:
        return lines.readline().strip()

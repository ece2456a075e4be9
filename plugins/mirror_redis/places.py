"""Where Redis is: URLs, taken apart.

Why not redis-py's own parsing: it knows no Sentinel URL, takes any option from the URL's query, and
its errors may quote the password. The Sentinel form is the one of the redis-sentinel-url package.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from skycore.errors import ConfigError

__all__ = ["Place", "parse_place", "without_password"]

REDIS_PORT = 6_379
SENTINEL_PORT = 26_379
_HINT = "redis://, rediss://, unix:// or redis+sentinel://host:port,host:port/service/db"
_CLUSTER = "Redis Cluster is not supported: a batch is one transaction over all of its keys"
_SCHEMES = {
    "redis": (False, False),
    "rediss": (True, False),
    "redis+sentinel": (False, True),
    "rediss+sentinel": (True, True),
}
_HOST = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\[\]:]+)(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True)
class Place:
    """One Redis, or the Sentinels that know where its primary is."""

    hosts: Sequence[tuple[str, int]] = ()
    """The server, or the Sentinels."""
    path: str = ""
    """Of a Unix socket."""
    service: str = ""
    """The name that the Sentinels know it by."""
    db: int = 0
    is_tls: bool = False
    username: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        """Return it for people: never with the password."""
        if self.path:
            return f"{self.path} db {self.db}"
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{hosts}/{self.service}/{self.db}" if self.service else f"{hosts}/{self.db}"


def parse_place(url: str) -> Place:
    """Take a URL apart. Raises `ConfigError`, without quoting the URL: it may hold a password."""
    scheme, found, rest = url.partition("://")
    scheme = scheme.lower()
    if found and "cluster" in scheme:
        raise ConfigError(_CLUSTER, hint="use one Redis, or one with Sentinels")
    if scheme == "unix" and found:
        return _unix(rest)
    if not found or scheme not in _SCHEMES:
        raise ConfigError("this is no Redis URL", hint=_HINT)
    is_tls, is_sentinel = _SCHEMES[scheme]
    address, _, tail = rest.partition("/")
    login, _, hosts = address.rpartition("@")
    username, password = _login(login)
    parts = [unquote(part) for part in tail.split("/")] if tail else []
    service = parts.pop(0) if is_sentinel and parts else ""
    if is_sentinel and not service:
        raise ConfigError("a Sentinel URL must name the service", hint=_HINT)
    if len(parts) > 1 or "?" in tail:
        raise ConfigError("a Redis URL ends with the number of the database", hint=_HINT)
    port = SENTINEL_PORT if is_sentinel else REDIS_PORT
    addresses = tuple(_host(text, port) for text in hosts.split(","))
    if len(addresses) > 1 and not is_sentinel:
        raise ConfigError("several hosts are for Sentinel URLs", hint=_HINT)
    return Place(addresses, "", service, _db(parts[0] if parts else ""), is_tls, username, password)


def _unix(rest: str) -> Place:
    login, _, path = rest.rpartition("@")
    split = urlsplit(path)
    options = parse_qs(split.query)
    if not split.path.startswith("/") or set(options) - {"db"}:
        raise ConfigError(
            "a Unix socket is unix:///path or unix://user:password@/path", hint="?db=N may follow"
        )
    username, password = _login(login)
    db = _db(options.get("db", [""])[0])
    return Place((), unquote(split.path), "", db, False, username, password)


def _login(text: str) -> tuple[str, str]:
    username, _, password = text.partition(":")
    return unquote(username), unquote(password)


def _host(text: str, port: int) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if found is None:
        raise ConfigError("this is no host[:port]", hint=_HINT)
    number = int(found["port"] or port)
    if not 0 < number < 65_536:
        raise ConfigError(f"there is no port {number}", hint=_HINT)
    return found["host"].strip("[]"), number


def _db(text: str) -> int:
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise ConfigError("the database is a number", hint=_HINT)
    return int(text)


def without_password(url: str) -> str:
    """Return a URL as it may be shown."""
    return re.sub(r"^([a-zA-Z+]+://[^:@/]*):.*@", r"\1:***@", url)

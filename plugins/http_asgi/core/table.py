"""Which routes a path belongs to, and whom a request comes from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_network
from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

from skycore.errors import LocalProtocolError, PluginConflictError

__all__ = ["Proxies", "Table", "split_target"]

T = TypeVar("T")
PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")
HOPS_MAX = 16


class Table(Generic[T]):
    """Values by unique prefix; the longest that fits wins."""

    def __init__(self, entries: Iterable[tuple[str, str, T]]) -> None:
        """Take (prefix, name, value). Raises `PluginConflictError` naming both of a clash."""
        by_prefix: dict[str, tuple[str, T]] = {}
        for prefix, name, value in entries:
            if not PREFIX.fullmatch(prefix):
                raise LocalProtocolError(
                    f"http routes {name!r}: {prefix!r} is no prefix",
                    hint='"/words/like/these" without a slash at the end, or "" for all the rest',
                )
            if prefix in by_prefix:
                raise PluginConflictError(
                    f"http routes {by_prefix[prefix][0]!r} and {name!r} both claim the prefix "
                    f"{prefix or '(the root)'!r}",
                    hint="disable one of the plugins, or give one another prefix in its settings",
                )
            by_prefix[prefix] = name, value
        self._entries = sorted(
            ((prefix, value) for prefix, (_, value) in by_prefix.items()),
            key=lambda entry: -len(entry[0]),
        )

    def find(self, path: str) -> T | None:
        """Return what serves a path."""
        for prefix, value in self._entries:
            if path == prefix or (path.startswith(prefix) and path[len(prefix)] == "/"):
                return value
        return None


def split_target(target: bytes) -> tuple[str, bytes, bytes]:
    """Return a request target's path, its raw path and its query. Raises `ValueError`.

    Absolute targets lose scheme and host (RFC 9112, section 3.2.2).
    """
    lower = target[:8].lower()
    if lower.startswith((b"http://", b"https://")):
        rest = target[target.index(b"//") + 2 :]
        target = rest[rest.index(b"/") :] if b"/" in rest else b"/"
    raw, _, query = target.partition(b"?")
    if not raw.startswith(b"/"):
        raise ValueError("the path does not begin with a slash")
    path = unquote_to_bytes(raw).decode()
    if "\0" in path:
        raise ValueError("the path holds a zero byte")
    return path, raw, query


class Proxies:
    """Who is believed about whom he speaks for."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [ip_network(text) for text in networks]

    def client(self, host: str, forwarded: bytes) -> str:
        """Return the client: the last in `X-Forwarded-For` that is no proxy of ours."""
        if not self._networks or not self._is_ours(host):
            return host
        for hop in reversed(forwarded.decode("latin-1").split(",")[-HOPS_MAX:]):
            told = hop.strip()
            try:
                ip_address(told)
            except ValueError:
                return host
            host = told
            if not self._is_ours(host):
                return host
        return host

    def _is_ours(self, host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

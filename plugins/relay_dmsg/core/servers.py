"""DMSG servers that a client knows of: which to try now, and which to leave in peace.

Why one list for servers from the configuration, from records and from earlier runs: in any mixture
one that answers is enough. Bounded; a configured server is never forgotten. Pure: time and chance
come in as arguments.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, Protocol

import msgspec

from skycore.errors import ConfigError, InvalidKeyError
from skycore.model.addresses import Address, split_host_port
from skycore.model.keys import KeySuite, PubKey, parse_public
from skycore.model.limits import ENDPOINT_MAX

__all__ = ["SERVERS_MAX", "Server", "Servers", "parse_server", "server_address"]

SERVERS_MAX: Final = 256
DIRECT_KIND: Final = "stcpr"
"""How a server is dialled: its records and `PK@host:port` name a TCP port."""


class Dice(Protocol):
    """What is needed of a random.Random."""

    def shuffle(self, x: list[Any]) -> None:
        """Put a list into any order."""
        ...


class Server:
    """A server, and how it went with it."""

    __slots__ = ("endpoint", "failures", "is_configured", "key", "next_at", "trouble", "worked")

    def __init__(self, key: PubKey, endpoint: str) -> None:
        self.key = key
        self.endpoint = endpoint
        self.is_configured = False
        self.failures = 0
        self.next_at = 0.0
        """Not to be tried before."""
        self.trouble = ""
        self.worked = 0
        """When it last worked, as a number that rises; 0: not yet."""

    @property
    def address(self) -> Address:
        """Where to dial it."""
        return Address(DIRECT_KIND, self.endpoint)


class Saved(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of a server over restarts."""

    key: bytes
    endpoint: str


class Servers:
    """All known servers."""

    def __init__(self, suite: KeySuite, dice: Dice) -> None:
        self._suite, self._dice = suite, dice
        self._by_key: dict[bytes, Server] = {}
        self._turn = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def find(self, key: bytes) -> Server | None:
        """Return what is known of a key."""
        return self._by_key.get(key)

    def learn(self, key: PubKey, endpoint: str, *, configured: bool = False) -> bool:
        """Note a server; tell whether that is news. A new address may be tried at once.

        What the configuration says of an address is not overwritten by what records say, nor is an
        address that works: a source that lies moves nobody away from a good server.
        """
        if not _is_dialable(endpoint):
            return False
        server = self._by_key.get(key)
        if server is None:
            if len(self._by_key) >= SERVERS_MAX and not self._make_room() and not configured:
                return False
            server = self._by_key[key] = Server(key, endpoint)
            server.is_configured = configured
            return True
        server.is_configured |= configured
        if server.endpoint == endpoint:
            return False
        if not configured and (server.is_configured or (server.worked and not server.trouble)):
            return False
        server.endpoint, server.failures, server.next_at = endpoint, 0, 0.0
        return True

    def choose(self, count: int, now: float, busy: Collection[bytes]) -> list[Server]:
        """Return the servers to try now: what worked before others, last first; then any."""
        ready = [s for s in self._by_key.values() if s.key not in busy and s.next_at <= now]
        self._dice.shuffle(ready)
        ready.sort(key=lambda s: (s.failures > 0, -s.worked, not s.is_configured))
        return ready[: max(0, count)]

    def configured(self, now: float, busy: Collection[bytes]) -> list[Server]:
        """Return the configured servers that may be tried now."""
        some = self._by_key.values()
        return [s for s in some if s.is_configured and s.key not in busy and s.next_at <= now]

    def configured_endpoints(self) -> list[str]:
        """Return where the operator says that servers are."""
        return [s.endpoint for s in self._by_key.values() if s.is_configured]

    def next_at(self, busy: Collection[bytes], *, configured_only: bool = False) -> float | None:
        """Return when the next server may be tried; None where there is none."""
        return min(
            (
                s.next_at
                for s in self._by_key.values()
                if s.key not in busy and (s.is_configured or not configured_only)
            ),
            default=None,
        )

    def worked(self, server: Server) -> None:
        """Note that it is attached."""
        self._turn += 1
        server.worked, server.trouble = self._turn, ""

    def failed(self, server: Server, why: str, now: float, wait_s: float) -> None:
        """Note a failure; it is left in peace for a while."""
        server.failures += 1
        server.trouble = why
        server.next_at = now + wait_s

    def hurry(self, now: float, within_s: float) -> None:
        """Let every server be tried soon: one that was there is gone, and patience is over."""
        for server in self._by_key.values():
            server.next_at = min(server.next_at, now + within_s)

    def dump(self) -> bytes:
        """Return what is worth remembering: those that worked, last first."""
        good = sorted((s for s in self._by_key.values() if s.worked), key=lambda s: -s.worked)
        return msgspec.msgpack.encode([Saved(s.key, s.endpoint) for s in good[: SERVERS_MAX // 4]])

    def load(self, data: bytes) -> int:
        """Take up what was remembered; return how many. Raises `ConfigError` for what is none."""
        try:
            saved = msgspec.msgpack.decode(data, type=list[Saved])[: SERVERS_MAX // 4]
        except (msgspec.DecodeError, UnicodeError) as bad:
            raise ConfigError(f"no list of DMSG servers: {bad}") from bad
        count = 0
        for one in reversed(saved):
            try:
                key = self._suite.check_public(one.key)
            except InvalidKeyError:
                continue
            if self.learn(key, one.endpoint):
                self._turn += 1
                self._by_key[key].worked = self._turn
                count += 1
        return count

    def _make_room(self) -> bool:
        """Forget the server that failed most and is not configured; False where all have worked."""
        weak = [s for s in self._by_key.values() if not s.is_configured and not s.worked]
        if not weak:
            return False
        del self._by_key[max(weak, key=lambda s: s.failures).key]
        return True


def parse_server(suite: KeySuite, text: str) -> tuple[PubKey, str]:
    """Read `PK@host:port`. Raises `ConfigError`, `InvalidKeyError`."""
    key, at, endpoint = text.partition("@")
    if not at or not _is_dialable(endpoint):
        raise ConfigError(f"{text[:100]!r} is no DMSG server", hint="write PK@host:port")
    return parse_public(suite, key), endpoint


def server_address(key: bytes, endpoint: str) -> str:
    """Write `PK@host:port`."""
    return f"{key.hex()}@{endpoint}"


def _is_dialable(endpoint: str) -> bool:
    if len(endpoint) > ENDPOINT_MAX // 2 or not endpoint.isascii() or not endpoint.isprintable():
        return False
    try:
        host, port = split_host_port(endpoint)
    except ConfigError:
        return False
    return bool(host.strip(".")) and port > 0 and " " not in host and "@" not in host

"""NATs: boxes in front of hosts that lend them ports of one public address.

Why four kinds and these words: they are RFC 3489's, which hole punching is still discussed in. In
RFC 4787's terms the first three map independently of the remote endpoint and filter by nothing, by
its address, or by address and port; the fourth maps and filters by address and port. A mapping
lives by what goes out (RFC 4787, REQ-6), and so does each remote's permission to come in.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final

from skycore.contracts.runtime import Endpoint
from skycore.testing.trace import Dice

__all__ = ["Nat", "NatKind"]

FIRST_PORT: Final = 1_024
MAPPINGS_MAX: Final = 4_096


class NatKind(enum.Enum):
    """How a NAT maps and filters."""

    FULL_CONE = "full-cone"
    ADDRESS_RESTRICTED = "address-restricted"
    PORT_RESTRICTED = "port-restricted"
    SYMMETRIC = "symmetric"


class _Mapping:
    """A lent port: to whom, since when unused, and who may come in through it."""

    __slots__ = ("internal", "key", "port", "sent_at", "used_at")

    def __init__(self, key: tuple[Endpoint, Endpoint | None], port: int) -> None:
        self.key = key
        self.internal = key[0]
        self.port = port
        self.used_at = 0.0
        self.sent_at: dict[Endpoint, float] = {}


class Nat:
    """One NAT's state, for UDP. Knows no clock: `now` is whoever asks's, in seconds."""

    def __init__(
        self,
        kind: NatKind,
        host: str,
        *,
        mapping_s: float = 120.0,
        keeps_ports: bool = False,
        hairpin: bool = False,
        seed: object = 0,
    ) -> None:
        self.kind, self.host = kind, host
        self.mapping_s = mapping_s
        """How long a mapping lives after the last datagram that went out through it."""
        self.keeps_ports = keeps_ports
        """Whether the host's own port is lent where it is free, as Linux does."""
        self.hairpin = hairpin
        """Whether hosts behind it reach each other through its public address."""
        self._dice = Dice("nat", seed, host)
        self._by_key: dict[tuple[Endpoint, Endpoint | None], _Mapping] = {}
        self._by_port: dict[int, _Mapping] = {}
        self._avoid: frozenset[int] = frozenset()

    def outgoing(self, now: float, internal: Endpoint, remote: Endpoint) -> Endpoint:
        """Let a datagram out; return the endpoint that the world sees it come from."""
        key = (internal, remote if self.kind is NatKind.SYMMETRIC else None)
        mapping = self._by_key.get(key)
        if mapping is not None and self._is_dead(mapping, now):
            self._drop(mapping)
            mapping = None
        if mapping is None:
            mapping = self._lend(key, now)
        mapping.used_at = mapping.sent_at[remote] = now
        return self.host, mapping.port

    def incoming(self, now: float, port: int, remote: Endpoint) -> Endpoint | None:
        """Return the host's endpoint that a datagram to `port` is for; None: it is dropped."""
        mapping = self._by_port.get(port)
        if mapping is None or self._is_dead(mapping, now):
            return None
        alive = (r for r, sent in mapping.sent_at.items() if now - sent < self.mapping_s)
        return mapping.internal if self._passes(alive, remote) else None

    def _passes(self, sent_to: Iterator[Endpoint], remote: Endpoint) -> bool:
        if self.kind is NatKind.FULL_CONE:
            return True
        if self.kind is NatKind.ADDRESS_RESTRICTED:
            return any(host == remote[0] for host, _ in sent_to)
        return remote in sent_to

    def behind(self, port: int) -> str | None:
        """Return the host that holds a port, whether or not anything passes."""
        mapping = self._by_port.get(port)
        return mapping.internal[0] if mapping else None

    def rebind(self) -> None:
        """Forget every mapping, as a restart does: the next datagram out gets another port."""
        self._by_key.clear()
        old, self._by_port = self._by_port, {}
        self._avoid = frozenset(old)

    def _is_dead(self, mapping: _Mapping, now: float) -> bool:
        return now - mapping.used_at >= self.mapping_s

    def _drop(self, mapping: _Mapping) -> None:
        del self._by_key[mapping.key]
        del self._by_port[mapping.port]

    def _lend(self, key: tuple[Endpoint, Endpoint | None], now: float) -> _Mapping:
        if len(self._by_key) >= MAPPINGS_MAX:
            for mapping in [m for m in self._by_key.values() if self._is_dead(m, now)]:
                self._drop(mapping)
        if len(self._by_key) >= MAPPINGS_MAX:
            self._drop(min(self._by_key.values(), key=lambda m: m.used_at))
        port = key[0][1] if self.keeps_ports else 0
        while port < FIRST_PORT or port in self._by_port or port in self._avoid:
            port = FIRST_PORT + int(self._dice.random() * (65_536 - FIRST_PORT))
        mapping = self._by_key[key] = self._by_port[port] = _Mapping(key, port)
        return mapping

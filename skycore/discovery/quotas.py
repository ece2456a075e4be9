"""Quotas: how much of a table the keys of one address may take.

Why by address: keys are free, and a table holds a bounded number of subjects and bytes; whoever
makes keys could have all of it. Addresses are not free. Of IPv6 the /64 counts, which is what one
host has, and besides with a wider bound the /48, which tunnel brokers give away.

Why in memory and by process, and not beside the listings in the registry: whatever is listed is
repeated within minutes or ends, and each repetition tells anew where its key is. So a restart is
over after one lifetime: until then what is listed already goes on, counted as it comes, and what is
new finds what room was found for so far. No schema, no round trip, and no addresses on a disk.

Why a key stays counted for a day after it was seen: it leaves a nonce and a heartbeat behind, which
are rows too. A key that is listed already is never refused for the number of keys.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final, NamedTuple

from pydantic import Field, field_validator

from skycore.contracts.registry import Listed
from skycore.contracts.runtime import Clock
from skycore.contracts.settings import PluginSettings
from skycore.discovery.directory import Directory
from skycore.errors import RequestRefusedError

__all__ = ["QuotaSettings", "SourceQuotas"]

log = logging.getLogger(__name__)

KEPT_S: Final = 86_400.0
REMEMBERED_MAX: Final = 400_000
"""Keys whose address is known: twice what a registry holds by default."""
ADDRESSES_REMEMBERED_MAX: Final = 4_096
"""Addresses of which it is remembered where they count."""
SITE_TIMES: Final = 4
"""How many /64 full of keys a /48 may have."""
TOLD_EVERY_S: Final = 3_600.0
TOLD_MAX: Final = 1_000
REFUSED: Final = 507
"""Insufficient storage, as when the whole table is full: asking again at once is no use."""


class QuotaSettings(PluginSettings):
    """How much of a discovery server's table one address may take."""

    address_keys_max: int = Field(1_024, ge=0)
    """Keys that one address (IPv6: one /64; a /48 has 4 times as many) may bring into the table in
    a day; those that are listed go on. 0: no limit."""
    address_mib_max: int = Field(8, ge=1)
    """What the keys of one address may list together, MiB; one transport takes some 400 bytes."""
    addresses_unlimited: tuple[str, ...] = Field(("127.0.0.0/8", "::1/128"), max_length=64)
    """Networks to which these limits do not apply: this host, where a proxy stands whose clients
    all seem to come from it. Better is to name it in [http_server] trusted_proxies."""

    @field_validator("addresses_unlimited")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ip_network(text)
        return value


class _Group(NamedTuple):
    """What counts together, and how many times the settings' bounds it has."""

    name: str
    times: int


class _Seen(NamedTuple):
    groups: tuple[_Group, ...]
    at: float


class SourceQuotas:
    """Which key came from where, and what that leaves room for. Of one table."""

    def __init__(self, settings: QuotaSettings, directory: Directory, clock: Clock) -> None:
        self._keys_max = settings.address_keys_max
        self._bytes_max = settings.address_mib_max << 20
        self._unlimited = [ip_network(text) for text in settings.addresses_unlimited]
        self._directory = directory
        self._clock = clock
        self._groups = lru_cache(ADDRESSES_REMEMBERED_MAX)(self._groups_of)
        self._seen: OrderedDict[bytes, _Seen] = OrderedDict()
        """By key, who was seen longest ago first."""
        self._keys: dict[str, set[bytes]] = {}
        """By group's name."""
        self._coming: Counter[str] = Counter()
        """Keys that are being written, by group's name."""
        self._bytes_coming: Counter[str] = Counter()
        self._told: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """Return of how many keys it is known where they are."""
        return len(self._seen)

    @contextmanager
    def admit(
        self, key: bytes, host: str, put: Sequence[Listed] = (), *, whole: bool = False
    ) -> Iterator[None]:
        """Hold room for a proven key's write while it is done; count it where that succeeds.

        `host` is where the request came from; empty: from this node itself. `put` and `whole` are
        those of the write. Raises `RequestRefusedError` (507) where an address has no room left.
        """
        groups = self._groups(host)
        if not groups:
            yield
            return
        seen = self._seen.get(key)
        moves = seen is None or seen.groups != groups
        if moves and (full := self._full(groups)):
            if seen is None and key not in self._directory:
                self._refuse(full, f"{self._keys_max * full.times} keys a day", "address_keys_max")
            moves = seen is None  # where a listed key was counted, it stays
        growth = self._growth(key, put, whole=whole)
        self._check_bytes(groups, growth)
        self._hold(groups, moves, growth)
        try:
            yield
        finally:
            self._hold(groups, -moves, -growth)
        self._count(key, groups if moves or seen is None else seen.groups)

    def _hold(self, groups: Sequence[_Group], keys: int, size: int) -> None:
        for group in groups:
            for held, more in ((self._coming, keys), (self._bytes_coming, size)):
                held[group.name] += more
                if not held[group.name]:
                    del held[group.name]

    def _groups_of(self, host: str) -> tuple[_Group, ...]:
        """Return on what an address counts; nothing for one without a limit."""
        if not self._keys_max or not host:
            return ()
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return (_Group(host[:64], 1),)
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        if any(address in network for network in self._unlimited):
            return ()
        if not isinstance(address, IPv6Address):
            return (_Group(str(address), 1),)
        net, site = ip_network((int(address) >> 64 << 64, 64)), int(address) >> 80 << 80
        return _Group(str(net), 1), _Group(str(ip_network((site, 48))), SITE_TIMES)

    # --- keys -----------------------------------------------------------------------------------

    def _full(self, groups: Sequence[_Group]) -> _Group | None:
        """Return the first group that has no room for one more key."""
        for group in groups:
            most = self._keys_max * group.times - self._coming[group.name]
            keys = self._keys.get(group.name, set())
            if len(keys) >= most:
                self._forget(key for key in tuple(keys) if self._is_over(key))
                if len(keys) >= most:
                    return group
        return None

    def _is_over(self, key: bytes) -> bool:
        is_old = self._clock.now() - self._seen[key].at >= KEPT_S
        return is_old and key not in self._directory

    def _count(self, key: bytes, groups: tuple[_Group, ...]) -> None:
        self._forget((key,))
        self._seen[key] = _Seen(groups, self._clock.now())
        for group in groups:
            self._keys.setdefault(group.name, set()).add(key)
        if len(self._seen) > REMEMBERED_MAX:
            self._forget((next(iter(self._seen)),))

    def _forget(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            seen = self._seen.pop(key, None)
            for group in seen.groups if seen else ():
                there = self._keys[group.name]
                there.discard(key)
                if not there:
                    del self._keys[group.name]

    # --- bytes ----------------------------------------------------------------------------------

    def _growth(self, key: bytes, put: Sequence[Listed], *, whole: bool) -> int:
        """Return how much more a key lists after a write; 0 for no more."""
        told = sum(len(entry.key) + len(entry.body) for entry in put)
        if not whole:  # what it lists besides stays
            held = {entry.key: len(entry.key) + len(entry.body)
                    for entry in self._directory.of(key).entries} if put else {}  # fmt: skip
            return max(0, told - sum(held.get(entry.key, 0) for entry in put))
        return max(0, told - self._directory.size_of(key))

    def _check_bytes(self, groups: Sequence[_Group], growth: int) -> None:
        for group in groups if growth else ():
            most = self._bytes_max * group.times
            held = sum(map(self._directory.size_of, self._keys.get(group.name, ())))
            if held + self._bytes_coming[group.name] + growth > most:
                self._refuse(group, f"{most >> 20} MiB", "address_mib_max")

    def _refuse(self, group: _Group, most: str, setting: str) -> None:
        now = self._clock.now()
        if now - self._told.get(group.name, -TOLD_EVERY_S) >= TOLD_EVERY_S:
            self._told[group.name] = now
            self._told.move_to_end(group.name)
            if len(self._told) > TOLD_MAX:
                self._told.popitem(last=False)
            log.warning("no more room for an address source=%s most=%r setting=%s",
                        group.name, most, setting)  # fmt: skip
        raise RequestRefusedError(
            f"the keys of {group.name} have all the room that one address has here: {most}"
            f" ({setting}); use keys that are listed, delist some, or ask this server's operator to"
            f" raise {setting}, or to name his proxy in trusted_proxies",
            code=REFUSED,
        )

"""The address book: where keys may be dialled, and which of that has worked.

Why it forgets: addresses come from peers, and a peer may name anything. So the book is bounded in
keys and in addresses per key, what never worked goes after a few tries, and only pinned entries
(from the configuration or `tp add`) outlive their failures.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

from skycore.discovery.binds import Reach, reach_of
from skycore.errors import ConfigError
from skycore.model.addresses import Address, Contact, join_host_port, split_host_port
from skycore.model.limits import ADDRESS_KIND_MAX, ENDPOINT_MAX, HELLO_ADDRESSES_MAX

__all__ = ["AddressBook", "as_seen"]

FAILURES_MAX = 5
"""Tries after which an address that never worked is forgotten."""


class _Known:
    """One address and its history; higher `score` is dialled earlier."""

    __slots__ = ("failures", "learnt", "pinned", "worked")

    def __init__(self) -> None:
        self.failures = 0
        self.learnt = 0
        self.pinned = False
        self.worked = 0

    def score(self) -> tuple[bool, int, bool, int]:
        """Order: answers now; worked most recently; pinned; heard of most recently."""
        return (self.failures == 0, self.worked, self.pinned, self.learnt)


class AddressBook:
    """Addresses by key. `contracts.transport.Addresses`, and what only the manager may tell it."""

    def __init__(
        self,
        *,
        keys_max: int = 16_384,
        on_new: Callable[[bytes], None] = lambda public: None,
    ) -> None:
        self._keys_max = keys_max
        self._on_new = on_new
        self._turn = 0
        self._known: dict[bytes, dict[Address, _Known]] = {}
        """Least recently touched keys first."""

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, contact: Contact, *, pinned: bool = False) -> None:
        """Remember where a key may be dialled; what is not an address is left out."""
        wanted = [a for a in contact.addresses[:HELLO_ADDRESSES_MAX] if _is_sound(a)]
        if not wanted:
            return
        key = bytes(contact.public)
        known = self._known.pop(key, None)
        if known is None:
            known = {}
            self._make_room()
        self._known[key] = known
        # all of a contact are equally new, so that its own order decides between them
        self._turn += len(wanted)
        new = False
        for place, address in enumerate(wanted):
            entry = known.get(address)
            if entry is None:
                entry = known[address] = _Known()
                new = True
            entry.learnt = self._turn - place
            if pinned:
                entry.pinned, entry.failures = True, 0
                new = True
        for address in _worth_keeping(known)[HELLO_ADDRESSES_MAX:]:
            del known[address]
        if new:
            self._on_new(key)

    def find(self, public: bytes) -> tuple[Address, ...]:
        """Return what is known, best first."""
        return tuple(_best_first(self._known.get(public, {})))

    def forget(self, public: bytes) -> None:
        """Drop what is known of a key, pinned too."""
        self._known.pop(public, None)

    def worked(self, public: bytes, address: Address) -> None:
        """Learn from the manager that a dial led to this key."""
        entry = self._known.get(public, {}).get(address)
        if entry is not None:
            self._turn += 1
            entry.worked, entry.failures = self._turn, 0
            self._known[public] = self._known.pop(public)

    def failed(self, public: bytes, address: Address) -> None:
        """Learn from the manager that a dial led nowhere, or to somebody else."""
        known = self._known.get(public, {})
        entry = known.get(address)
        if entry is None:
            return
        entry.failures += 1
        if entry.failures >= FAILURES_MAX and not entry.worked and not entry.pinned:
            del known[address]
            if not known:
                del self._known[public]

    def _make_room(self) -> None:
        """Drop the key touched longest ago that nobody pinned; the oldest of all if there is none.

        The look is bounded: pinned keys come from the operator and are few.
        """
        if len(self._known) < self._keys_max:
            return
        oldest = next(iter(self._known))
        for key, known in self._known.items():
            if not any(entry.pinned for entry in known.values()):
                oldest = key
                break
        del self._known[oldest]


def _best_first(known: dict[Address, _Known]) -> list[Address]:
    return sorted(known, key=lambda address: known[address].score(), reverse=True)


def _worth_keeping(known: dict[Address, _Known]) -> list[Address]:
    """Return addresses in the order in which they keep their place.

    Not the order of dialling: who names many new places must not push out what the operator pinned,
    nor where the key was last, because it does not answer just now.
    """
    last = max((entry.worked for entry in known.values()), default=0)

    def worth(address: Address) -> tuple[bool, bool, tuple[bool, int, bool, int]]:
        entry = known[address]
        return entry.pinned, bool(last) and entry.worked == last, entry.score()

    return sorted(known, key=worth, reverse=True)


def _is_sound(address: Address) -> bool:
    kind, endpoint = address.kind, address.endpoint
    return (
        0 < len(kind) <= ADDRESS_KIND_MAX
        and kind.isascii()
        and 0 < len(endpoint) <= ENDPOINT_MAX
        and endpoint.isascii()
        and endpoint.isprintable()
    )


def as_seen(listening: Iterable[Address], host: str) -> tuple[Address, ...]:
    """Return what a peer said of itself, with the host filled in that its connection came from.

    A loopback address means this machine only to somebody on it, so from elsewhere it is dropped.
    A connection through a relay has no host: what it should fill in is dropped, too.
    """
    found = []
    for address in listening:
        try:
            said, port = split_host_port(address.endpoint)
        except ConfigError:
            found.append(address)  # no host and port: another type's idea of an endpoint
            continue
        if not said and host:
            if not _is_host(host):
                continue
            found.append(Address(address.kind, join_host_port(host, port)))
        elif said and port and (_is_loopback(host) or not _is_loopback(said)):
            found.append(address)
    return tuple(found)


def _is_host(host: str) -> bool:
    """Tell whether this is an address, and not a name that stands for one (a relay's)."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost"
    return True


def _is_loopback(host: str) -> bool:
    return reach_of(host) is Reach.HERE

"""Whom to send punches to, and how many: never more than a NAT needs.

Why so few: a resolver's word makes this node send datagrams to an address that it does not know.
Ten small ones a minute to one address, and a bounded number to all, are no weapon (U11).
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from skycore.contracts.runtime import Endpoint
from skycore.model.limits import SUDPH_PUNCHES_MAX

__all__ = ["Puncher", "is_target"]

MINUTE_S: Final = 60.0
TARGETS_MAX: Final = 1_024
PER_MINUTE_MAX: Final = 1_200
"""Punches to all addresses together in a minute."""


def is_target(endpoint: Endpoint, *, near: bool) -> bool:
    """Whether an address that somebody else named may be sent to. `near`: loopback, too."""
    try:
        host = ipaddress.ip_address(endpoint[0])
    except ValueError:
        return False
    if host.is_multicast or host.is_unspecified or host == ipaddress.IPv4Address("255.255.255.255"):
        return False
    return bool(endpoint[1]) and (near or not host.is_loopback)


class Puncher:
    """The budget of punches."""

    def __init__(self, *, near: bool) -> None:
        self._near = near
        self._sent: OrderedDict[Endpoint, list[float]] = OrderedDict()
        self._since, self._count = 0.0, 0
        self.refused = 0

    def allowed(self, targets: Sequence[Endpoint], now: float) -> list[Endpoint]:
        """Return those of the targets that one punch each may go to now, and count them."""
        if now - self._since >= MINUTE_S:
            self._since, self._count = now, 0
        going = [t for t in dict.fromkeys(targets) if self._may(t, now)]
        self.refused += len(targets) - len(going)
        return going

    def _may(self, target: Endpoint, now: float) -> bool:
        if self._count >= PER_MINUTE_MAX or not is_target(target, near=self._near):
            return False
        times = [t for t in self._sent.pop(target, []) if now - t < MINUTE_S]
        may = len(times) < SUDPH_PUNCHES_MAX
        if may:
            times.append(now)
            self._count += 1
        self._sent[target] = times
        if len(self._sent) > TARGETS_MAX:
            self._sent.popitem(last=False)
        return may

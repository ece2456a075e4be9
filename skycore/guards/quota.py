"""Quotas: what this node has room for, and how much it takes from whom, on every path alike (C7).

Why nothing is ever displaced: a newcomer that pushes out what is here is how a hostile pusher
empties a store. At capacity the newcomer is refused, loudly, until lives end or the operator gives
more room. Our own records have no quota, so they always fit; updates of a slot need room only for
the bytes they add.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pydantic import Field

from skycore.contracts.namespace import Namespaces
from skycore.contracts.settings import PluginSettings
from skycore.contracts.store import CapacityChanged, Usage
from skycore.errors import QuotaError
from skycore.events import Events
from skycore.model.items import ItemClass, RankedItem
from skycore.model.keys import PubKey

__all__ = ["GateSettings", "Growth", "Quotas"]

log = logging.getLogger(__name__)
SENDERS_REMEMBERED_MAX = 4_096
_ROOM_AGAIN = 0.95


class GateSettings(PluginSettings):
    """What this node keeps for others. Its own records are exempt."""

    items_max: int = Field(default=100_000, ge=0)
    """Items held, of all signers and salts together."""
    value_bytes_max: int = Field(default=128 * 1024 * 1024, ge=0)
    """Bytes of values held, and of the blocks that they stand on, all together."""
    signer_items_max: int = Field(default=1_000, ge=0)
    """Items of one signer, as owner or as a subject's delegate."""
    signer_bytes_max: int = Field(default=32 * 1024 * 1024, ge=0)
    """Bytes of values and blocks of one signer, as owner or as a subject's delegate."""
    mirror_items_max: int = Field(default=100_000, ge=0)
    """Items of one mirror that the network's authority has delegated to."""
    unknown_items_max: int = Field(default=10_000, ge=0)
    """Items under salts that no active plugin has declared, all together."""
    sender_bytes_per_minute: int = Field(default=256 * 1024 * 1024, ge=0)
    """What one peer may hand in, refused included: values, blocks, and 300 bytes an item."""
    sender_pending_bytes_max: int = Field(default=48 * 1024 * 1024, ge=0)
    """Blocks of one peer that wait for the rest of their records; one record has 32 MiB at most."""
    pending_bytes_max: int = Field(default=96 * 1024 * 1024, ge=0)
    """Blocks of all peers together that wait for the rest of their records."""
    sweep_interval_s: float = Field(default=60.0, gt=0)
    """Pause between two sweeps of expired items."""


class Growth(NamedTuple):
    """What a node holds more once an item has taken its place: as its store's Usage counts."""

    items: int
    bytes: int


class Quotas:
    """Count what is held and what is on its way in, and say no in time.

    Counts are estimates between two `refresh`es; every admission is reserved before it is stored,
    so admissions that run at the same time cannot share one place. What shrinks is credited at the
    next `refresh` alone: many updates of one slot were all measured against the same old item.
    """

    def __init__(
        self, settings: GateSettings, own: PubKey, namespaces: Namespaces, events: Events
    ) -> None:
        self._settings = settings
        self._own = own
        self._namespaces = namespaces
        self._events = events
        self._items = self._bytes = self._unknown = 0
        self._on_way: dict[bytes, list[int]] = {}
        """By signer: items, bytes and reservations that are not settled."""
        self._senders: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        self._is_full = False

    def refresh(self, usage: Mapping[bytes, Usage]) -> None:
        """Take the store's own count as the truth."""
        self._items = sum(used.items for used in usage.values())
        self._bytes = sum(used.bytes for used in usage.values())
        self._unknown = sum(
            used.items for salt, used in usage.items() if self._namespaces.find(salt) is None
        )
        limits = self._settings
        if (
            self._items <= limits.items_max * _ROOM_AGAIN
            and self._bytes <= limits.value_bytes_max * _ROOM_AGAIN
        ):
            self._say(is_full=False)

    def has_room(self, wanted: Iterable[tuple[RankedItem, Growth]]) -> bool:
        """Tell whether all of these fit the node's totals by the estimate."""
        items, size, unknown = self._items, self._bytes, self._unknown
        for ranked, (more, bigger) in wanted:
            items += more
            size += max(0, bigger)
            if more and self._is_unknown(ranked):
                unknown += 1
        limits = self._settings
        return (
            items <= limits.items_max
            and size <= limits.value_bytes_max
            and unknown <= limits.unknown_items_max
        )

    def take(self, sender: bytes, size: int, now: float) -> bool:
        """Charge a sender, or (False) nothing where that is over its minute. Refills evenly."""
        if sender == self._own:
            return True
        full = float(self._settings.sender_bytes_per_minute)
        left, then = self._senders.pop(sender, (full, now))
        left = min(full, left + (now - then) * full / 60.0)
        allowed = left >= size
        self._senders[sender] = (left - size if allowed else left, now)
        if len(self._senders) > SENDERS_REMEMBERED_MAX:
            self._senders.popitem(last=False)
        return allowed

    def check(self, ranked: RankedItem, growth: Growth, used: Usage) -> None:
        """Tell whether there is a place. Raises `QuotaError`; `used` is the signer's usage."""
        items, size = growth
        if ranked.item.signer != self._own and (items or size > 0):
            self._check_signer(ranked, items, size, used)
            self._check_total(ranked, items, size)

    def reserve(self, ranked: RankedItem, growth: Growth, used: Usage) -> None:
        """Take a place before storing. Raises `QuotaError`; `used` is the signer's usage."""
        self.check(ranked, growth, used)
        items, size = growth.items, max(0, growth.bytes)
        self._items += items
        self._bytes += size
        if items and self._is_unknown(ranked):
            self._unknown += 1
        on_way = self._on_way.setdefault(ranked.account, [0, 0, 0])
        on_way[0] += items
        on_way[1] += size
        on_way[2] += 1

    def settle(self, ranked: RankedItem, growth: Growth, *, is_stored: bool) -> None:
        """End a reservation: the store counts the item now, or it was not stored."""
        items, size = growth.items, max(0, growth.bytes)
        on_way = self._on_way[ranked.account]
        on_way[0] -= items
        on_way[1] -= size
        on_way[2] -= 1
        if not on_way[2]:
            del self._on_way[ranked.account]
        if not is_stored:
            self._items -= items
            self._bytes -= size
            if items and self._is_unknown(ranked):
                self._unknown -= 1

    def _is_unknown(self, ranked: RankedItem) -> bool:
        return self._namespaces.find(ranked.item.salt) is None

    def _check_signer(self, ranked: RankedItem, items: int, size: int, used: Usage) -> None:
        limits = self._settings
        on_way = self._on_way.get(ranked.account, (0, 0))
        is_mirror = ranked.item_class == ItemClass.MIRROR
        items_max = limits.mirror_items_max if is_mirror else limits.signer_items_max
        if items and used.items + on_way[0] + items > items_max:
            raise QuotaError(f"this node keeps {items_max} items of one signer")
        if not is_mirror and used.bytes + on_way[1] + size > limits.signer_bytes_max:
            raise QuotaError(f"this node keeps {limits.signer_bytes_max} bytes of one signer")

    def _check_total(self, ranked: RankedItem, items: int, size: int) -> None:
        limits = self._settings
        if items and self._unknown >= limits.unknown_items_max and self._is_unknown(ranked):
            raise QuotaError(
                f"this node keeps {limits.unknown_items_max} items of undeclared salts"
            )
        if (items and self._items >= limits.items_max) or (
            size > 0 and self._bytes + size > limits.value_bytes_max
        ):
            self._say(is_full=True)
            raise QuotaError("this node is full", hint="raise [gate] items_max or value_bytes_max")

    def _say(self, *, is_full: bool) -> None:
        if is_full == self._is_full:
            return
        self._is_full = is_full
        if is_full:
            log.warning("full, refusing new items items=%d bytes=%d", self._items, self._bytes)
        else:
            log.info("room for new items again items=%d bytes=%d", self._items, self._bytes)
        self._events.publish(CapacityChanged(is_full, self._items, self._bytes))

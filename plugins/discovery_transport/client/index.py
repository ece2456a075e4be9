"""Every transport that this node's own store knows, by id and by edge, kept in step with it.

Why an index: "all transports" and "this transport" were asked of a central service because a store
of records by key cannot answer them (C54). Why beside the store's change log: each record is read
once, when it changes, not again for every question.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import anyio

from discovery_transport.client.core.entries import TP, Seen, both_sides, is_sound
from skycore.contracts.namespace import Namespace
from skycore.contracts.runtime import Clock
from skycore.contracts.store import ChangeFilter, ChangePage, Items
from skycore.errors import CursorInvalidError, SkycoreError
from skycore.model.entries import TransportEntry
from skycore.model.items import Cursor, Kind, StoredItem
from skycore.model.limits import PAGE_BYTES_MAX, PAGE_ITEMS_MAX
from skycore.tasks import every

__all__ = ["Held", "TransportIndex"]

SETTLE_S: Final = 0.05
AGAIN_S: Final = 600.0
"""What was dropped from the store is in no change log: so often everything is looked at anew."""


class Held(NamedTuple):
    """A record, as it was read."""

    subject: bytes
    digest: bytes
    entries: tuple[TransportEntry, ...]
    """None of a deleted one."""
    until_s: int


class _Whole(NamedTuple):
    """All transports, as long as no record changes or ends."""

    seen: Mapping[uuid.UUID, Seen]
    since_s: int
    until_s: float


class TransportIndex:
    """Follows the store's records under tp while `run` goes on. Reading never waits."""

    def __init__(self, items: Items, namespace: Namespace, clock: Clock) -> None:
        self._items, self._namespace, self._clock = items, namespace, clock
        self._slots: dict[bytes, dict[int, Held]] = {}
        self._having: dict[uuid.UUID, set[bytes]] = {}
        self._loaded = anyio.Event()
        self._whole: _Whole | None = None
        self.decoded = 0
        """How many records were read since the start."""

    async def wait_loaded(self) -> None:
        """Return once the store was read to its end."""
        await self._loaded.wait()

    # --- reading ---------------------------------------------------------------------------------

    def whole(self) -> Mapping[uuid.UUID, Seen]:
        """Return every transport by id: of a subject the live record of the highest class counts.

        Put together once for each state: until a record changes, or the first of them ends.
        """
        now_s = self._clock.wall_s()
        if self._whole is None or not self._whole.since_s <= now_s <= self._whole.until_s:
            live = [held for target in self._slots if (held := self._best(target)) is not None]
            until_s = min((held.until_s for held in live), default=now_s + AGAIN_S)
            seen = both_sides((held.subject.hex(), held.entries) for held in live)
            self._whole = _Whole(seen, now_s, until_s)
        return self._whole.seen

    def one(self, t_id: uuid.UUID) -> Seen | None:
        """Return one transport."""
        live = [self._best(target) for target in self._having.get(t_id, ())]
        lists = [
            (held.subject.hex(), [entry for entry in held.entries if entry.t_id == t_id])
            for held in live
            if held is not None
        ]
        return both_sides(lists).get(t_id)

    def _best(self, target: bytes) -> Held | None:
        now_s = self._clock.wall_s()
        slots = self._slots.get(target, {})
        live = [item_class for item_class, held in slots.items() if held.until_s >= now_s]
        return slots[max(live)] if live else None

    # --- being in step ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Go on until cancelled."""
        await every(1.0, self._follow, name="index of transports")

    async def _follow(self) -> None:
        """Read everything, then what changes, for a while. Raises `StoreError`."""
        met: set[tuple[bytes, int]] | None = set()
        cursor: Cursor | None = None
        until = self._clock.now() + AGAIN_S
        while met is not None or self._clock.now() < until:
            changed = self._items.changed()  # before reading: what comes meanwhile is not missed
            try:
                page = await self._page(cursor)
            except CursorInvalidError:
                return
            cursor = page.cursor
            for stored in page.entries:
                if met is not None:
                    met.add((stored.target, stored.item_class))
                await self._take(stored)
            if page.has_more:
                continue
            if met is not None:
                self._forget_others(met)
                met = None
                self._loaded.set()
            with anyio.move_on_after(until - self._clock.now()):
                await changed.wait()
                await anyio.sleep(SETTLE_S)

    async def _page(self, cursor: Cursor | None) -> ChangePage:
        wanted = ChangeFilter(salt=TP)
        return await self._items.changes(cursor, wanted, PAGE_ITEMS_MAX, PAGE_BYTES_MAX)

    async def _take(self, stored: StoredItem) -> None:
        slots = self._slots.setdefault(stored.target, {})
        held = slots.get(stored.item_class)
        if held is not None and held.digest == stored.digest:
            slots[stored.item_class] = held._replace(until_s=stored.until)
            return
        entries = await self._entries(stored)
        if entries is None:
            if not slots:
                del self._slots[stored.target]
            return
        subject = stored.item.subject
        slots[stored.item_class] = Held(subject, stored.digest, entries, stored.until)
        self._note(stored.target, held.entries if held else (), entries)

    async def _entries(self, stored: StoredItem) -> tuple[TransportEntry, ...] | None:
        """Return what a record lists; None where it cannot be read (any more)."""
        if stored.item.kind == Kind.TOMBSTONE:
            return ()
        try:
            value = await self._items.value(stored)
            self.decoded += 1
            entries = self._namespace.decode(value) if value is not None else ()
            return tuple(entry for entry in entries if is_sound(entry))
        except SkycoreError:  # replaced meanwhile: its successor is in the log, too
            return None

    def _note(
        self, target: bytes, old: Sequence[TransportEntry], new: Sequence[TransportEntry]
    ) -> None:
        self._whole = None
        for entry in new:
            self._having.setdefault(entry.t_id, set()).add(target)
        kept = {e.t_id for held in self._slots.get(target, {}).values() for e in held.entries}
        for entry in old:
            if entry.t_id not in kept and (targets := self._having.get(entry.t_id)) is not None:
                targets.discard(target)
                if not targets:
                    del self._having[entry.t_id]

    def _forget_others(self, met: set[tuple[bytes, int]]) -> None:
        """Drop what the store does not have any more."""
        for target, slots in tuple(self._slots.items()):
            for item_class in [c for c in slots if (target, c) not in met]:
                held = slots.pop(item_class)
                self._note(target, held.entries, ())
            if not slots:
                del self._slots[target]

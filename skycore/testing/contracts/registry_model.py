"""The plainest registry that can be right, and random work to hold a real one against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import msgspec
from hypothesis import strategies as st

from skycore.contracts.registry import (
    Listed,
    Listing,
    Registry,
    RegistryPage,
    RegistryWrite,
    RegistryWritten,
)
from skycore.errors import CursorInvalidError
from skycore.testing.fakes import START_NS, FakeClock

__all__ = ["TABLE", "Follower", "ModelRegistry", "RegistryPlayer", "Step", "steps"]

TABLE = "transport-discovery"


@dataclass
class _Entry:
    body: bytes
    until_ms: int
    stamp: int


@dataclass
class ModelRegistry:
    """One table's rules, done the slow way."""

    held: dict[bytes, dict[bytes, _Entry]] = field(default_factory=dict)
    log: list[bytes] = field(default_factory=list)
    """Subjects, by their last change; those that are gone too."""
    used: dict[bytes, int] = field(default_factory=dict)
    """How many nonces a subject has used up."""
    seen: dict[str, dict[bytes, set[int]]] = field(default_factory=dict)

    def live(self, subject: bytes, now_ms: int) -> dict[bytes, _Entry]:
        """Return what a subject lists."""
        entries = self.held.get(subject, {})
        return {key: entry for key, entry in entries.items() if entry.until_ms > now_ms}

    def listing(self, subject: bytes, now_ms: int) -> Listing:
        """Return it as it is told."""
        live = self.live(subject, now_ms)
        return Listing(subject, tuple(Listed(key, live[key].body) for key in sorted(live)))

    def all(self, now_ms: int) -> list[Listing]:
        """Return all live listings."""
        found = [self.listing(subject, now_ms) for subject in self.log]
        return [listing for listing in found if listing.entries]

    def write(self, write: RegistryWrite, now_ns: int, nonce: int | None) -> RegistryWritten:
        """Do one write; `nonce` is the one that it should have had."""
        now_ms, subject = now_ns // 10**6, write.subject
        if write.nonce is not None and write.nonce != nonce:
            return RegistryWritten(error="nonce", next_nonce=nonce or 0)
        entries = self.live(subject, now_ms)
        ended = len(self.held.get(subject, {})) > len(entries)
        keys = [entry.key for entry in write.put] + list(write.remove)
        highest = max([entries[key].stamp for key in keys if key in entries] or [0])
        stamp = write.stamp or max([now_ns] + [entry.stamp for entry in entries.values()])
        if write.must_rise and stamp <= highest:
            return RegistryWritten(error="stamp", next_nonce=nonce or 0, stamp=highest)
        before = {key: entry.body for key, entry in entries.items()}
        removed = self._remove(entries, write.remove, stamp)
        self._put(entries, write, stamp, now_ms)
        if write.whole:
            named = {entry.key for entry in write.put}
            self._remove(entries, [key for key in entries if key not in named], stamp)
        for entry in entries.values() if write.prolong else ():
            entry.until_ms = max(entry.until_ms, now_ms + int(write.lifetime_s * 1_000))
        after = {key: entry.body for key, entry in entries.items()}
        # Removed and put again in one write: not the same listing as before, by any reading.
        changed = ended or bool(removed) or before != after
        self.held[subject] = entries
        if changed:
            self._moved(subject)
        if write.beat:
            self._beat(subject, now_ns // 10**9)
        if nonce is not None:
            nonce += 1
            self.used[subject] = self.used.get(subject, 0) + 1
        return RegistryWritten(
            next_nonce=nonce or 0,
            changed=changed,
            listing=self.listing(subject, now_ms) if changed else None,
            removed=tuple(removed),
        )

    def _remove(
        self, entries: dict[bytes, _Entry], keys: Sequence[bytes], stamp: int
    ) -> list[bytes]:
        removed = []
        for key in keys:
            if key in entries and entries[key].stamp <= stamp:
                del entries[key]
                removed.append(key)
        return removed

    def _put(
        self, entries: dict[bytes, _Entry], write: RegistryWrite, stamp: int, now_ms: int
    ) -> None:
        until = now_ms + int(write.lifetime_s * 1_000)
        for key, body in write.put:
            if key not in entries:
                if until > now_ms:
                    entries[key] = _Entry(body, until, stamp)
            else:
                entry = entries[key]
                entry.until_ms = max(entry.until_ms, until)
                if entry.stamp <= stamp:
                    entry.body, entry.stamp = body, stamp

    def _moved(self, subject: bytes) -> None:
        self.log = [other for other in self.log if other != subject] + [subject]

    def _beat(self, subject: bytes, now_s: int) -> None:
        day = self.seen.setdefault(str(now_s // 86_400), {})
        day.setdefault(subject, set()).add(now_s % 86_400 // 300)

    def sweep(self, now_ms: int) -> int:
        """End what is over, and count it."""
        count = 0
        for subject, entries in self.held.items():
            over = [key for key, entry in entries.items() if entry.until_ms <= now_ms]
            for key in over:
                del entries[key]
            if over:
                self._moved(subject)
            count += len(over)
        return count


class Follower:
    """Somebody who holds a table in step by its change log, one page at a time."""

    def __init__(self, registry: Registry, table: str = TABLE) -> None:
        self._registry = registry
        self._table = table
        self.cursor: bytes | None = None
        self.held: dict[bytes, Listing] = {}
        self.told: list[bytes] = []

    async def page(self, limit: int) -> RegistryPage:
        """Read a page. Raises `CursorInvalidError`."""
        page = await self._registry.changes(self._table, self.cursor, limit)
        assert len(page.listings) <= limit
        assert page.listings or not page.has_more
        for listing in page.listings:
            assert [e.key for e in listing.entries] == sorted({e.key for e in listing.entries})
            self.held.pop(listing.subject, None)
            if listing.entries:
                self.held[listing.subject] = listing
        self.told += [listing.subject for listing in page.listings]
        self.cursor = page.cursor
        return page

    async def catch_up(self, limit: int = 3) -> None:
        """Read all that there is."""
        while (await self.page(limit)).has_more:
            pass


class Step(msgspec.Struct, frozen=True):
    """One call of random work: its name, and what it is made with."""

    name: str
    data: Any


_SUBJECTS = [b"alice", b"bob", b"\x00\xff'carol"]
_KEYS = [b"k1", b"k2", b"k3\x00\xff"]
_LAST = 400
_listed = st.builds(
    Listed, st.sampled_from(_KEYS), st.sampled_from([b"{}", b'{"a":1}', b"\x00\xff"])
)
_stamps = st.one_of(
    st.just(0),
    st.just(0),
    st.integers(1, 3),
    st.integers(-_LAST, _LAST).map(lambda s: START_NS + s * 10**9),
)
_writes = st.builds(
    RegistryWrite,
    st.sampled_from(_SUBJECTS),
    put=st.lists(_listed, max_size=3).map(tuple),
    remove=st.lists(st.sampled_from(_KEYS), max_size=2).map(tuple),
    whole=st.booleans(),
    lifetime_s=st.sampled_from([0.0, 1.0, 30.5, 300.0]),
    prolong=st.booleans(),
    stamp=_stamps,
    must_rise=st.sampled_from([False, False, False, True]),
    nonce=st.sampled_from([None, None, 0, 1]),
    beat=st.booleans(),
)


def steps() -> st.SearchStrategy[list[Step]]:
    """Return random work: writes, time that passes, sweeps, pages, interleaved."""
    write = st.builds(Step, st.just("write"), st.lists(_writes, min_size=1, max_size=3))
    step = st.one_of(
        write,
        write,
        write,
        st.builds(
            Step, st.just("wait"), st.sampled_from([0.001, 0.5, 1.0, 29.0, 300.0, 4_000.0, 9e4])
        ),
        st.builds(Step, st.just("sweep"), st.sampled_from([1, 2, 100])),
        st.builds(Step, st.just("page"), st.integers(1, 3)),
    )
    return st.lists(step, max_size=25)


class RegistryPlayer:
    """Do random work on a registry and on the model; a follower pages on the side."""

    def __init__(self, registry: Registry, clock: FakeClock) -> None:
        self._registry = registry
        self._clock = clock
        self._model = ModelRegistry()
        self._follower = Follower(registry)
        self._first: dict[bytes, int] = {}

    @property
    def _now_ms(self) -> int:
        return self._clock.wall_ns() // 10**6

    async def play(self, work: Sequence[Step]) -> None:
        """Do the work; after it, compare everything."""
        for subject in _SUBJECTS:
            self._first[subject] = await self._registry.next_nonce(TABLE, subject)
        for step in work:
            await getattr(self, f"_{step.name}")(step.data)
        fresh = Follower(self._registry)
        await fresh.catch_up()
        live = self._model.all(self._now_ms)
        assert fresh.held == {listing.subject: listing for listing in live}
        await self._sweep(100)
        await self._page(1)
        while (await self._page(2)).has_more:
            pass
        assert self._follower.held == fresh.held
        await self._beats()

    def _next(self, subject: bytes) -> int:
        return self._first[subject] + self._model.used.get(subject, 0)

    async def _write(self, writes: Sequence[RegistryWrite]) -> None:
        """Write a batch; a nonce of 0 means the right one, 1 one too many, at its turn."""
        meant, expected = [], []
        for write in writes:
            nonce = None if write.nonce is None else self._next(write.subject)
            given = None if nonce is None else nonce + (write.nonce or 0)
            meant.append(msgspec.structs.replace(write, nonce=given))
            expected.append(self._model.write(meant[-1], self._clock.wall_ns(), nonce))
        assert list(await self._registry.write(TABLE, meant)) == expected
        for write in writes:
            found = await self._registry.next_nonce(TABLE, write.subject)
            assert found == self._next(write.subject)

    async def _wait(self, seconds: float) -> None:
        self._clock.advance(seconds)

    async def _sweep(self, limit: int) -> None:
        """Sweep in portions; which of those that end at once comes first is nobody's business."""
        left = self._model.sweep(self._now_ms)
        while True:
            found = await self._registry.sweep(TABLE, limit)
            assert found == min(limit, left)
            left -= found
            if found < limit:
                return

    async def _page(self, limit: int) -> RegistryPage:
        try:
            return await self._follower.page(limit)
        except CursorInvalidError:  # it may have been away for an hour
            self._follower = Follower(self._registry)
            return await self._follower.page(limit)

    async def _beats(self) -> None:
        now_day = self._clock.wall_s() // 86_400
        for day, seen in self._model.seen.items():
            if int(day) < now_day - 8:
                continue
            found = await self._registry.beats(TABLE, _date(int(day)))
            assert {s: beats.slots for s, beats in found.items()} == {
                subject: len(slots) for subject, slots in seen.items()
            }


def _date(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()

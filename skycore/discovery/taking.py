"""From the DHT into a discovery server: what subjects sign themselves is listed there, too.

Why at all: a visor whose record is well kept by the DHT need not also tell a server every 90 s; the
server learns it from the DHT, and its list stays whole (L12). Why only what a subject signed for
itself: what a server mirrored must never come back as news and keep itself alive. Why entries live
on for a while when the source breaks: not knowing is not the same as gone.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import anyio
import anyio.lowlevel
import msgspec

from skycore.contracts.discovery import EntrySource, FollowedSource, Record
from skycore.contracts.registry import Listed, RegistryWrite
from skycore.contracts.runtime import Clock, Entropy
from skycore.discovery.directory import Directory
from skycore.discovery.taken import Held, Share, Taken, size_of
from skycore.errors import (
    DiscoveryError,
    LocalProtocolError,
    NamespaceError,
    SkycoreError,
    StoreFullError,
)
from skycore.model.keys import short
from skycore.tasks import backoff_s, every

__all__ = ["MakeEntries", "Taking", "open_taking"]

log = logging.getLogger(__name__)

MakeEntries = Callable[[Record], Sequence[Listed]]
"""Return what a record (with a body) says, as the server lists it. May raise `NamespaceError`."""

LOOK_S: Final = 5.0
"""How often sources that came up later are looked for."""
WRITES_AT_ONCE: Final = 256
PROLONG_S: Final = 30.0
"""How often that is done while a source is broken."""
PROLONGED_S: Final = 90.0
"""For how long each time."""
BROKEN_MAX_S: Final = 600.0
SETTLED_S: Final = 60.0
"""A source that was mended has caught up after so long."""
_WORDS: Final = ("taken", "deleted", "refused", "crowded", "ignored", "prolonged")
TOLD_EVERY_S: Final = 60.0
"""How often a record that is not listed is told of in the log: anybody can make them."""
RETRY_FIRST_S: Final = 1.0
RETRY_LONGEST_S: Final = 30.0


class _Told(NamedTuple):
    """What a record does to the directory."""

    write: RegistryWrite
    until_s: int

    def at(self, now_s: int) -> RegistryWrite:
        """Return the write as it is now: a lease goes on while a registry is waited for."""
        lifetime_s = min(self.write.lifetime_s, float(self.until_s - now_s))
        return msgspec.structs.replace(self.write, lifetime_s=lifetime_s)


@dataclass
class _Source:
    """A source that is followed, and what was taken from it."""

    source: FollowedSource
    held: Taken
    broken_at: float | None = None
    unsure_until: float = 0.0
    """Until when what it does not repeat lives on."""
    trouble: str = ""
    records: int = 0
    turn: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    """Of following it: cancelled to begin again."""


class Taking:
    """One salt's way from local sources into a directory. Made by `open_taking`."""

    def __init__(
        self,
        directory: Directory,
        salt: bytes,
        sources: Iterable[EntrySource],
        make_entries: MakeEntries,
        clock: Clock,
        entropy: Entropy,
        name: str,
    ) -> None:
        self.name = name
        self.salt = salt
        self.counters: Counter[str] = Counter()
        """`taken`, `deleted`, `refused`, `crowded` (no room), `ignored` (not signed by the
        subject), `prolonged`."""
        self._directory = directory
        self._sources = sources
        self._make_entries = make_entries
        self._clock = clock
        self._dice = entropy.random()
        self._followed: dict[str, _Source] = {}
        self._share = Share(directory.capacity)
        self._is_full = False
        self._begun = self._beginning()
        self._told_at = -TOLD_EVERY_S

    def status_fields(self) -> Mapping[str, Any]:
        """Return what a server adds to the fields of its status; numbers become metrics."""
        followed = self._followed.values()
        return {
            "take_subjects": sum(len(one.held) for one in followed),
            "take_broken": sum(one.broken_at is not None for one in followed),
            "take_full": int(self._is_full),
            **{f"take_{word}": self.counters[word] for word in _WORDS},
            "take_from": {
                one.source.name: {
                    "live": one.broken_at is None,
                    "subjects": len(one.held),
                    "records": one.records,
                    "trouble": one.trouble,
                }
                for one in followed
            },
        }

    def seq_of(self, subject: bytes) -> int:
        """Return the seq of the subject's record that was taken last and still holds; 0: none."""
        now_s = self._clock.wall_s()
        found = (one.held.get(subject) for one in self._followed.values())
        return max((held.stamp for held in found if held and held.until_s > now_s), default=0)

    async def run(self) -> None:
        """Follow every local source that can be followed, those that come up later too."""
        async with anyio.create_task_group() as tasks:

            async def look() -> None:
                for source in tuple(self._sources):
                    if source.name in self._followed or not self._is_fit(source):
                        continue
                    assert isinstance(source, FollowedSource)
                    one = _Source(source, Taken(self._share))
                    self._followed[source.name] = one
                    tasks.start_soon(self._follow, one)
                self._begin_again()

            await every(LOOK_S, look, name=f"{self.name} sources")

    def _beginning(self) -> tuple[int, int]:
        return self._directory.losses, self._directory.steps.count

    def _begin_again(self) -> None:
        """Have everything told again when the registry lost its table, or our clock was put right.

        Sources tell news alone, and what was over by a wrong clock is none.
        """
        if self._beginning() != self._begun:
            self._begun = self._beginning()
            for one in self._followed.values():
                one.turn.cancel()

    def _is_fit(self, source: EntrySource) -> bool:
        knows = source.salts is None or self.salt in source.salts
        return knows and source.is_local and isinstance(source, FollowedSource)

    async def _follow(self, one: _Source) -> None:
        failures = 0
        while True:
            began = one.records
            with anyio.CancelScope() as one.turn:
                try:
                    async with one.source.follow(self.salt) as batches:
                        async for batch in batches:
                            self._mended(one)
                            await self._take(one, batch)
                    raise DiscoveryError("the source ended what it told")
                except SkycoreError as trouble:
                    self._broke(one, trouble)
                failures = failures + 1 if one.records == began else 1
                wait_s = backoff_s(failures, RETRY_FIRST_S, RETRY_LONGEST_S, self._dice)
                await anyio.sleep(wait_s)

    # --- records ---------------------------------------------------------------------------------

    async def _take(self, one: _Source, batch: Sequence[Record]) -> None:
        """Write records into the directory; a registry that is away is waited for.

        The source waits meanwhile: it keeps the newest of each record, so nothing is lost and
        nothing piles up here.
        """
        self._is_full = False
        for start in range(0, len(batch), WRITES_AT_ONCE):
            some = batch[start : start + WRITES_AT_ONCE]
            one.records += len(some)
            found = {t.write.subject: t for r in some if (t := self._told_by(r)) is not None}
            wanted = [told for told in found.values() if self._has_room(one.held, told)]
            refused = await self._write(wanted) if wanted else set()
            for told in wanted:
                subject = told.write.subject
                if told.write.put and subject not in refused:
                    one.held.keep(subject, _held_of(told))
                else:
                    one.held.drop(subject)
            await anyio.lowlevel.checkpoint()

    def _has_room(self, held: Taken, told: _Told) -> bool:
        """Hold room for what is to be written; the seq counts once it is."""
        if not told.write.put:
            return True
        subject = told.write.subject
        before = held.get(subject) or Held(0, told.until_s, (), 0)
        size = max(before.size, size_of(told.write.put))
        if held.keep(subject, before._replace(size=size)):
            return True
        self._is_full = True
        self.counters["crowded"] += 1
        return False

    def _told_by(self, record: Record) -> _Told | None:
        """Return what a record does to the directory; None: nothing."""
        if record.salt != self.salt or record.signer != record.subject:
            self.counters["ignored"] += 1
            return None
        if record.body is None:
            self.counters["deleted"] += 1
            gone = RegistryWrite(record.subject, whole=True, stamp=record.as_of_ns)
            return _Told(gone, record.until_s)
        lifetime_s = record.until_s - self._clock.wall_s()
        if lifetime_s <= 0:
            return None
        try:
            put = self._entries_in(record)
        except NamespaceError as bad:
            self._refuse(record.subject, str(bad))
            return None
        self.counters["taken"] += 1
        write = RegistryWrite(
            record.subject,
            put=put,
            whole=True,
            lifetime_s=lifetime_s,
            stamp=record.as_of_ns,
            beat=True,
        )
        return _Told(write, record.until_s)

    def _entries_in(self, record: Record) -> tuple[Listed, ...]:
        try:
            return tuple(self._make_entries(record))
        except SkycoreError:
            raise
        except Exception as bug:  # one record that nobody foresaw must not end the part
            raise NamespaceError(f"it cannot be read ({type(bug).__name__}: {bug})") from bug

    def _refuse(self, subject: bytes, why: str) -> None:
        self.counters["refused"] += 1
        now = self._clock.now()
        is_news = now - self._told_at >= TOLD_EVERY_S
        self._told_at = now if is_news else self._told_at
        log.log(
            logging.INFO if is_news else logging.DEBUG,
            "a record is not listed name=%s pk=%s refused=%d: %s",
            self.name, short(subject), self.counters["refused"], why,
        )  # fmt: skip

    async def _write(self, wanted: Sequence[_Told]) -> set[bytes]:
        """Write once the registry can; return whose record it does not take."""
        attempt = 0
        while True:
            try:
                now_s = self._clock.wall_s()
                return await self._try([told.at(now_s) for told in wanted])
            except SkycoreError as trouble:
                attempt += 1
                if attempt == 1:
                    log.warning("records wait name=%s error=%r", self.name, str(trouble))
            await anyio.sleep(backoff_s(attempt, RETRY_FIRST_S, RETRY_LONGEST_S, self._dice))

    async def _try(self, writes: Sequence[RegistryWrite]) -> set[bytes]:
        """Write what the registry takes; return whose record it does not. Raises `StoreError`."""
        try:
            await self._directory.write(writes)
        except (StoreFullError, LocalProtocolError) as unfit:
            if len(writes) == 1:
                self._refuse(writes[0].subject, str(unfit))
                return {writes[0].subject}
            half = len(writes) // 2  # one that does not fit costs some writes, not hundreds
            return await self._try(writes[:half]) | await self._try(writes[half:])
        return set()

    # --- a source that is broken -----------------------------------------------------------------

    def _mended(self, one: _Source) -> None:
        if one.broken_at is not None:
            log.info("followed again name=%s source=%s", self.name, one.source.name)
            one.unsure_until = min(one.unsure_until, self._clock.now() + SETTLED_S)
        one.broken_at, one.trouble = None, ""

    def _broke(self, one: _Source, trouble: SkycoreError) -> None:
        if one.broken_at is None:
            one.broken_at = self._clock.now()
            log.warning(
                "%s name=%s source=%s error=%r",
                "not followed any more" if one.records else "cannot be followed yet",
                self.name, one.source.name, str(trouble),
            )  # fmt: skip
            one.unsure_until = one.broken_at + BROKEN_MAX_S
        one.trouble = str(trouble).partition(" (")[0][:200]

    async def prolong(self) -> None:
        """Let what broken sources told live on, for up to `BROKEN_MAX_S`. Raises `StoreError`."""
        for one in tuple(self._followed.values()):  # another one may come up meanwhile
            if self._clock.now() >= one.unsure_until:
                one.held.forget_ended(self._clock.wall_s())
                continue
            subjects = one.held.subjects()
            for start in range(0, len(subjects), WRITES_AT_ONCE):
                some = map(one.held.get, those := subjects[start : start + WRITES_AT_ONCE])
                ending = self._clock.wall_s() + PROLONGED_S
                writes = [
                    write
                    for subject, held in zip(those, some, strict=True)
                    if held is not None
                    and held.until_s < ending
                    and (write := self._again(subject, held)) is not None
                ]
                refused = await self._try(writes) if writes else ()
                self.counters["prolonged"] += len(writes) - len(refused)
                await anyio.lowlevel.checkpoint()

    def _again(self, subject: bytes, held: Held) -> RegistryWrite | None:
        """Return a write that says once more what was taken, as far as it is still listed."""
        keys = set(held.keys)
        put = tuple(entry for entry in self._directory.of(subject).entries if entry.key in keys)
        if not put:
            return None
        return RegistryWrite(subject, put=put, lifetime_s=PROLONGED_S, stamp=held.stamp)


def _held_of(told: _Told) -> Held:
    write = told.write
    keys = tuple(entry.key for entry in write.put)
    return Held(write.stamp, told.until_s, keys, size_of(write.put))


@asynccontextmanager
async def open_taking(
    directory: Directory,
    salt: bytes,
    sources: Iterable[EntrySource],
    make_entries: MakeEntries,
    clock: Clock,
    entropy: Entropy,
    *,
    name: str,
) -> AsyncIterator[Taking]:
    """List what subjects sign themselves under a salt, for as long as the context lasts.

    `sources` is `Live[EntrySource]`: those that are local and can be followed count.
    """
    taking = Taking(directory, salt, sources, make_entries, clock, entropy, name)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(taking.run)
        tasks.start_soon(lambda: every(PROLONG_S, taking.prolong, name=f"{name} prolonging"))
        try:
            yield taking
        finally:
            tasks.cancel_scope.cancel()

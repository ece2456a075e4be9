"""From a discovery server into the DHT: what its directory lists is published, and nothing else.

Why beside the requests and never in them: a write to a server must not wait for a mirror, for a
signature or for a network (L3, L22). Why by subject and not by change: a subject that changes ten
times while the mirror is away costs one record when it is back, and memory is bounded by the number
of subjects. Expiry is a change of the directory like any other, so it becomes a deletion (L6).
Whether both sides are equal is not assumed but counted, all the time (C46): see `published.py`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import anyio
import anyio.lowlevel

from skycore.contracts.dht import CopyingMirror
from skycore.contracts.publish import Fact, Published
from skycore.contracts.registry import Listing
from skycore.discovery.backlog import Backlog
from skycore.discovery.directory import Directory
from skycore.discovery.doubts import Doubts
from skycore.discovery.fed import FedSubjects
from skycore.discovery.holding import Holding
from skycore.discovery.outlet import Outlet
from skycore.discovery.published import Gist, PublishedSubjects, digest_of, whole
from skycore.discovery.rights import Right
from skycore.errors import (
    ItemError,
    NamespaceError,
    NotAuthorisedError,
    NotClosestError,
    SkycoreError,
    StoreError,
)
from skycore.model.keys import short
from skycore.tasks import backoff_s, every

__all__ = ["Feeding", "MakeBody", "Outlet", "open_feeding"]

log = logging.getLogger(__name__)

MakeBody = Callable[[Listing], Any]
"""Return what to publish for a listing: the body that the salt's namespace encodes (an entry, or a
list of entries), without anything that changes by itself. None: nothing, as if it were gone."""

SETTLE_S: Final = 0.1
"""What changes within so long goes in one batch."""
BATCH_SUBJECTS: Final = 256
BATCH_BYTES: Final = 4 * 1024 * 1024
RETRY_FIRST_S: Final = 1.0
RETRY_LONGEST_S: Final = 60.0
REFRESH_S: Final = 900.0
"""How often everything is handed to the publisher again, who prolongs what is half over."""
SHOWN_MAX: Final = 5
NO_MIRROR: Final = "no mirror is up: what is listed goes into this node's own store only"
EXPECTED_ANEW: Final = 15
"""Comparisons from one that works out everything anew to the next."""
LOOKS_WHILE_DIFFERENT: Final = 6
_WORDS: Final = ("published", "unchanged", "deleted", "refused", "failed", "repaired")


class Feeding:
    """One directory's way to the mirrors, under one salt. Made by `open_feeding`."""

    def __init__(
        self, directory: Directory, salt: bytes, make_body: MakeBody, outlet: Outlet, name: str,
        gist: Gist = whole,
    ) -> None:  # fmt: skip
        self.name = name
        self.salt = salt
        self.counters: Counter[str] = Counter()
        """`published`, `unchanged`, `deleted`, `refused`, `failed`, `repaired`: facts, by end."""
        self.differences = 0
        """Subjects whose published record is not what the directory lists, at the last look."""
        self.trouble = ""
        """Why something is not published now that could be; empty where all is."""
        self.hint = ""
        self._directory = directory
        self._make_body = make_body
        self._outlet = outlet
        self._published = PublishedSubjects(outlet.items, salt, outlet.identity.public, gist)
        self._gist = gist
        self._fed = FedSubjects(outlet.files, salt)
        self._right = Right(outlet.publisher, outlet.identity, outlet.clock, salt)
        self._dice = outlet.entropy.random()
        self._backlog = Backlog(outlet.clock)
        self._failures = 0
        self._refused: dict[bytes, str] = {}
        self._elsewhere: set[bytes] = set()
        self._doubts = Doubts(outlet.clock)
        self._expected: dict[bytes, bytes] = {}
        self._different: list[bytes] = []
        self._holding = Holding(outlet.clock, name)
        self._verified_at: float | None = None
        self._verified = 0
        self._refreshed_at = outlet.clock.now()
        self._reached: frozenset[str] = frozenset()

    # --- what it says ----------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Subjects that changed and are not published yet: bounded by how many there are."""
        return len(self._backlog)

    @property
    def lag_s(self) -> float:
        """How long the oldest of them has waited, seconds."""
        return self._backlog.lag_s

    def status_fields(self) -> Mapping[str, Any]:
        """Return what a server adds to the fields of its status; numbers become metrics."""
        now = self._outlet.clock.now()
        age = None if self._verified_at is None else round(now - self._verified_at, 1)
        fields: dict[str, Any] = {
            "differences": self.differences,
            "different_subjects": [subject.hex() for subject in self._different],
            "verified_s_ago": age,
            "feed_waiting": self.waiting,
            "feed_lag_s": round(self.lag_s, 1),
            "feed_right_s": self._right.left_s(),
            **{f"feed_{word}": self.counters[word] for word in _WORDS},
        }
        notes = (self._right.note(), "" if tuple(self._outlet.mirrors) else NO_MIRROR)
        if any(notes):
            fields["feed_note"] = "; ".join(note for note in notes if note)
        if self.trouble:
            fields["feed_trouble"] = self.trouble
            fields["feed_hint"] = self.hint
        if self._refused:
            fields["feed_refusals"] = [
                f"{short(subject)}: {why}"
                for subject, why in list(self._refused.items())[:SHOWN_MAX]
            ]
        return fields

    def close(self) -> None:
        """Save what was taken back lately; a mark too many does no harm."""
        with suppress(StoreError):
            self._fed.save()

    # --- what changes ----------------------------------------------------------------------------

    def _want(self, subjects: Collection[bytes]) -> None:
        """Note subjects to publish; this node's own record is its own business (L14)."""
        own = self._outlet.identity.public
        for subject in subjects:
            self._expected.pop(subject, None)
        self._backlog.add(subject for subject in subjects if subject != own)

    async def follow(self) -> None:
        """Learn what changes: everything the first time."""
        with self._directory.subscribe() as changes:
            while True:
                self._want(await changes.take())

    async def publish(self) -> None:
        """Publish what waits, for ever; what fails waits on, tried ever less often."""
        while True:
            await self._backlog.some()
            await anyio.sleep(SETTLE_S)
            facts = self._batch()
            if not facts:
                await anyio.sleep(RETRY_FIRST_S)
            elif not await self._round(facts):
                await anyio.sleep(self._pause_s())

    def _pause_s(self) -> float:
        self._failures += 1
        return backoff_s(self._failures, RETRY_FIRST_S, RETRY_LONGEST_S, self._dice)

    async def _round(self, facts: Sequence[Fact]) -> bool:
        """Publish one batch; False where it came to nothing for all alike."""
        backlog = self._backlog
        try:
            self._mark(facts)
            await self._send(facts)
        except NotAuthorisedError as refused:
            self._fail(str(refused), self._right.how_to_get_one())
            return False
        except SkycoreError as trouble:
            self._fail(str(trouble), trouble.hint)
            return False
        else:
            if backlog.taken:
                backlog.rest(self._pause_s())
            else:
                self._failures = 0
            if backlog.is_well:
                self.trouble = self.hint = ""
            return True
        finally:
            backlog.put_back()

    def _mark(self, facts: Sequence[Fact]) -> None:
        """Before anything is published: whoever is new, and those who wait behind them as well."""
        listed = [fact.subject for fact in facts if fact.v is not None and fact.subject]
        if any(subject not in self._fed for subject in listed):
            self._fed.begin(
                [*listed, *(s for s in self._backlog.waiting() if s in self._directory)]
            )

    def _batch(self) -> list[Fact]:
        """Take facts for the oldest of what waits, as the directory has them now."""
        facts: list[Fact] = []
        size, held = 0, self._held_back()
        for subject in self._backlog.waiting():
            if len(facts) >= BATCH_SUBJECTS or size >= BATCH_BYTES:
                break
            if subject in held:
                continue
            self._backlog.take(subject)
            try:
                v = self._value(subject)
            except NamespaceError as bad:
                self._refuse(subject, str(bad))
                continue
            facts.append(Fact(self.salt, v, subject, self._doubts.take(subject)))
            size += len(v or b"")
        return facts

    def _value(self, subject: bytes) -> bytes | None:
        """Return what should be published of a subject. Raises `NamespaceError`."""
        listing = self._directory.of(subject)
        try:
            body = self._make_body(listing) if listing.entries else None
        except SkycoreError:
            raise
        except Exception as bug:  # one row that nobody foresaw must not end the part
            raise NamespaceError(f"it cannot be read ({type(bug).__name__}: {bug})") from bug
        if body is None:
            return None
        namespace = self._outlet.namespaces.find(self.salt)
        if namespace is None:
            raise NamespaceError(f"no plugin declares the salt {self.salt!r}")
        return namespace.encode(body)

    def _held_back(self) -> Collection[bytes]:
        """Return whose deletion waits: see `holding.py`."""
        gone = {s for s in self._backlog.waiting() if not self._directory.of(s).entries}
        return self._holding.held(gone, len(self._directory))

    # --- sending ---------------------------------------------------------------------------------

    async def _send(self, facts: Sequence[Fact]) -> None:
        """Publish facts; one that is refused before anything was sent is told from the others."""
        try:
            done = await self._outlet.publisher.publish_many(facts)
        except NotAuthorisedError:
            raise
        except ItemError as bad:
            if len(facts) == 1:
                self._refuse(facts[0].subject or b"", str(bad))
                return
            half = len(facts) // 2
            await self._send(facts[:half])
            await self._send(facts[half:])
            return
        for fact, each in zip(facts, done, strict=True):
            self._settle(fact, each)

    def _settle(self, fact: Fact, done: Published) -> None:
        subject = fact.subject or b""
        if not done.unchanged and not any(report.stored for report in done.reports):
            self.counters["failed"] += 1
            why = next((r.outcome.text for r in done.reports if r.outcome.text), "nobody took it")
            self._fail(why, "")
            return
        self._backlog.done(subject)
        if fact.v is None:
            self._fed.end(subject)
        self._refused.pop(subject, None)
        word = "unchanged" if done.unchanged else "deleted" if fact.v is None else "published"
        self.counters[word] += 1
        if not self._backlog.waits(subject):
            self._expected[subject] = digest_of(fact.v, self._gist)
        if any(r.outcome.code == NotClosestError.code for r in done.reports):
            self._elsewhere.add(subject)
        elif done.reports:
            self._elsewhere.discard(subject)

    def _refuse(self, subject: bytes, why: str) -> None:
        """Give a record up until it changes: no later try can end otherwise."""
        self.counters["refused"] += 1
        self._backlog.done(subject)
        if subject not in self._refused:
            log.warning("cannot be published name=%s pk=%s: %s", self.name, short(subject), why)
        self._refused[subject] = why[:200]

    def _fail(self, why: str, hint: str) -> None:
        if why != self.trouble:
            log.warning("not published name=%s waiting=%d: %s", self.name, self.waiting, why)
        self.trouble, self.hint = why, hint

    # --- comparing -------------------------------------------------------------------------------

    async def verify(self) -> None:
        """Compare what the directory lists with what stands published, and mend what differs.

        Raises `StoreError`. While the directory is not in step nothing is concluded from it.
        """
        if self._directory.trouble or not self._directory.is_loaded:
            return
        self._refresh()
        for mirror in tuple(self._outlet.mirrors):
            if isinstance(mirror, CopyingMirror):
                await mirror.copied()
        await self._published.look()
        if self._verified % EXPECTED_ANEW == 0:
            self._expected.clear()
        self._verified += 1
        different = await self._compare()
        stray = [s for s in different if s not in self._backlog and s not in self._refused]
        self.counters["repaired"] += len(stray)
        self._doubts.add(stray)
        self._want(stray)
        self.differences, self._different = len(different), different[:SHOWN_MAX]
        self._verified_at = self._outlet.clock.now()
        self._fed.save()

    def _refresh(self) -> None:
        """Hand everything to the publisher again: now and then, and when a mirror came up."""
        now = self._outlet.clock.now()
        reached = frozenset(mirror.name for mirror in self._outlet.mirrors)
        if reached <= self._reached and now - self._refreshed_at < REFRESH_S:
            return
        self._refreshed_at, self._reached = now, reached
        self._want([listing.subject for listing in tuple(self._directory)])

    async def _compare(self) -> list[bytes]:
        """Return the subjects whose published record is not what the directory lists."""
        now_s = self._outlet.clock.wall_s()
        listed = {listing.subject for listing in tuple(self._directory)}
        listed.discard(self._outlet.identity.public)
        self._refused = {s: why for s, why in self._refused.items() if s in listed}
        self._elsewhere &= listed
        self._expected = {s: what for s, what in self._expected.items() if s in listed}
        different = []
        ours = self._published.subjects(now_s)
        if not self._backlog:
            self._fed.trim(listed, ours)
        stale = {subject for subject in ours if subject not in listed and subject in self._fed}
        for number, subject in enumerate(sorted(listed | stale)):
            if number % BATCH_SUBJECTS == BATCH_SUBJECTS - 1:
                await anyio.lowlevel.checkpoint()
            if subject in self._elsewhere:
                continue
            # a mark outlives its listing until the deletion was taken, wherever a crash came
            if subject in stale or self._expect(subject) != self._published.digest(subject, now_s):
                different.append(subject)
        return different

    def _expect(self, subject: bytes) -> bytes:
        expected = self._expected.get(subject)
        if expected is None:
            try:
                expected = digest_of(self._value(subject), self._gist)
            except NamespaceError as bad:
                self._refused.setdefault(subject, str(bad)[:200])
                return b"refused"
            if not self._backlog.waits(subject) and self._directory.of(subject).entries:
                self._expected[subject] = expected
        return expected


@asynccontextmanager
async def open_feeding(
    directory: Directory,
    salt: bytes,
    make_body: MakeBody,
    outlet: Outlet,
    *,
    name: str,
    verify_s: float = 60.0,
    gist: Gist = whole,
) -> AsyncIterator[Feeding]:
    """Publish what a directory lists, for as long as the context lasts; compare every `verify_s`.

    `name` stands in log lines; `gist` is what counts of a value where services compare. Without a
    delegation of the network's authority for the salt all waits, and the status names the command.
    """
    feeding = Feeding(directory, salt, make_body, outlet, name, gist)

    def pause_s() -> float:
        return verify_s / LOOKS_WHILE_DIFFERENT if feeding.differences else verify_s

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feeding.follow)
        tasks.start_soon(feeding.publish)
        tasks.start_soon(lambda: every(pause_s, feeding.verify, name=f"{name} verify"))
        try:
            yield feeding
        finally:
            tasks.cancel_scope.cancel()
            feeding.close()

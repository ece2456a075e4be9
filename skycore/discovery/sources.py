"""Asking all sources of entries together: what each knows, and which of it to believe first.

Why together: one source that is slow, wrong or down must never hide what another knows (C21). Why
failures are handed back beside the answers: what could not be asked is not the same as what is not
there, and who shows a list has to say which of the two it is (L18).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import anyio
import msgspec

from skycore.contracts.discovery import EntrySource, Record, Records
from skycore.contracts.runtime import Clock
from skycore.errors import SkycoreError
from skycore.model.keys import short

__all__ = ["Found", "Listings", "MergedEntry", "find_all", "list_all", "merge_sets", "rank_records"]

T = TypeVar("T")
log = logging.getLogger(__name__)
WAIT_S: Final = 10.0
_OWN, _OTHER, _NONE = 2, 1, 0
"""Signed by the subject itself; by somebody who may; by nobody."""


class Found(NamedTuple):
    """What the sources know of one subject."""

    records: tuple[Record, ...]
    """The one to believe first; deleted, ended and overtaken ones stand last."""
    failed: Mapping[str, str]
    """Who could not be asked, and why."""

    @property
    def best(self) -> Record | None:
        """Return the first record if it may be used; None: nobody knows any."""
        if not self.records or self.records[0].body is None:
            return None
        return self.records[0]


class Listings(NamedTuple):
    """What the sources know under one salt."""

    by_source: Mapping[str, Records]
    failed: Mapping[str, str]
    """Who could not be asked, and why."""

    @property
    def is_partial(self) -> bool:
        """Whether somebody failed, or does not know everything."""
        return bool(self.failed) or not all(r.complete for r in self.by_source.values())


class MergedEntry(msgspec.Struct, frozen=True):
    """An entry of a set, and who lists it."""

    key: bytes
    body: Any
    """As its best record has it."""
    subjects: tuple[bytes, ...]
    """Who lists it, in order: both edges of a transport that is there."""
    sources: tuple[str, ...]
    """Through whom that is known, in order."""
    signers: tuple[bytes, ...]
    """By whose verified signatures, in order; empty: without proof."""
    as_of_ns: int
    """When the newest of these records was said."""


def rank_records(records: Iterable[Record], now_s: int) -> tuple[Record, ...]:
    """Return records of one subject in order of belief.

    Live ones before others; then the subject's own signature before another's, and that before
    none; then the freshest. A live record is overtaken by a later one (a deletion, too) under the
    same signature: its source is merely behind.
    """
    held = list(records)
    newest: dict[bytes, int] = {}
    for record in held:
        if record.signer is not None:
            newest[record.signer] = max(record.as_of_ns, newest.get(record.signer, 0))

    def is_live(record: Record) -> bool:
        if record.body is None or record.until_s <= now_s:
            return False
        return record.signer is None or record.as_of_ns == newest[record.signer]

    def order(record: Record) -> tuple[bool, int, int, int]:
        return is_live(record), _proof(record), record.as_of_ns, record.until_s

    ranked = sorted(held, key=order, reverse=True)
    return tuple(
        record
        if is_live(record) or record.body is None
        else msgspec.structs.replace(record, body=None)
        for record in ranked
    )


def _proof(record: Record) -> int:
    if record.signer is None:
        return _NONE
    return _OWN if record.signer == record.subject else _OTHER


async def find_all(
    sources: Iterable[EntrySource],
    salt: bytes,
    subject: bytes,
    clock: Clock,
    *,
    wait_s: float = WAIT_S,
) -> Found:
    """Ask every source that knows the salt, all at once, each for `wait_s` seconds at most.

    Raises nothing: who failed stands in the answer. What comes last in `records` with no body is
    known to be deleted, ended or overtaken.
    """

    async def ask(source: EntrySource) -> Record | None:
        return await source.find(salt, subject)

    answers, failed = await _asked(sources, salt, ask, wait_s)
    mine = [r for r in answers.values() if r is not None and _is_asked_for(r, salt, subject)]
    return Found(rank_records(mine, clock.wall_s()), failed)


def _is_asked_for(record: Record, salt: bytes, subject: bytes) -> bool:
    if (record.salt, record.subject) == (salt, subject):
        return True
    log.warning(
        "a source answered of somebody else source=%s wanted=%s", record.source, short(subject)
    )
    return False


async def list_all(
    sources: Iterable[EntrySource], salt: bytes, *, wait_s: float = WAIT_S
) -> Listings:
    """Ask every source that knows the salt for all records, all at once. Raises nothing."""

    async def ask(source: EntrySource) -> Records:
        return await source.records(salt)

    answers, failed = await _asked(sources, salt, ask, wait_s)
    return Listings(answers, failed)


async def _asked(
    sources: Iterable[EntrySource],
    salt: bytes,
    ask: Callable[[EntrySource], Awaitable[T]],
    wait_s: float,
) -> tuple[dict[str, T], dict[str, str]]:
    """Return answers and failures by source, both in the order of the sources."""
    asked = [s for s in sources if s.salts is None or salt in s.salts]
    answers: dict[str, T] = {}
    failed: dict[str, str] = {}

    async def one(source: EntrySource) -> None:
        try:
            with anyio.move_on_after(wait_s) as limit:
                answers[source.name] = await ask(source)
            if limit.cancelled_caught:
                failed[source.name] = f"no answer within {wait_s:g} s"
        except SkycoreError as trouble:
            failed[source.name] = str(trouble)
        except Exception as bug:  # a source's own bug hides no other source
            log.exception("a source failed name=%s", source.name)
            failed[source.name] = f"internal error ({type(bug).__name__}); see the log"

    async with anyio.create_task_group() as tasks:
        for source in asked:
            tasks.start_soon(one, source)
    names = [source.name for source in asked]
    return (
        {name: answers[name] for name in names if name in answers},
        {name: failed[name] for name in names if name in failed},
    )


def merge_sets(
    records: Iterable[Record], key: Callable[[Any], bytes], now_s: int
) -> Sequence[MergedEntry]:
    """Return the union of the entries that sets hold, in order of their keys, each once.

    `records` are those of one salt, of any subjects and sources. Of a subject that several sources
    know, all that is live counts: a source that is behind adds what it lists, marked as its own
    word. An entry's body is that of the best record that has it.
    """
    by_subject: dict[bytes, list[Record]] = {}
    for record in records:
        by_subject.setdefault(record.subject, []).append(record)
    listed: dict[bytes, list[tuple[Record, Any]]] = {}
    for subject in sorted(by_subject):
        for record in rank_records(by_subject[subject], now_s):
            for entry in record.body or ():
                listed.setdefault(key(entry), []).append((record, entry))
    return [_merged(name, listed[name]) for name in sorted(listed)]


def _merged(name: bytes, rows: Sequence[tuple[Record, Any]]) -> MergedEntry:
    records = [record for record, _ in rows]
    _, body = max(rows, key=lambda row: (_proof(row[0]), row[0].as_of_ns))
    return MergedEntry(
        name,
        body,
        tuple(sorted({r.subject for r in records})),
        tuple(sorted({r.source for r in records})),
        tuple(sorted({r.signer for r in records if r.signer is not None})),
        max(r.as_of_ns for r in records),
    )

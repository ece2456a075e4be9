"""Two sources side by side, subject by subject: which of them says what, and since when.

Why in terms of content: of one network the DHT and the HTTP services hold the same facts under
other signatures and at other moments, and the question is whether a reader is told the same (L23,
C46). Why a second look at what differs: a change takes a moment from one side to the other, and a
difference that is over when it is looked at again was none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import anyio
import msgspec

from skycore.contracts.discovery import EntrySource, Record, Records
from skycore.contracts.namespace import Form, Namespace, Namespaces
from skycore.errors import DiscoveryError, NamespaceError, SkycoreError
from skycore.model.entries import DmsgEntry, DmsgServerEntry

__all__ = ["Compared", "Divergence", "Progress", "canonical", "compare"]

AGAIN_S: Final = 5.0
AGAIN_MAX: Final = 1_000
"""Subjects that are looked at a second time; with more of them no moment explains it."""
LISTED_MAX: Final = 1_000
AT_ONCE: Final = 16
VOLATILE: Final = ("latency", "info")
"""Fields of entries that change by themselves: they are not published, and not compared."""


Progress = Callable[[int, int], None]
"""Told how many subjects are done, of how many."""


class Divergence(msgspec.Struct, frozen=True):
    """A subject of which the two sources say something else."""

    salt: bytes
    subject: bytes
    what: str
    """"missing" (here), "extra" (here only), "different"."""
    here: Record | None
    there: Record | None
    only_here: int = 0
    """Of sets: entries that only this side has, or has otherwise."""
    only_there: int = 0


class Compared(msgspec.Struct, frozen=True):
    """What came of a comparison under one salt."""

    salt: bytes
    same: int
    different: int
    divergences: tuple[Divergence, ...]
    """The first thousand, by subject."""
    complete: bool
    """Whether both sides are known to have told everything."""
    notes: tuple[str, ...] = ()
    """Why not, and what else a person should know."""


def canonical(namespaces: Namespaces, salt: bytes, body: Any) -> bytes:
    """Return the bytes by which bodies are compared: the salt's one encoding, nothing volatile.

    Raises `NamespaceError` for what the salt cannot hold.
    """
    namespace = namespaces.find(salt)
    if namespace is None:
        return body if isinstance(body, bytes) else msgspec.msgpack.encode(body)
    entries = body if namespace.form is Form.SET else (body,)
    if not all(isinstance(entry, namespace.schema) for entry in entries):
        raise NamespaceError("a body of another kind")
    steady = [_steady(entry) for entry in entries]
    return namespace.encode(steady if namespace.form is Form.SET else steady[0])


def _steady(entry: Any) -> Any:
    """Return an entry without what changes by itself, or is a service's own word about it."""
    if isinstance(entry, DmsgEntry):
        return _steady_dmsg(entry)
    if isinstance(entry, DmsgServerEntry):
        return msgspec.structs.replace(entry, server_type="", max_sessions=0)
    if not isinstance(entry, msgspec.Struct):
        return entry
    fields = {field.name: field.default for field in msgspec.structs.fields(entry)}
    changing = {name: fields[name] for name in VOLATILE if name in fields}
    return msgspec.structs.replace(entry, **changing) if changing else entry


def _steady_dmsg(entry: DmsgEntry) -> DmsgEntry:
    """A key signs its entry anew every few minutes: what it says counts, not when."""
    server, client = entry.server, entry.client
    if server is not None:
        server = msgspec.structs.replace(server, available_sessions=0, server_type="")
    if client is not None:
        servers = tuple(sorted(client.delegated_servers))
        client = msgspec.structs.replace(client, delegated_servers=servers)
    return msgspec.structs.replace(
        entry, sequence=0, timestamp=0, signature="", server=server, client=client
    )


async def compare(
    here: EntrySource,
    there: EntrySource,
    salt: bytes,
    namespaces: Namespaces,
    *,
    progress: Progress | None = None,
    again_s: float = AGAIN_S,
) -> Compared:
    """Compare all that two sources know under a salt. Raises a SkycoreError where one cannot say.

    A side that does not hold everything itself is asked for each subject of the other's list; what
    it holds besides is then unknown, and `complete` says so.
    """
    first: dict[str, Records] = {}

    async def ask(source: EntrySource, side: str) -> None:
        first[side] = await source.records(salt)

    await _together([lambda: ask(here, "here"), lambda: ask(there, "there")])
    ours, theirs = _by_subject(first["here"]), _by_subject(first["there"])
    if not first["here"].complete:
        ours = await _each(here, salt, theirs, progress)
    elif not first["there"].complete:
        theirs = await _each(there, salt, ours, progress)
    subjects = sorted(s for s in ours.keys() | theirs.keys() if _says(ours, s) or _says(theirs, s))
    found = _differing(namespaces, salt, subjects, ours, theirs)
    if found and len(found) <= AGAIN_MAX:
        await anyio.sleep(again_s)
        wanted = {one.subject: None for one in found}
        ours |= await _each(here, salt, wanted, None)
        theirs |= await _each(there, salt, wanted, None)
        found = _differing(namespaces, salt, sorted(wanted), ours, theirs)
    if progress is not None:
        progress(len(subjects), len(subjects))
    notes = tuple(f"{one.source}: {one.note}" for one in first.values() if one.note)
    return Compared(
        salt,
        len(subjects) - len(found),
        len(found),
        tuple(found[:LISTED_MAX]),
        all(one.complete for one in first.values()),
        notes,
    )


async def _together(calls: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Await calls at one time; the first trouble is raised bare, once all ended."""
    troubles: list[SkycoreError] = []

    async def one(call: Callable[[], Awaitable[None]]) -> None:
        try:
            await call()
        except SkycoreError as trouble:
            troubles.append(trouble)

    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(one, call)
    if troubles:
        raise troubles[0]


def _by_subject(listed: Records) -> dict[bytes, Record | None]:
    return {record.subject: record for record in listed.records}


async def _each(
    source: EntrySource,
    salt: bytes,
    subjects: Mapping[bytes, object],
    progress: Progress | None,
) -> dict[bytes, Record | None]:
    """Look subjects up, some at a time. Raises as `find`."""
    found: dict[bytes, Record | None] = {}
    turns = anyio.Semaphore(AT_ONCE)

    async def look(subject: bytes) -> None:
        async with turns:
            found[subject] = await source.find(salt, subject)
            if progress is not None and len(found) % AT_ONCE == 0:
                progress(len(found), len(subjects))

    await _together([_call(look, subject) for subject in subjects])
    return found


def _call(
    look: Callable[[bytes], Awaitable[None]], subject: bytes
) -> Callable[[], Awaitable[None]]:
    return lambda: look(subject)


# --- what differs --------------------------------------------------------------------------------


def _differing(
    namespaces: Namespaces,
    salt: bytes,
    subjects: Sequence[bytes],
    ours: Mapping[bytes, Record | None],
    theirs: Mapping[bytes, Record | None],
) -> list[Divergence]:
    namespace = namespaces.find(salt)
    found = []
    for subject in subjects:
        here, there = _says(ours, subject), _says(theirs, subject)
        if here is None and there is None:
            continue
        if here is None or there is None:
            what = "missing" if here is None else "extra"
            counts = (_count(here), _count(there))
        elif _bytes_of(namespaces, here) == _bytes_of(namespaces, there):
            continue
        else:
            what, counts = "different", _only(namespace, here, there)
        found.append(Divergence(salt, subject, what, here, there, *counts))
    return found


def _says(side: Mapping[bytes, Record | None], subject: bytes) -> Record | None:
    """Return what a side says of a subject; an empty set says as much as no record."""
    record = side.get(subject)
    if record is None or record.body is None or record.body == ():
        return None
    return record


def _bytes_of(namespaces: Namespaces, record: Record) -> bytes:
    try:
        return canonical(namespaces, record.salt, record.body)
    except NamespaceError as bad:
        raise DiscoveryError(
            f"{record.source} tells what cannot be under {record.salt!r}: {bad}"
        ) from bad


def _count(record: Record | None) -> int:
    return len(record.body) if record is not None and isinstance(record.body, tuple) else 0


def _only(namespace: Namespace | None, here: Record, there: Record) -> tuple[int, int]:
    if namespace is None or namespace.form is not Form.SET:
        return 0, 0
    ours, theirs = ({namespace.encode([_steady(e)]) for e in one.body} for one in (here, there))
    return len(ours - theirs), len(theirs - ours)

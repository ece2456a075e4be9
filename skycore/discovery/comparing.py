"""Two sources side by side, subject by subject: which of them says what, and since when.

Why in terms of content: of one network the DHT and the HTTP services hold the same facts under
other signatures and at other moments, and the question is whether a reader is told the same (L23,
C46). Why what differs is watched for a while: a change takes a moment from one side to the other,
so what differs while one of them changes is no difference yet. What stays as it is for as long as
any change takes is one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any, Final, TypeAlias

import anyio
import msgspec

from skycore.contracts.discovery import EntrySource, Record, Records
from skycore.contracts.namespace import Form, Namespace, Namespaces
from skycore.errors import DiscoveryError, NamespaceError, SkycoreError
from skycore.model.entries import AddressBind, AddressEntry, DmsgEntry, DmsgServerEntry

__all__ = ["WITHIN_S", "Compared", "Divergence", "Progress", "canonical", "compare"]

WITHIN_S: Final = 30.0
"""How long a change may take to the other side: two rounds of 5 s in which a visor collects what
changes for one side, while the other has it at once; a retry; the service's way into the DHT."""
CHANGING_FACTOR: Final = 4.0
PAUSE_S_MIN: Final = 0.1
PAUSE_S: Final = 1.0
PAUSE_GROWTH: Final = 1.5
PAUSE_S_MAX: Final = 5.0
PAUSE_OF_LOOK: Final = 4.0
"""Between two looks, in times of what the last one took."""
AGAIN_MAX: Final = 1_000
"""Subjects that are looked at again; with more of them no moment explains it."""
LISTED_MAX: Final = 1_000
AT_ONCE: Final = 16
DIGEST_BYTES: Final = 64
VOLATILE: Final = ("latency", "info")
"""Fields of entries that change by themselves: they are not published, and not compared."""


Progress = Callable[[int, int], None]
"""Told how many subjects are done, of how many."""
Said: TypeAlias = dict[bytes, Record | None]
"""What a side says, by subject."""
_NO_TURN: Final[AbstractAsyncContextManager[object]] = nullcontext()


class Divergence(msgspec.Struct, frozen=True):
    """A subject of which the two sources say something else."""

    salt: bytes
    subject: bytes
    what: str
    """"missing" (here), "extra" (here only), "different"; "changing": one of these, and never the
    same for as long as a change may take."""
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
    """On which both stood for as long as a change may take."""
    divergences: tuple[Divergence, ...]
    """The first thousand, by subject; those that are changing, too."""
    complete: bool
    """Whether both sides are known to have told everything."""
    notes: tuple[str, ...] = ()
    """Why not, and what else a person should know."""
    changing: int = 0
    """Neither the same nor different: they changed all the while."""

    @property
    def is_equal(self) -> bool:
        """Whether everything that was compared is the same."""
        return not self.different and not self.changing


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
    if isinstance(entry, AddressEntry):
        return _steady_address(entry)
    if isinstance(entry, DmsgServerEntry):
        return msgspec.structs.replace(entry, server_type="", max_sessions=0)
    if not isinstance(entry, msgspec.Struct):
        return entry
    fields = {field.name: field.default for field in msgspec.structs.fields(entry)}
    changing = {name: fields[name] for name in VOLATILE if name in fields}
    return msgspec.structs.replace(entry, **changing) if changing else entry


def _steady_address(entry: AddressEntry) -> AddressEntry:
    """Whether both are behind one router is a resolver's word to who asks, not to everybody."""

    def steady(bind: AddressBind | None) -> AddressBind | None:
        return None if bind is None else msgspec.structs.replace(bind, is_local=False)

    return msgspec.structs.replace(
        entry, is_local=False, stcpr=steady(entry.stcpr), sudph=steady(entry.sudph)
    )


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
    within_s: float = WITHIN_S,
    turn: AbstractAsyncContextManager[object] | None = None,
) -> Compared:
    """Compare all that two sources know under a salt. Raises a SkycoreError where one cannot say.

    `within_s` is how long a change may take from one side to the other. A side that does not hold
    everything itself is asked for each subject that the other one lists; what it holds besides is
    then unknown, and `complete` says so. `turn`, if there is one, is held while sources are asked,
    and not between two looks.
    """
    comparison = _Comparison((here, there), salt, namespaces, progress, turn or _NO_TURN)
    await comparison.look()
    if comparison.open and len(comparison.open) <= AGAIN_MAX:
        await comparison.watch(within_s)
    return comparison.result()


class _Open(msgspec.Struct):
    """A subject on which the sides do not agree, as they were seen last."""

    said: tuple[bytes | None, bytes | None]
    since: float
    """When both were first seen to say this."""
    found: Divergence


class _Comparison:
    """One salt: a first look at everything, then looks at what is open."""

    def __init__(
        self,
        sources: tuple[EntrySource, EntrySource],
        salt: bytes,
        namespaces: Namespaces,
        progress: Progress | None,
        turn: AbstractAsyncContextManager[object],
    ) -> None:
        self._sources, self._salt, self._namespaces = sources, salt, namespaces
        self._progress, self._turn = progress, turn
        self.open: dict[bytes, _Open] = {}
        self._stands: list[Divergence] = []
        self._changing: list[Divergence] = []
        self._count = 0
        self._partial: list[bool] = [False, False]
        self._notes: dict[str, None] = {}

    async def look(self) -> None:
        """Look at everything."""
        async with self._turn:
            sides = await self._listed((0, 1))
            for side, other in ((0, 1), (1, 0)):
                if self._partial[side]:
                    more = [s for s in sides[other] if s not in sides[side]]
                    told = await _each(self._sources[side], self._salt, more, self._progress)
                    sides[side].update(told)
        subjects = sorted(
            s for s in sides[0].keys() | sides[1].keys() if any(_says(side, s) for side in sides)
        )
        self._count = len(subjects)
        self._settle(subjects, sides)
        if self._progress is not None:
            self._progress(self._count - len(self.open), self._count)

    async def watch(self, within_s: float) -> None:
        """Look at what is open until it agrees, or has stood as it is for `within_s`.

        What goes on changing is given up after four times that. The pauses grow, and are longer
        where a look takes long: to compare must not be the sources' main work.
        """
        began, pause_s = anyio.current_time(), PAUSE_S
        while self.open:
            now = anyio.current_time()
            due_s = min(one.since for one in self.open.values()) + within_s - now
            await anyio.sleep(max(PAUSE_S_MIN, min(pause_s, due_s)))
            asked_at = anyio.current_time()
            wanted = sorted(self.open)
            async with self._turn:
                sides = await self._again(wanted)
            now = anyio.current_time()
            pause_s = max(
                min(pause_s * PAUSE_GROWTH, PAUSE_S_MAX), PAUSE_OF_LOOK * (now - asked_at)
            )
            self._settle(wanted, sides)
            self._close(asked_at - within_s, is_last=now - began >= CHANGING_FACTOR * within_s)
            if self._progress is not None:
                self._progress(self._count - len(self.open), self._count)

    def _close(self, before: float, *, is_last: bool) -> None:
        for subject, one in list(self.open.items()):
            if one.since <= before:
                self._stands.append(one.found)
            elif is_last:
                self._changing.append(msgspec.structs.replace(one.found, what="changing"))
            else:
                continue
            del self.open[subject]

    def result(self) -> Compared:
        """Return what came of it."""
        stands = [*self._stands, *(one.found for one in self.open.values())]
        unlike = sorted([*stands, *self._changing], key=lambda one: one.subject)
        return Compared(
            self._salt,
            self._count - len(unlike),
            len(stands),
            tuple(unlike[:LISTED_MAX]),
            not any(self._partial),
            tuple(self._notes),
            len(self._changing),
        )

    # --- what the sources say ------------------------------------------------------------------

    async def _listed(self, which: Sequence[int]) -> tuple[Said, Said]:
        """Return the lists of some sides, nothing of the others."""
        told: dict[int, Records] = {}

        async def ask(side: int) -> None:
            told[side] = await self._sources[side].records(self._salt)

        await _together([partial(ask, side) for side in which])
        sides: tuple[Said, Said] = ({}, {})
        for side, records in sorted(told.items()):
            sides[side].update((record.subject, record) for record in records.records)
            self._partial[side] |= not records.complete
            if records.note:
                self._notes[f"{records.source}: {records.note}"] = None
        return sides

    async def _again(self, wanted: Sequence[bytes]) -> tuple[Said, Said]:
        """Return what both say now: by its list where that is the truth about a side.

        A local source that is asked for one subject may ask other nodes, which is another question.
        """
        lists = [
            side
            for side, source in enumerate(self._sources)
            if not self._partial[side] and (source.is_local or len(wanted) > AT_ONCE)
        ]
        sides = await self._listed(lists)
        for side, source in enumerate(self._sources):
            if side not in lists or self._partial[side]:
                sides[side].update(await _each(source, self._salt, wanted, None))
        return sides

    def _settle(self, subjects: Iterable[bytes], sides: tuple[Said, Said]) -> None:
        """Note which subjects are open, and since when each is as it is."""
        now = anyio.current_time()
        for subject in subjects:
            pair = _says(sides[0], subject), _says(sides[1], subject)
            said = self._bytes_of(pair[0]), self._bytes_of(pair[1])
            before = self.open.pop(subject, None)
            if said[0] == said[1]:
                continue
            since = before.since if before is not None and before.said == said else now
            found = _divergence(self._namespaces, self._salt, subject, *pair)
            self.open[subject] = _Open(said, since, found)

    def _bytes_of(self, record: Record | None) -> bytes | None:
        """Return what a side says as bytes, a long one as its digest. Raises `DiscoveryError`."""
        if record is None:
            return None
        try:
            said = canonical(self._namespaces, record.salt, record.body)
        except NamespaceError as bad:
            raise DiscoveryError(
                f"{record.source} tells what cannot be under {record.salt!r}: {bad}"
            ) from bad
        return said if len(said) <= DIGEST_BYTES else hashlib.sha256(said).digest()


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


async def _each(
    source: EntrySource,
    salt: bytes,
    subjects: Collection[bytes],
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

    await _together([partial(look, subject) for subject in subjects])
    return found


# --- what differs --------------------------------------------------------------------------------


def _divergence(
    namespaces: Namespaces, salt: bytes, subject: bytes, here: Record | None, there: Record | None
) -> Divergence:
    if here is None or there is None:
        what = "missing" if here is None else "extra"
        return Divergence(salt, subject, what, here, there, _count(here), _count(there))
    only = _only(namespaces.find(salt), here, there)
    return Divergence(salt, subject, "different", here, there, *only)


def _says(side: Said, subject: bytes) -> Record | None:
    """Return what a side says of a subject; an empty set says as much as no record."""
    record = side.get(subject)
    if record is None or record.body is None or record.body == ():
        return None
    return record


def _count(record: Record | None) -> int:
    return len(record.body) if record is not None and isinstance(record.body, tuple) else 0


def _only(namespace: Namespace | None, here: Record, there: Record) -> tuple[int, int]:
    if namespace is None or namespace.form is not Form.SET:
        return 0, 0
    ours, theirs = ({namespace.encode([_steady(e)]) for e in one.body} for one in (here, there))
    return len(ours - theirs), len(theirs - ours)

"""Recordings of a real network, as facts to publish.

A recording is what public discovery services listed at a few moments: JSON, or the same in gzip.
Why bounds before anything else: the file is a stranger's, and gzip can promise a thousand bytes for
each one it holds. An empty list in a snapshot means "not recorded", never "there are none": it
yields nothing, so an import deletes nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from skycore.errors import RecordingError
from skycore.model.entries import DmsgEntry, ServiceEntry, TransportEntry
from skycore.model.limits import SUBJECT_MAX

__all__ = [
    "RecordedFact",
    "RecordedServer",
    "Recording",
    "Snapshot",
    "Step",
    "facts",
    "latest_facts",
    "read_recording",
    "step",
]

RECORDING_MAX = 64 * 1024 * 1024
"""Bytes of JSON."""
PACKED_MAX = 16 * 1024 * 1024
RATIO_MAX = 50
"""Bytes of JSON for each byte of gzip."""
SNAPSHOTS_MAX = 1_000
ROWS_MAX = 200_000
_GZIP = b"\x1f\x8b"

_Key = Annotated[str, Meta(min_length=2, max_length=2 * SUBJECT_MAX, pattern="^([0-9a-f]{2})+$")]
_Rows = Meta(max_length=ROWS_MAX)


class RecordedServer(msgspec.Struct, frozen=True):
    """A DMSG server, listed beside the snapshots."""

    static: _Key
    address: Annotated[str, Meta(max_length=300)]


class Snapshot(msgspec.Struct, frozen=True):
    """What was listed at one moment."""

    taken: Annotated[str, Meta(max_length=64)] = ""
    """ISO 8601."""
    services: Annotated[tuple[ServiceEntry, ...], _Rows] = ()
    dmsg_clients: Annotated[tuple[_Key, ...], _Rows] = ()
    transports: Annotated[tuple[TransportEntry, ...], _Rows] = ()
    sudph: Annotated[tuple[_Key, ...], _Rows] = ()
    """Visors that an address resolver knew; their addresses are not public."""
    stcpr: Annotated[tuple[_Key, ...], _Rows] = ()


class Recording(msgspec.Struct, frozen=True):
    """A recording: where it comes from, and its snapshots in order of time."""

    snapshots: Annotated[tuple[Snapshot, ...], Meta(max_length=SNAPSHOTS_MAX)]
    source: Annotated[str, Meta(max_length=2_000)] = ""
    dmsg_servers: Annotated[tuple[RecordedServer, ...], _Rows] = ()


class RecordedFact(NamedTuple):
    """A record of one subject; `entries` is the body of a value of the salt's namespace."""

    salt: bytes
    subject: bytes
    entries: Any
    """`DmsgEntry` for `dmsg`; a list of `ServiceEntry` or `TransportEntry` for `svc` and `tp`."""


class Step(NamedTuple):
    """What leads from the records that are held to those that a recording lists."""

    put: list[RecordedFact]
    """All that it lists: what is held already lives longer by being published again."""
    gone: list[tuple[bytes, bytes]]
    """Salt and subject of what is held and no longer listed, in order."""


_DECODER = msgspec.json.Decoder(Recording)


def read_recording(data: bytes) -> Recording:
    """Read JSON or gzip. Raises `RecordingError`."""
    text = _unpacked(data) if data[:2] == _GZIP else data
    if len(text) > RECORDING_MAX:
        raise RecordingError(f"a recording has {RECORDING_MAX} bytes at most")
    try:
        return _DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as bad:
        raise RecordingError(
            f"this is no recording: {bad}",
            hint='a recording is {"snapshots": [{"taken": ..., "services": [...], ...}]}',
        ) from bad


def _unpacked(data: bytes) -> bytes:
    if len(data) > PACKED_MAX:
        raise RecordingError(f"a packed recording has {PACKED_MAX} bytes at most")
    allowed = min(RECORDING_MAX, RATIO_MAX * len(data))
    reader = zlib.decompressobj(wbits=31)
    try:
        text = reader.decompress(data, allowed + 1)
    except zlib.error as bad:
        raise RecordingError(f"this gzip file is damaged: {bad}") from bad
    if len(text) > allowed:
        raise RecordingError(f"this gzip file unpacks to more than {allowed} bytes")
    if not reader.eof:
        raise RecordingError("this gzip file is cut short")
    return text


def facts(recording: Recording, snapshot_index: int) -> list[RecordedFact]:
    """Return the records of a snapshot, sorted by salt and subject. Raises `RecordingError`.

    Services are grouped by visor; a transport is listed under both of its edges.
    """
    if not 0 <= snapshot_index < len(recording.snapshots):
        raise RecordingError(
            f"there is no snapshot {snapshot_index}",
            hint=f"this recording has {len(recording.snapshots)}, counted from 0",
        )
    return _facts(recording.snapshots[snapshot_index])


def latest_facts(recording: Recording) -> list[RecordedFact]:
    """Return what is known after the last snapshot: of each list, the newest that is not empty."""
    known = Snapshot()
    for snapshot in recording.snapshots:
        known = Snapshot(
            services=snapshot.services or known.services,
            dmsg_clients=snapshot.dmsg_clients or known.dmsg_clients,
            transports=snapshot.transports or known.transports,
        )
    return _facts(known)


def step(held: Iterable[tuple[bytes, bytes]], listed: Sequence[RecordedFact]) -> Step:
    """Return what to publish and what to delete, so that what is held becomes what is listed.

    `held` is salt and subject of each record. A salt of which nothing is listed was not recorded,
    so nothing of it is gone: an empty list must never delete a network (L6).
    """
    wanted = {(fact.salt, fact.subject) for fact in listed}
    recorded = {salt for salt, _ in wanted}
    return Step(list(listed), sorted({k for k in held if k[0] in recorded} - wanted))


def _facts(snapshot: Snapshot) -> list[RecordedFact]:
    found = [
        RecordedFact(b"dmsg", bytes.fromhex(key), DmsgEntry(static=key))
        for key in dict.fromkeys(snapshot.dmsg_clients)
    ]
    by_visor = ((service.address.partition(":")[0], service) for service in snapshot.services)
    found += _grouped(b"svc", by_visor)
    by_edge = ((e, transport) for transport in snapshot.transports for e in transport.edges)
    found += _grouped(b"tp", by_edge)
    return sorted(found, key=lambda fact: (fact.salt, fact.subject))


def _grouped(
    salt: bytes, pairs: Iterable[tuple[str, ServiceEntry | TransportEntry]]
) -> list[RecordedFact]:
    groups: dict[bytes, dict[bytes, Any]] = {}
    for key, entry in pairs:
        groups.setdefault(_subject(key), {})[entry.set_key] = entry
    return [RecordedFact(salt, subject, list(rows.values())) for subject, rows in groups.items()]


def _subject(key: str) -> bytes:
    try:
        subject = bytes.fromhex(key)
    except ValueError:
        subject = b""
    if not 1 <= len(subject) <= SUBJECT_MAX or subject.hex() != key:
        raise RecordingError(f"{key[:80]!r} is no key: lower-case hex is expected")
    return subject

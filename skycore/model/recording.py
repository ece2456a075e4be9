"""Recordings of discovery services, as facts to publish. Pure: bytes in, facts out.

A recording is JSON (or gzip of it): snapshots, each with lists of services, DMSG clients and
transports. Why an empty list means "not recorded": a recorder that could not reach a service wrote
an empty list, and deleting a network because of that is the one thing an import must never do.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from skycore.errors import ConfigError

__all__ = ["Recorded", "Recording", "Snapshot", "facts_of", "latest_facts", "read_recording"]

JSON_MAX = 256 * 1024 * 1024
RATIO_MAX = 100
GZIP_MAGIC = b"\x1f\x8b"
LIST_MAX = 1_000_000
HINT = "a recording has snapshots with lists of services, dmsg_clients and transports"

Key = Annotated[str, Meta(pattern="^([0-9a-f]{2}){1,64}$")]
Rows = Annotated[list[dict[str, Any]], Meta(max_length=LIST_MAX)]
Keys = Annotated[list[Key], Meta(max_length=LIST_MAX)]


class Snapshot(msgspec.Struct, frozen=True):
    """What the services said at one time."""

    services: Rows = []
    dmsg_clients: Keys = []
    transports: Rows = []
    taken: str = ""


class Recording(msgspec.Struct, frozen=True):
    """Snapshots, oldest first."""

    snapshots: Annotated[list[Snapshot], Meta(min_length=1, max_length=10_000)]
    source: str = ""


class Recorded(msgspec.Struct, frozen=True):
    """One record to publish; `body` is plain data for the namespace of `salt`."""

    salt: bytes
    subject: bytes
    body: Any


def read_recording(data: bytes) -> Recording:
    """Read a recording. Raises `ConfigError`: not gzip, not JSON, of another shape, too large."""
    if data.startswith(GZIP_MAGIC):
        data = _inflated(data)
    try:
        try:
            return msgspec.json.decode(data, type=Recording)
        except msgspec.ValidationError:
            alone = msgspec.json.decode(data, type=Snapshot)
            if not (alone.services or alone.dmsg_clients or alone.transports):
                raise
            return Recording([alone])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as bad:
        raise ConfigError(f"this is no recording: {bad}", hint=HINT) from bad


def _inflated(data: bytes) -> bytes:
    limit = min(JSON_MAX, len(data) * RATIO_MAX)
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(data, limit)
    except zlib.error as bad:
        raise ConfigError(f"this is no gzip file: {bad}", hint=HINT) from bad
    if unpacker.unconsumed_tail:
        raise ConfigError(f"the recording unpacks to more than {limit} bytes")
    if not unpacker.eof:
        raise ConfigError("the gzip file is cut short", hint="copy it again")
    return plain


def facts_of(snapshot: Snapshot) -> Sequence[Recorded]:
    """Return the records of one snapshot: a list that is empty was not recorded.

    Services are grouped by their visor (salt svc), DMSG clients are `{static}` (dmsg), and a
    transport stands under both of its edges (tp). Raises `ConfigError` for a row without its keys.
    """
    services = ((_visor(row), row) for row in snapshot.services)
    edges = ((edge, row) for row in snapshot.transports for edge in _edges(row))
    return [
        *_grouped(b"svc", services),
        *(Recorded(b"dmsg", bytes.fromhex(k), {"static": k}) for k in snapshot.dmsg_clients),
        *_grouped(b"tp", edges),
    ]


def latest_facts(recording: Recording) -> Sequence[Recorded]:
    """Return what is known after the last snapshot: of each list, the newest that is not empty."""
    known = Snapshot()
    for snapshot in recording.snapshots:
        known = Snapshot(
            snapshot.services or known.services,
            snapshot.dmsg_clients or known.dmsg_clients,
            snapshot.transports or known.transports,
            snapshot.taken,
        )
    return facts_of(known)


def _grouped(salt: bytes, rows: Iterable[tuple[str, dict[str, Any]]]) -> Sequence[Recorded]:
    by_subject: dict[str, list[dict[str, Any]]] = {}
    for subject, row in rows:
        entries = by_subject.setdefault(subject, [])
        if row not in entries:
            entries.append(row)
    return [Recorded(salt, bytes.fromhex(key), entries) for key, entries in by_subject.items()]


def _key(text: Any, what: str) -> str:
    try:
        return msgspec.convert(text, Key)
    except msgspec.ValidationError as bad:
        raise ConfigError(f"{what} names no key: {str(text)[:80]!r}", hint=HINT) from bad


def _visor(row: dict[str, Any]) -> str:
    return _key(str(row.get("address", "")).partition(":")[0], "a service's address")


def _edges(row: dict[str, Any]) -> Sequence[str]:
    edges = row.get("edges")
    if not isinstance(edges, list) or len(edges) != 2:
        raise ConfigError("a transport without two edges", hint=HINT)
    return list(dict.fromkeys(_key(edge, "a transport's edge") for edge in edges))

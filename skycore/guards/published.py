"""What was published, remembered over restarts.

Why on disk: a node that forgets what it signed signs and sends everything again at each restart,
though nothing changed (C27). What was read from disk is believed only after a lease for it was
taken: somebody must still hold the item. A damaged file is like none.
"""

from __future__ import annotations

import logging
from collections import OrderedDict

import msgspec

from skycore.contracts.runtime import Clock, Files, Identity
from skycore.errors import StoreError
from skycore.guards.facts import Record

__all__ = ["RECORDS_FILE", "PublishedRecords"]

log = logging.getLogger(__name__)
RECORDS_FILE = "publisher.records"
WRITE_INTERVAL_S = 60.0
FILE_RECORDS_MAX = 20_000
"""What fits into a file of 4 MiB; older records are signed once after a restart."""


class _Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    target: bytes
    content: bytes
    seq: int
    digest: bytes
    until: int
    until_max: int
    mirrors: tuple[int, ...]
    """Places in the list of names."""


class _File(msgspec.Struct, array_like=True, frozen=True):
    version: int
    network: bytes
    signer: bytes
    """Another key's records are not ours to prolong."""
    names: tuple[str, ...]
    rows: tuple[_Row, ...]


_VERSION = 1
_decoder = msgspec.msgpack.Decoder(_File)
NAMES_MAX = 64
"""Mirrors that the file tells apart; a node has one or two."""


class PublishedRecords:
    """Records by target, the latest at the end: bounded in memory, and more so on disk."""

    def __init__(self, records_max: int, identity: Identity, clock: Clock, files: Files) -> None:
        self._records_max = records_max
        self._identity = identity
        self._clock = clock
        self._files = files
        self._records: OrderedDict[bytes, Record] = OrderedDict()
        self._is_dirty = False
        self._written_at: float | None = None
        self._load()

    def __len__(self) -> int:
        return len(self._records)

    def get(self, target: bytes) -> Record | None:
        """Return what was published at a target."""
        return self._records.get(target)

    def keep(self, target: bytes, record: Record) -> None:
        """Remember a record, or that it was prolonged."""
        self._is_dirty = True
        self._records[target] = record
        self._records.move_to_end(target)
        while len(self._records) > self._records_max:
            self._records.popitem(last=False)

    def save(self, *, at_end: bool = False) -> None:
        """Write what changed, once a minute at most and at the end. A failing disk is logged."""
        now = self._clock.now()
        is_soon = self._written_at is not None and now - self._written_at < WRITE_INTERVAL_S
        if not self._is_dirty or (is_soon and not at_end):
            return
        self._written_at = now
        try:
            self._files.write(RECORDS_FILE, self._encoded())
            self._is_dirty = False
        except StoreError as error:
            log.warning("what was published is not remembered error=%r", str(error))

    def _encoded(self) -> bytes:
        now_s = self._clock.wall_s()
        names: dict[str, int] = {}
        rows = []
        for target, record in list(self._records.items())[-FILE_RECORDS_MAX:]:
            if record.until <= now_s:
                continue
            if len(names) + len(record.mirrors) <= NAMES_MAX:
                for name in sorted(record.mirrors):
                    names.setdefault(name, len(names))
            places = tuple(sorted(names[name] for name in record.mirrors if name in names))
            rows.append(
                _Row(target, record.content, record.seq, record.digest, record.until,
                     record.until_max, places)
            )  # fmt: skip
        network, signer = self._identity.network.id, self._identity.public
        return msgspec.msgpack.encode(_File(_VERSION, network, signer, tuple(names), tuple(rows)))

    def _load(self) -> None:
        try:
            data = self._files.read(RECORDS_FILE)
            held = _decoder.decode(data) if data else None
        except (StoreError, msgspec.DecodeError, UnicodeError, RecursionError) as bad:
            log.warning("what was published before is not known file=%s: %s", RECORDS_FILE, bad)
            return
        own = (_VERSION, self._identity.network.id, self._identity.public)
        if held is None or (held.version, held.network, held.signer) != own:
            return
        for row in held.rows[-self._records_max :] if self._records_max else ():
            mirrors = frozenset(name for at, name in enumerate(held.names) if at in row.mirrors)
            self._records[row.target] = Record(
                row.content, row.seq, row.digest, row.until, row.until_max, mirrors,
                is_confirmed=False,
            )  # fmt: skip
        log.info("published before records=%d", len(self._records))

"""What every registry has in common: bounds, what a write does to a listing, slots of a day.

Why here: the rules of `contracts.registry.RegistryWrite` are the same wherever listings are kept.
A registry whose backend can do Python's work uses `apply`; one that cannot (a script inside Redis)
repeats it, and passes the same suite.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

from pydantic import Field

from skycore.contracts.registry import Beats, Listed, Listing, RegistryCapacity, RegistryWrite
from skycore.contracts.settings import PluginSettings
from skycore.errors import CursorInvalidError, LocalProtocolError, StoreFullError
from skycore.model.limits import BEAT_DAYS, BEAT_SLOTS, LISTED_KEY_MAX, LISTED_SUBJECT_MAX

__all__ = [
    "GONE_KEPT_S",
    "Applied",
    "Held",
    "RegistryBounds",
    "apply",
    "beat_slot",
    "beats_of",
    "begun_of",
    "check_day",
    "check_writes",
    "cursor_at",
    "first_day",
    "listing_of",
    "position_of",
    "too_many_entries",
]

SLOT_S: Final = 86_400 // BEAT_SLOTS
GONE_KEPT_S: Final = 7_200
"""How long a subject that lists nothing is told of; the contract asks for an hour."""
LIFETIME_MAX_S: Final = 366 * 86_400.0
STAMP_MAX: Final = 2**63 - 1
TABLE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


class RegistryBounds(PluginSettings):
    """How much a registry takes. A settings model of a registry derives this."""

    entries_max: int = Field(default=16_384, ge=1, le=1_000_000)
    """Entries that one subject may list in a table."""
    subjects_max: int = Field(default=200_000, ge=1)
    """Subjects of a table. Known nonces are bounded by ten times as many."""
    body_bytes_max: int = Field(default=16_384, ge=1, le=1 << 20)
    """Bytes of one entry's body."""
    table_mib_max: int = Field(default=1_024, ge=1)
    """Keys and bodies of a table, MiB."""

    @property
    def capacity(self) -> RegistryCapacity:
        """Return how much a table may hold."""
        return RegistryCapacity(self.subjects_max, self.table_mib_max << 20)


class Held(NamedTuple):
    """An entry as it is held."""

    body: bytes
    until_ms: int
    """It is live while this is later than now, Unix milliseconds."""
    stamp: int


class Applied(NamedTuple):
    """What a write does to a listing."""

    entries: Mapping[bytes, Held]
    """All live entries after it, by key."""
    is_changed: bool
    removed: tuple[bytes, ...]
    highest: int
    """The highest stamp of an entry that the write names."""
    is_refused: bool
    """`must_rise`, and the stamp does not: nothing is done."""


def check_writes(table: str, writes: Sequence[RegistryWrite], bounds: RegistryBounds) -> None:
    """Refuse what no registry takes.

    Raises `StoreFullError` for what a setting bounds, `LocalProtocolError` for what cannot be.
    """
    if not TABLE.fullmatch(table):
        raise LocalProtocolError(f"{table!r} is no name of a table")
    for write in writes:
        _check(write)
        if len(write.put) > bounds.entries_max:
            raise too_many_entries(len(write.put), bounds)
        for entry in write.put:
            _check_key(entry.key)
            if len(entry.body) > bounds.body_bytes_max:
                raise StoreFullError(
                    f"an entry of {len(entry.body)} bytes is larger than body_bytes_max,"
                    f" {bounds.body_bytes_max}"
                )
        for key in write.remove:
            _check_key(key)


def _check(write: RegistryWrite) -> None:
    if not 1 <= len(write.subject) <= LISTED_SUBJECT_MAX:
        raise LocalProtocolError(f"a subject has 1 to {LISTED_SUBJECT_MAX} bytes")
    if not math.isfinite(write.lifetime_s) or write.lifetime_s > LIFETIME_MAX_S:
        raise LocalProtocolError(f"a lifetime is at most {LIFETIME_MAX_S:.0f} s")
    if not 0 <= write.stamp <= STAMP_MAX:
        raise LocalProtocolError(f"a stamp lies between 0 and {STAMP_MAX}")
    if write.nonce is not None and not 0 <= write.nonce <= STAMP_MAX:
        raise LocalProtocolError(f"a nonce lies between 0 and {STAMP_MAX}")


def _check_key(key: bytes) -> None:
    if not 1 <= len(key) <= LISTED_KEY_MAX:
        raise LocalProtocolError(f"a key has 1 to {LISTED_KEY_MAX} bytes")


def too_many_entries(count: int, bounds: RegistryBounds) -> StoreFullError:
    """Return the error of a subject that lists too much."""
    return StoreFullError(f"a subject with {count} entries is over entries_max, "
                          f"{bounds.entries_max}")  # fmt: skip


def apply(held: Mapping[bytes, Held], write: RegistryWrite, now_ns: int) -> Applied:
    """Return what a write makes of a listing. Entries whose life is over do not count any more."""
    now_ms = now_ns // 10**6
    until = now_ms + max(0, int(write.lifetime_s * 1_000))
    live = {key: entry for key, entry in held.items() if entry.until_ms > now_ms}
    is_changed = len(live) < len(held)
    named = [*(entry.key for entry in write.put), *write.remove]
    highest = max((live[key].stamp for key in named if key in live), default=0)
    # "Now" is later than all that is known, whatever clock that was stamped with.
    stamp = write.stamp or max((now_ns, *(entry.stamp for entry in live.values())))
    if write.must_rise and stamp <= highest:
        return Applied(live, is_changed, (), highest, True)
    removed = _remove(live, write.remove, stamp)
    put = dict(write.put)
    added = _put(live, put, stamp, until, now_ms)
    gone: Sequence[bytes] = ()
    if write.whole:
        gone = _remove(live, [key for key in live if key not in put], stamp)
    if write.prolong:
        for key, entry in live.items():
            if entry.until_ms < until:
                live[key] = entry._replace(until_ms=until)
    changed = is_changed or added or bool(removed or gone)
    return Applied(live, changed, tuple(removed), highest, False)


def _remove(live: dict[bytes, Held], keys: Sequence[bytes], stamp: int) -> list[bytes]:
    """Remove what is not known since later."""
    ends = [key for key in dict.fromkeys(keys) if key in live and live[key].stamp <= stamp]
    for key in ends:
        del live[key]
    return ends


def _put(
    live: dict[bytes, Held], put: Mapping[bytes, bytes], stamp: int, until: int, now_ms: int
) -> bool:
    is_changed = False
    for key, body in put.items():
        before = live.get(key)
        if before is None:
            if until > now_ms:
                live[key] = Held(body, until, stamp)
                is_changed = True
            continue
        later = max(before.until_ms, until)
        if before.stamp > stamp:
            live[key] = before._replace(until_ms=later)
            continue
        is_changed = is_changed or before.body != body
        live[key] = Held(body, later, stamp)
    return is_changed


def listing_of(subject: bytes, bodies: Mapping[bytes, bytes]) -> Listing:
    """Return a listing, ordered by key."""
    return Listing(subject, tuple(Listed(key, bodies[key]) for key in sorted(bodies)))


# --- days ----------------------------------------------------------------------------------------


def beat_slot(now_s: int) -> tuple[str, int]:
    """Return the day (UTC) and which of its spans of five minutes a time lies in."""
    day = datetime.fromtimestamp(now_s, UTC)
    return day.date().isoformat(), now_s % 86_400 // SLOT_S


def first_day(now_s: int) -> str:
    """Return the first day that is still kept."""
    today = datetime.fromtimestamp(now_s, UTC).date()
    return (today - timedelta(days=BEAT_DAYS)).isoformat()


def beats_of(slots: bytes, last_s: int) -> Beats:
    """Return how much of a day is set in its bitmap of 36 bytes."""
    return Beats(int.from_bytes(slots, "big").bit_count(), last_s)


def check_day(day: str) -> str:
    """Return a day as it must be written. Raises `LocalProtocolError`."""
    try:
        return date.fromisoformat(day).isoformat()
    except ValueError:
        raise LocalProtocolError(f"{day!r} is no day such as 2026-04-21") from None


# --- cursors -------------------------------------------------------------------------------------


def cursor_at(registry_id: bytes, table: str, position: int, begun: int = 0) -> bytes:
    """Return a place in a table's change log, good for this registry and table alone.

    `begun`: where the log ended when a reading from the start began; 0 once that is at its end.
    """
    place = _log_id(registry_id, table) + position.to_bytes(8, "big")
    return place + begun.to_bytes(8, "big") if begun > position else place


def begun_of(cursor: bytes) -> int:
    """Return where the log ended when this cursor's reading from the start began; 0 for none."""
    return int.from_bytes(cursor[24:], "big")


def position_of(cursor: bytes, registry_id: bytes, table: str, first: int, last: int) -> int:
    """Return the position that a cursor stands for.

    `first` is the first one from which nothing is missing. Whoever reads from the start is told of
    the living alone: what was gone before he began he never met, so he need not learn of its end.
    Raises `CursorInvalidError`.
    """
    if len(cursor) not in (24, 32) or cursor[:16] != _log_id(registry_id, table):
        raise CursorInvalidError("the cursor belongs to another change log")
    position = int.from_bytes(cursor[16:24], "big")
    if max(position, begun_of(cursor)) > last:
        raise CursorInvalidError("the cursor lies behind the end of the change log")
    if max(position, begun_of(cursor)) < first:
        raise CursorInvalidError("the cursor is too old: what ended since is forgotten")
    return position


def _log_id(registry_id: bytes, table: str) -> bytes:
    return hashlib.sha256(registry_id + table.encode()).digest()[:16]

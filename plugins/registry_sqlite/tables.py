"""The rules of a registry over the file: writes, the change log, sweeps. All inside a transaction.

The floor of nonces: a subject's next nonce is never below its table's floor, and the floor rises
to now (Unix milliseconds) with a new file and with one that was not closed properly. So what was
used up and then lost, with the file or in a power failure, is never accepted again (L21). A nonce
that is forgotten for room raises the floor above itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from registry_sqlite.drafts import Draft, Place, Row, bodies_of, decode, encode_bodies, encode_lives
from skycore.contracts.registry import Beats, Listing, RegistryPage, RegistryWrite, RegistryWritten
from skycore.discovery.registries import (
    GONE_KEPT_S,
    RegistryBounds,
    apply,
    beat_slot,
    beats_of,
    begun_of,
    cursor_at,
    first_day,
    listing_of,
    position_of,
    too_many_entries,
)
from skycore.errors import StoreCorruptError, StoreFullError
from skycore.sqlite import SqliteFile, marks

__all__ = ["Tables"]

PAGE_BYTES = 4 * 1024 * 1024
TIDIED_AT_ONCE = 1_000
_ASKED_AT_ONCE = 500
_NO_SLOTS = bytes(36)
_LISTING = (
    "SELECT l.subject, l.id, l.position, l.gone_ms, l.bytes, l.bodies, v.lives"
    " FROM listings l JOIN lives v ON v.id = l.id WHERE l.place = ?"
)


class Tables:
    """One registry's tables. `now_ns` is the caller's; nothing here knows a clock."""

    def __init__(self, database: SqliteFile, bounds: RegistryBounds) -> None:
        self._db = database
        self._bounds = bounds
        self._nonces_max = bounds.subjects_max * 10
        self._places: dict[str, Place] = {}
        self._next_id = self._next_nonce_id = 1
        self._nonces = 0
        self._beaten: dict[tuple[str, str], int] = {}
        self._draft = Draft()
        self._before: tuple[dict[str, Place], int] = ({}, 0)
        self._since = 0
        self.registry_id = b""

    # --- opening --------------------------------------------------------------------------------

    def load(self, new_id: bytes, now_ns: int) -> None:
        """Read where everything stands, in a transaction, and mark the file as in use."""
        self._since = now_ns // 10**6
        found = self._db.rows("SELECT registry_id, is_clean FROM meta")
        if found and found[0][1]:
            self.registry_id = bytes(found[0][0])
        else:  # new, or positions and nonces may have gone back: no cursor or nonce goes on
            self.registry_id = new_id
            self._db.execute("UPDATE places SET floor = max(floor, ?)", (self._since,))
        self._db.execute(
            "INSERT OR REPLACE INTO meta (id, registry_id, is_clean) VALUES (1, ?, 0)",
            (self.registry_id,),
        )
        counted = {
            name: (subjects, size)
            for name, subjects, size in self._db.rows(
                "SELECT place, count(*), sum(bytes) FROM listings WHERE gone_ms IS NULL"
                " GROUP BY place"
            )
        }
        self._places = {
            name: Place(position, first, floor, *counted.get(name, (0, 0)))
            for name, position, first, floor in self._db.rows(
                "SELECT name, position, first, floor FROM places"
            )
        }
        self._next_id = 1 + self._one("SELECT max(id) FROM listings")
        self._next_nonce_id = 1 + self._one("SELECT max(id) FROM nonces")
        self._nonces = self._one("SELECT count(*) FROM nonces")
        self._beaten.clear()
        self._draft = Draft()
        self._before = (dict(self._places), self._nonces)

    def _one(self, statement: str, parameters: tuple[Any, ...] = ()) -> int:
        return self._db.execute(statement, parameters).scalar() or 0

    def mark_clean(self) -> None:
        """Take note that nothing can be missing."""
        self._db.execute("UPDATE meta SET is_clean = 1")

    # --- a turn ---------------------------------------------------------------------------------

    def begin(self, writes: Mapping[str, Iterable[RegistryWrite]]) -> None:
        """Begin a turn; read at once what these writes will need."""
        self._draft = Draft()
        self._before = (dict(self._places), self._nonces)
        for table, some in writes.items():
            known = list(some)
            subjects = list(dict.fromkeys(write.subject for write in known))
            self._read_rows(table, subjects)
            asked = dict.fromkeys(write.subject for write in known if write.nonce is not None)
            self._read_nonces(table, list(asked))

    def flush(self) -> None:
        """Write what the turn has made."""
        draft, self._draft = self._draft, Draft()
        listings, lives = [], []
        for key in draft.altered:
            row = draft.rows[key]
            assert row is not None
            if row.is_altered:
                listings.append((row.id, *key, row.position, row.gone_ms, row.size,
                                 encode_bodies(row.entries)))  # fmt: skip
            ends = min((entry.until_ms for entry in row.entries.values()), default=None)
            lives.append((row.id, key[0], ends, encode_lives(row.entries)))
        self._db.many("INSERT OR REPLACE INTO listings VALUES (?, ?, ?, ?, ?, ?, ?)", listings)
        self._db.many("INSERT OR REPLACE INTO lives VALUES (?, ?, ?, ?)", lives)
        self._flush_nonces(draft)
        self._db.many(
            "INSERT OR REPLACE INTO beats VALUES (?, ?, ?, ?, ?)",
            [(*key, *value) for key, value in draft.beats.items()],
        )
        places = [
            (name, place.position, place.first, place.floor)
            for name, place in draft.places.items()
            if self._places.get(name, Place(-1, 0, 0))[:3] != place[:3]
        ]
        self._db.many("INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?)", places)
        self._places |= draft.places

    def _flush_nonces(self, draft: Draft) -> None:
        rows = []
        for key in draft.used:
            rows.append((self._next_nonce_id, *key, draft.nonces[key]))
            self._next_nonce_id += 1
            self._nonces += key not in draft.kept
        self._db.many(
            "INSERT OR REPLACE INTO nonces (id, place, subject, next) VALUES (?, ?, ?, ?)", rows
        )

    def draft(self) -> Draft:
        """Return what a caller may be undone to."""
        return self._draft.copy()

    def undo(self, draft: Draft) -> None:
        """Forget what was drafted since."""
        self._draft = draft

    def forget(self) -> None:
        """The turn was rolled back."""
        self._draft = Draft()
        self._places, self._nonces = self._before
        self._beaten.clear()

    # --- writes ---------------------------------------------------------------------------------

    def write(
        self, table: str, writes: Sequence[RegistryWrite], now_ns: int
    ) -> list[RegistryWritten]:
        """Do writes. Raises `StoreFullError`; then `undo`."""
        return [self._write(table, write, now_ns) for write in writes]

    def _write(self, table: str, write: RegistryWrite, now_ns: int) -> RegistryWritten:
        next_nonce = 0
        if write.nonce is not None:
            next_nonce = self.next_nonce(table, write.subject)
            if write.nonce != next_nonce:
                return RegistryWritten(error="nonce", next_nonce=next_nonce)
        key = (table, write.subject)
        row = self._row(*key)
        done = apply(row.entries if row else {}, write, now_ns)
        if done.is_refused:
            return RegistryWritten(error="stamp", next_nonce=next_nonce, stamp=done.highest)
        if row is not None or done.entries:
            self._keep(key, row, done.entries, now_ns // 10**6, is_changed=done.is_changed)
        if write.nonce is not None:
            next_nonce += 1
            self._draft.nonces[key] = next_nonce
            self._draft.used[key] = None
        if write.beat:
            self._beat(table, write.subject, now_ns // 10**9)
        listing = None
        if done.is_changed:
            listing = listing_of(write.subject, {k: e.body for k, e in done.entries.items()})
        return RegistryWritten(
            next_nonce=next_nonce, changed=done.is_changed, listing=listing, removed=done.removed
        )

    def _keep(
        self, key: tuple[str, bytes], row: Row | None, entries: Mapping[bytes, Any], now_ms: int,
        *, is_changed: bool,
    ) -> None:  # fmt: skip
        if row is not None and not is_changed:
            if entries:
                self._draft.rows[key] = row._replace(entries=entries)
                self._draft.altered[key] = None
            return
        place = self._place(key[0])
        was = row is not None and row.gone_ms is None
        size = sum(len(k) + len(entry.body) for k, entry in entries.items())
        place = place._replace(
            position=place.position + 1,
            subjects=place.subjects + bool(entries) - was,
            size=place.size + size - (row.size if row else 0),
        )
        if row is None or size > row.size:
            self._check_bounds(place, len(entries))
        number = row.id if row else self._next_id
        if row is None:
            self._next_id += 1
        gone_ms = None if entries else now_ms
        self._draft.places[key[0]] = place
        self._draft.rows[key] = Row(number, place.position, gone_ms, size, entries, True)
        self._draft.altered[key] = None

    def _check_bounds(self, place: Place, entries: int) -> None:
        bounds = self._bounds
        if entries > bounds.entries_max:
            raise too_many_entries(entries, bounds)
        if place.subjects > bounds.subjects_max:
            raise StoreFullError(f"the table is full: subjects_max is {bounds.subjects_max}")
        if place.size > bounds.table_mib_max << 20:
            raise StoreFullError(f"the table is full: table_mib_max is {bounds.table_mib_max}")

    def _beat(self, table: str, subject: bytes, now_s: int) -> None:
        day, slot = beat_slot(now_s)
        key = (table, day, subject)
        found = self._draft.beats.get(key)
        if found is None:
            rows = self._db.rows(
                "SELECT slots, last_s FROM beats WHERE place = ? AND day = ? AND subject = ?", key
            )
            if not rows and not self._has_room(table, day):
                return
            found = (bytes(rows[0][0]), int(rows[0][1])) if rows else (_NO_SLOTS, 0)
        slots = bytearray(found[0])
        slots[slot >> 3] |= 0x80 >> (slot & 7)
        self._draft.beats[key] = (bytes(slots), max(found[1], now_s))

    def _has_room(self, table: str, day: str) -> bool:
        """Count one more who was seen on a day."""
        key = (table, day)
        if key not in self._beaten:
            self._beaten[key] = self._one(
                "SELECT count(*) FROM beats WHERE place = ? AND day = ?", key
            )
        self._beaten[key] += 1
        return self._beaten[key] <= self._nonces_max

    # --- reading --------------------------------------------------------------------------------

    def _place(self, table: str) -> Place:
        found = self._draft.places.get(table) or self._places.get(table)
        return found or Place(0, 0, self._since)

    def _row(self, table: str, subject: bytes) -> Row | None:
        if (table, subject) not in self._draft.rows:
            self._read_rows(table, [subject])
        return self._draft.rows[table, subject]

    def _read_rows(self, table: str, subjects: Sequence[bytes]) -> None:
        rows = self._draft.rows
        rows.update(((table, subject), None) for subject in subjects)
        for at in range(0, len(subjects), _ASKED_AT_ONCE):
            part = subjects[at : at + _ASKED_AT_ONCE]
            statement = f"{_LISTING} AND l.subject IN ({marks(len(part))})"
            for found in self._db.rows(statement, (table, *part)):
                rows[table, bytes(found[0])] = _row(found)

    def _read_nonces(self, table: str, subjects: Sequence[bytes]) -> None:
        floor = self._place(table).floor
        nonces = self._draft.nonces
        nonces.update(((table, subject), floor) for subject in subjects)
        for at in range(0, len(subjects), _ASKED_AT_ONCE):
            part = subjects[at : at + _ASKED_AT_ONCE]
            for subject, held in self._db.rows(
                "SELECT subject, next FROM nonces WHERE place = ?"
                f" AND subject IN ({marks(len(part))})",
                (table, *part),
            ):
                nonces[table, bytes(subject)] = max(floor, held)
                self._draft.kept.add((table, bytes(subject)))

    def next_nonce(self, table: str, subject: bytes) -> int:
        """Return the nonce that a subject's next write must have."""
        if (table, subject) not in self._draft.nonces:
            self._read_nonces(table, [subject])
        return max(self._draft.nonces[table, subject], self._place(table).floor)

    def changes(self, table: str, after: bytes | None, limit: int, now_ns: int) -> RegistryPage:
        """Return a stretch of the change log."""
        place = self._place(table)
        position, only_live, begun = 0, "", place.position
        if after is None:
            only_live = " AND l.gone_ms IS NULL"
        else:
            begun = begun_of(after)
            position = position_of(after, self.registry_id, table, place.first, place.position)
        listings: list[Listing] = []
        size, has_more = 0, False
        statement = f"{_LISTING} AND l.position > ?{only_live} ORDER BY l.position"
        for found in self._db.stream(statement, (table, position)):
            if listings and (len(listings) >= limit or size + found[4] > PAGE_BYTES):
                has_more = True
                break
            bodies = _decoded(bodies_of, found, now_ns // 10**6)
            if bodies or after is not None:
                listings.append(listing_of(bytes(found[0]), bodies))
            size += found[4]
            position = found[2]
        end = position if has_more else place.position
        cursor = cursor_at(self.registry_id, table, end, begun)
        return RegistryPage(tuple(listings), cursor, has_more)

    def beats(self, table: str, day: str, now_s: int) -> dict[bytes, Beats]:
        """Return who was seen on a day."""
        if day < first_day(now_s):
            return {}
        rows = self._db.rows(
            "SELECT subject, slots, last_s FROM beats WHERE place = ? AND day = ?", (table, day)
        )
        return {bytes(subject): beats_of(bytes(slots), last) for subject, slots, last in rows}

    # --- ends -----------------------------------------------------------------------------------

    def sweep(self, table: str, limit: int, now_ns: int) -> int:
        """End entries whose life is over, oldest first; forget what is told of no more."""
        now_ms = now_ns // 10**6
        found = self._db.rows(
            f"{_LISTING} AND l.id IN (SELECT id FROM lives WHERE place = ? AND ends <= ?"
            " ORDER BY ends LIMIT ?) ORDER BY v.ends",
            (table, table, now_ms, min(limit, TIDIED_AT_ONCE)),
        )
        count = 0
        for columns in found:
            row = _row(columns)
            ended = sorted((e.until_ms, k) for k, e in row.entries.items() if e.until_ms <= now_ms)
            gone = {key for _, key in ended[: limit - count]}
            if gone:
                left = {key: entry for key, entry in row.entries.items() if key not in gone}
                self._keep((table, bytes(columns[0])), row, left, now_ms, is_changed=True)
                count += len(gone)
        self.flush()
        self._tidy(table, now_ns)
        return count

    def _tidy(self, table: str, now_ns: int) -> None:
        gone = self._db.rows(
            "SELECT id, position FROM listings WHERE place = ? AND gone_ms <= ?"
            " ORDER BY gone_ms LIMIT ?",
            (table, now_ns // 10**6 - GONE_KEPT_S * 1_000, TIDIED_AT_ONCE),
        )
        if gone:
            for name in ("listings", "lives"):
                self._db.many(f"DELETE FROM {name} WHERE id = ?", [(row[0],) for row in gone])
            place = self._place(table)
            first = max(place.first, *(row[1] for row in gone))
            self._draft.places[table] = place._replace(first=first)
        self._db.execute(
            "DELETE FROM beats WHERE place = ? AND day < ?", (table, first_day(now_ns // 10**9))
        )
        self._beaten.clear()
        self._forget_nonces()
        self.flush()

    def _forget_nonces(self) -> None:
        excess = min(self._nonces - self._nonces_max, TIDIED_AT_ONCE)
        if excess <= 0:
            return
        oldest = self._db.rows("SELECT id, place, next FROM nonces ORDER BY id LIMIT ?", (excess,))
        for _, name, next_nonce in oldest:
            place = self._place(name)
            self._draft.places[name] = place._replace(floor=max(place.floor, next_nonce))
        self._db.many("DELETE FROM nonces WHERE id = ?", [(row[0],) for row in oldest])
        self._nonces -= len(oldest)


def _row(found: Sequence[Any]) -> Row:
    return Row(found[1], found[2], found[3], found[4], _decoded(decode, found))


def _decoded(how: Any, found: Sequence[Any], *more: int) -> Any:
    try:
        return how(bytes(found[5]), bytes(found[6]), *more)
    except (ValueError, msgspec.DecodeError) as bad:
        raise StoreCorruptError(f"a listing that cannot be read: {bad}") from bad

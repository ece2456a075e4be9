"""What is read: each a statement or two along an index, never a scan of the table."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from skycore.contracts.store import ChangeFilter, ChangePage, Fingerprint, Usage
from skycore.errors import CursorInvalidError
from skycore.model.items import Cursor, StoredItem, mutable_item_target
from skycore.model.limits import ENTRY_BYTES
from skycore.model.prints import Prints
from skycore.sqlite import SqliteFile, marks
from store_sqlite.rows import stored_item
from store_sqlite.schema import COLUMNS

__all__ = ["IN_MAX", "Reader", "chunks"]

log = logging.getLogger(__name__)
IN_MAX = 1_000
"""Values in one IN list; SQLite's own bound is 32,766 parameters."""


def chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield values in portions for an IN list."""
    for start in range(0, len(values), IN_MAX):
        yield values[start : start + IN_MAX]


class Reader:
    """The reading half of the store. Ids of damaged rows are left in `damaged`."""

    def __init__(self, database: SqliteFile, prints: Prints) -> None:
        self._db = database
        self._prints = prints
        self.damaged: set[int] = set()

    def _items(self, statement: str, parameters: tuple[Any, ...]) -> Iterator[StoredItem]:
        for row in self._db.stream(statement, parameters):
            item = stored_item(row)
            if item is not None:
                yield item
            else:
                self.damaged.add(row[0])

    def get(self, targets: Sequence[bytes]) -> list[tuple[StoredItem, ...]]:
        """Return for each target what its slots hold."""
        held: dict[bytes, list[StoredItem]] = {target: [] for target in targets}
        for part in chunks(list(held)):
            statement = (
                f"SELECT {COLUMNS} FROM items WHERE target IN ({marks(len(part))})"
                " ORDER BY target, class DESC"
            )
            for item in self._items(statement, tuple(part)):
                held[item.target].append(item)
        return [tuple(held[target]) for target in targets]

    def changes(
        self, place: Cursor, after: Cursor | None, wanted: ChangeFilter, limit: int, bytes_max: int
    ) -> ChangePage:
        """Return a stretch of the log, which ends at `place`."""
        start = 0 if after is None else after.position
        if after is not None and (
            after.store_id != place.store_id or after.position > place.position
        ):
            raise CursorInvalidError(hint="reconcile, then begin with a new cursor")
        entries: list[StoredItem] = []
        size = 0
        for item in self._items(*_log_query(start, wanted, max(limit, 1) + 1)):
            size += len(item.item.v) + ENTRY_BYTES
            if entries and (len(entries) >= limit or size > bytes_max):
                place = Cursor(place.store_id, entries[-1].position)
                return ChangePage(tuple(entries), place, has_more=True)
            entries.append(item)
        return ChangePage(tuple(entries), place, has_more=False)

    def fingerprints(
        self, salt: bytes | None, ranges: Sequence[tuple[bytes, bytes]]
    ) -> list[Fingerprint]:
        """Return a fingerprint for each range."""
        columns = "target, class, rank, until"

        def rows(low: bytes, high: bytes) -> Iterator[tuple[bytes, int, bytes, int]]:
            statement, parameters = _range_query(columns, salt, low, high)
            return self._db.stream(statement, parameters)

        return [Fingerprint(*self._prints.over(salt, low, high, rows)) for low, high in ranges]

    def listing(self, salt: bytes | None, low: bytes, high: bytes, limit: int) -> list[StoredItem]:
        """Return items by target and class."""
        statement, parameters = _range_query(COLUMNS, salt, low, high)
        statement += " ORDER BY target, class LIMIT ?"
        return list(self._items(statement, (*parameters, max(limit, 0))))

    def blocks(self, hashes: Sequence[bytes]) -> list[bytes | None]:
        """Return blocks; one that is not what its name says is not there."""
        found: dict[bytes, bytes] = {}
        for part in chunks(list(dict.fromkeys(hashes))):
            statement = f"SELECT hash, data FROM blocks WHERE hash IN ({marks(len(part))})"
            for name, data in self._db.stream(statement, tuple(part)):
                if hashlib.sha256(data).digest() == name:
                    found[name] = data
                else:
                    log.error("a damaged block is not served block=%s", name.hex()[:8])
        return [found.get(name) for name in hashes]

    def history(self, target: bytes, limit: int) -> list[StoredItem]:
        """Return replaced items, newest first."""
        statement = (
            f"SELECT {COLUMNS} FROM history WHERE target = ? ORDER BY item_position DESC LIMIT ?"
        )
        rows = self._db.rows(statement, (target, max(limit, 0)))
        return [item for item in map(stored_item, rows) if item is not None]

    def usage(self) -> Mapping[bytes, Usage]:
        """Return usage by salt."""
        rows = self._db.rows("SELECT name, items, bytes FROM salts")
        return {name: Usage(count, size) for name, count, size in rows}

    def signer_usage(self, accounts: Sequence[bytes]) -> list[Usage]:
        """Return usage by account."""
        found: dict[bytes, Usage] = {}
        for part in chunks(list(dict.fromkeys(accounts))):
            statement = f"SELECT name, items, bytes FROM signers WHERE name IN ({marks(len(part))})"
            for name, count, size in self._db.rows(statement, tuple(part)):
                found[name] = Usage(count, size)
        return [found.get(name, Usage(0, 0)) for name in accounts]


def _range_query(
    columns: str, salt: bytes | None, low: bytes, high: bytes
) -> tuple[str, tuple[Any, ...]]:
    if salt is None:
        return (
            f"SELECT {columns} FROM items INDEXED BY items_slot WHERE target BETWEEN ? AND ?",
            (low, high),
        )
    return (
        f"SELECT {columns} FROM items INDEXED BY items_salt_target"
        " WHERE salt = ? AND target BETWEEN ? AND ?",
        (salt, low, high),
    )


def _log_query(start: int, wanted: ChangeFilter, limit: int) -> tuple[str, tuple[Any, ...]]:
    """Return the statement for a page. INDEXED BY pins the plan: the planner has no statistics."""
    index, where, parameters = "items_log", "position > ?", [start]
    more: list[Any] = []
    if wanted.salt is not None and wanted.subject is not None:
        index, where = "items_slot", "target = ? AND position > ?"
        parameters = [mutable_item_target(wanted.subject, wanted.salt), start]  # type: ignore[list-item]
        where += " AND salt = ?"
        more.append(wanted.salt)
    elif wanted.salt is not None:
        index, where = "items_salt_log", "salt = ? AND position > ?"
        parameters = [wanted.salt, start]  # type: ignore[list-item]
    if wanted.subject is not None:
        where += " AND subject = ?"
        more.append(wanted.subject)
    if wanted.since_seq > 0:
        where += " AND seq > ?"
        more.append(wanted.since_seq)
    return (
        f"SELECT {COLUMNS} FROM items INDEXED BY {index} WHERE {where} ORDER BY position LIMIT ?",
        (*parameters, *more, limit),
    )

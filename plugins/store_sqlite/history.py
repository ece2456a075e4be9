"""Versions that were replaced, in their table: some for each slot, and a bound for all together.

Why a version holds so little: of the blocks that it stood on it holds those that its successor no
longer does, and the rest is held by the versions after it. So the oldest of a slot goes first, and
a long history of small changes costs the changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from skycore.model.limits import ENTRY_BYTES
from skycore.sqlite import SqliteFile, marks
from store_sqlite.blocks import BlockTable
from store_sqlite.reader import chunks
from store_sqlite.rows import Slot, split_refs
from store_sqlite.schema import COLUMNS

__all__ = ["HistoryTable"]

Key = tuple[bytes, int]
Row = Sequence[Any]
"""id, target, class, bytes, refs."""
_KEPT = COLUMNS.removeprefix("id, ")
_REMEMBER = (
    f"INSERT INTO history ({_KEPT}, bytes, refs) SELECT {_KEPT}, ?, ? FROM items WHERE id = ?"
)
_READ = "SELECT id, target, class, bytes, refs FROM history"
_OLDEST = 64


class HistoryTable:
    """Replaced items. `bytes` is what they take with the blocks that only they hold, at most."""

    def __init__(
        self, database: SqliteFile, blocks: BlockTable, versions_max: int, bytes_max: int
    ) -> None:
        self._db = database
        self._blocks = blocks
        self._versions_max = versions_max
        self._bytes_max = bytes_max
        self.bytes = 0

    @property
    def is_kept(self) -> bool:
        """Whether there is any history at all."""
        return self._versions_max > 0

    def remember(
        self, replaced: Sequence[tuple[Slot, Sequence[bytes]]], sizes: Mapping[bytes, int]
    ) -> None:
        """Keep what stands in these slots, before it is overwritten, with the blocks named."""
        if not self.is_kept or not replaced:
            return
        rows = []
        for slot, names in replaced:
            size = ENTRY_BYTES + slot.size - slot.tree_bytes
            size += sum(sizes.get(name, 0) for name in names)
            rows.append((size, b"".join(names) or None, slot.id))
            self.bytes += size
        self._db.many(_REMEMBER, rows)
        keys = {(slot.target, slot.item_class) for slot, _ in replaced}
        self._drop(list(self._of(keys, self._versions_max)))
        while self.bytes > self._bytes_max:
            self._drop(self._oldest())

    def _oldest(self) -> list[Row]:
        """Return as many of the oldest as are too many, some at a time."""
        rows, over = [], self.bytes - self._bytes_max
        for row in self._db.rows(f"{_READ} ORDER BY id LIMIT {_OLDEST}"):
            if over <= 0:
                break
            rows.append(row)
            over -= row[3]
        if not rows:  # nothing left: what was counted was wrong
            self.bytes = 0
        return rows

    def _of(self, keys: Collection[Key], but: int = 0) -> Iterator[Row]:
        """Yield the versions of slots, but for the newest few of each."""
        for part in chunks(list({target for target, _ in keys})):
            statement = (
                "SELECT id, target, class, bytes, refs FROM (SELECT *, row_number() OVER"
                " (PARTITION BY target, class ORDER BY item_position DESC) AS age FROM"
                f" (SELECT id, target, class, item_position, bytes, refs FROM history"
                f" WHERE target IN ({marks(len(part))}))) WHERE age > ?"
            )
            for row in self._db.rows(statement, (*part, but)):
                if (row[1], row[2]) in keys:
                    yield row

    def end(self, keys: Collection[Key]) -> None:
        """Forget all versions of slots."""
        if keys:
            self._drop(list(self._of(keys)))

    def end_without_slot(self) -> None:
        """Forget what has no slot any more, and count anew."""
        self._db.execute(
            "DELETE FROM history WHERE NOT EXISTS (SELECT 1 FROM items"
            " WHERE items.target = history.target AND items.class = history.class)"
        )
        [(size,)] = self._db.rows("SELECT coalesce(sum(bytes), 0) FROM history")
        self.bytes = size

    def _drop(self, rows: Sequence[Row]) -> None:
        self._db.many("DELETE FROM history WHERE id = ?", [(row[0],) for row in rows])
        self._blocks.forget([name for row in rows for name in split_refs(row[4])])
        self.bytes -= sum(row[3] for row in rows)

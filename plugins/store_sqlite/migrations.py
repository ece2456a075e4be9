"""Files that an older version of this program wrote, brought up to date.

Why statements and not a new file: items, history and the change log with its positions stay, so
that nobody's cursor becomes foreign. Each step runs in one transaction with the new version number:
a crash leaves the file as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from store_sqlite.schema import RECOUNT

__all__ = ["MIGRATIONS"]

_TO_2 = (
    "ALTER TABLE meta ADD COLUMN history_bytes INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE items ADD COLUMN tree_bytes INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE history ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE history ADD COLUMN refs BLOB",
    "ALTER TABLE blocks ADD COLUMN past INTEGER NOT NULL DEFAULT 0",
    "DROP INDEX history_slot",
    "CREATE INDEX history_slot ON history (target, class, item_position, bytes, refs)",
    "DROP INDEX blocks_idle",
    "CREATE INDEX blocks_idle ON blocks (heads, past, idle_since)",
    "UPDATE history SET bytes = length(item)",
    "UPDATE meta SET history_bytes = (SELECT coalesce(sum(bytes), 0) FROM history)",
    "UPDATE items SET tree_bytes = ("
    " WITH RECURSIVE part(k) AS"
    " (SELECT 0 UNION ALL SELECT k + 1 FROM part WHERE (k + 2) * 32 <= length(items.refs))"
    " SELECT coalesce(sum(size), 0) FROM part"
    " JOIN blocks ON blocks.hash = substr(items.refs, 1 + 32 * k, 32)"
    ") WHERE refs IS NOT NULL",
    *RECOUNT,
)

MIGRATIONS: Mapping[int, Sequence[str]] = {1: _TO_2}
"""From each version to the next."""
